/**
 * A place of its own for every test file that mounts: state, run directory, rings and images all lie
 * below one temporary directory. A guard process outlives the test and clears the place however the
 * test ends: processes started from it, mounts, loop devices, files (see guard.sh).
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { accessSync, constants, mkdirSync, mkdtempSync, statfsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import { projectFile } from './files.js'
import { run } from './run.js'

const FUSE = '/dev/fuse'
const SHM = '/dev/shm'
/** Free space that makes /dev/shm the place for images: fsync then costs no disk's time. */
const SHM_BYTES_MIN = 6 * 1024 ** 3
/** Rings of the default size of several volumes fit. */
const RING_TMPFS_SIZE = '2g'

export type Tap = Pick<Test, 'teardown' | 'comment'>

export interface Sandbox {
  /** The directory that holds everything. */
  readonly root: string
  /** A tmpfs for capture rings. */
  readonly rings: string
}

/** One per test file; cleared when the file's tests have ended. Fails where FUSE or root are missing. */
export async function openSandbox(t: Tap): Promise<Sandbox> {
  if (process.getuid?.() !== 0) throw new Error('tests with real mounts must run as root')
  try {
    accessSync(FUSE, constants.R_OK | constants.W_OK)
  } catch {
    throw new Error(
      `tests with real mounts need ${FUSE}: modprobe fuse, or give it to the container`,
    )
  }
  const root = mkdtempSync(join(place(), 'holdfast-test-'))
  const guard = spawn('bash', [projectFile('test/harness/guard.sh'), root], {
    cwd: '/',
    detached: true,
    stdio: ['pipe', 'ignore', 'inherit'],
  })
  t.teardown(() => dismiss(guard))
  // Whoever has this in the environment it was started with is the guard's to end.
  process.env.HOLDFAST_TEST_ROOT = root
  process.env.HOLDFAST_STATE_ROOT = join(root, 'state')
  process.env.HOLDFAST_RUN_DIR = join(root, 'run')
  const rings = join(root, 'rings')
  mkdirSync(rings)
  await run('mount', ['-t', 'tmpfs', '-o', `size=${RING_TMPFS_SIZE}`, 'holdfast-test', rings])
  // Applications of other users come through here.
  await run('chmod', ['0755', root])
  return { root, rings }
}

/** TMPDIR when it is given; else shared memory when there is plenty of it. */
function place(): string {
  if (process.env.TMPDIR !== undefined) return tmpdir()
  try {
    const { bavail, bsize } = statfsSync(SHM)
    return bavail * bsize >= SHM_BYTES_MIN ? SHM : tmpdir()
  } catch {
    return tmpdir()
  }
}

async function dismiss(guard: ChildProcess): Promise<void> {
  const ended = once(guard, 'exit')
  guard.stdin?.end()
  const [code] = await ended
  if (code !== 0) throw new Error('the guard could not clear the sandbox')
}
