/**
 * A volume mounted over a directory of an image, beside a copy of its base: what the journal is
 * judged by. `replayAndCompare` is the end of every test that changes something.
 */
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import { type MountOptions, mount, type Volume } from '../../src/index.js'
import { tool } from './files.js'
import type { Image } from './image.js'
import { attempt, bash, run } from './run.js'
import type { Sandbox } from './sandbox.js'

/** Small, so that a test allocates quickly and wraps it often. */
const RING_BYTES = 64 << 20

export interface TestVolume {
  volume: Volume
  /** The mountpoint, which is the backing directory too. */
  readonly dir: string
  /** The tree as it was before the volume was made. */
  readonly base: string
}

export interface VolumeSetup {
  name: string
  /** Makes the directory itself, e.g. as a subvolume. */
  make?: (dir: string) => unknown
  /** Makes the base in this directory, before it is protected. */
  fill?: (dir: string) => unknown
  mode?: number
  /** Where the copy of the base stands; default: on the same image. */
  baseOn?: Image
  options?: NonNullable<MountOptions['options']>
}

/** Makes a directory, copies it, and protects it. */
export async function mountVolume(
  sandbox: Sandbox,
  image: Image,
  { name, make = mkdirSync, fill, mode = 0o755, baseOn = image, options = {} }: VolumeSetup,
): Promise<TestVolume> {
  const dir = join(image.dir, name)
  const base = join(baseOn.dir, `${name}.base`)
  await make(dir)
  await run('chmod', [mode.toString(8), dir])
  await fill?.(dir)
  // Not a clone: what XFS allocates when a clone is written to shows as data.
  await run('cp', ['-a', '--reflink=never', '--sparse=always', '--', dir, base])
  const volume = await mount({
    dir,
    name,
    options: { ringDirectory: sandbox.rings, ringBytes: RING_BYTES, ...options },
  })
  return { volume, dir, base }
}

/** Unmounts in order; fails while the volume is used. */
export async function unmountVolume({ volume }: TestVolume): Promise<void> {
  const { panics, journal, ring } = await volume.status()
  if (panics > 0) throw new Error(`${panics} panics in dummy functions: ${panicsOf(volume)}`)
  if (journal.failure !== null) throw new Error(`the journal failed: ${journal.failure}`)
  if (ring.refusals > 0) throw new Error(`${ring.refusals} writers were refused`)
  await volume.unmount()
}

/** What the daemon's log says of panics. */
function panicsOf({ stateDirectory }: Volume): string {
  const lines = readFileSync(join(stateDirectory, 'daemon.log'), 'utf8').split('\n')
  return lines.filter((line) => line.includes('panicked')).join('\n')
}

/**
 * Unmounts, verifies the journal, replays it onto the base and compares trees. Returns the
 * differences, one per line: empty is what a test expects.
 */
export async function replayAndCompare(test: TestVolume, ...options: string[]): Promise<string> {
  await unmountVolume(test)
  const report = await test.volume.verify()
  if (report.problemCount > 0) throw new Error(`journal: ${JSON.stringify(report.problems[0])}`)
  await test.volume.replay({ onto: test.base })
  return compareTrees(test.dir, test.base, ...options)
}

/**
 * Runs `work` on a new volume; afterwards the journal, replayed onto a copy of the base, must give
 * the same tree.
 */
export async function onVolume(
  t: Test,
  { sandbox, image, ...setup }: VolumeSetup & { sandbox: Sandbox; image: Image },
  work: (test: TestVolume) => unknown,
): Promise<void> {
  const test = await mountVolume(sandbox, image, setup)
  await work(test)
  t.equal(await replayAndCompare(test), '', `${setup.name}: replay gives the same tree`)
}

/** The differences between two trees, one per line. */
export async function compareTrees(a: string, b: string, ...options: string[]): Promise<string> {
  // Allocated but unwritten space counts as data for SEEK_DATA while the cache has read it.
  if (options.includes('--holes')) await bash('sync; echo 1 >/proc/sys/vm/drop_caches')
  const args = ['--quiet', '--max', '20', ...options, a, b]
  const { code, stdout, stderr } = await attempt(tool('treecmp'), args)
  if (code === 0) return ''
  if (code === 1) return stdout
  throw new Error(`treecmp: ${stderr}`)
}
