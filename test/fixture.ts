/**
 * Real volumes for tests: a temporary home with a tree, a copy of it as base, and the command line.
 * Whatever happens, the teardown detaches every mount below the home, ends the daemons and removes
 * everything. Where FUSE is missing these tests fail and say so.
 */
import { execFile, execFileSync } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type t from 'tap'
import { ControlClient } from '../src/daemon/client.js'
import type { Status } from '../src/daemon/status.js'
import { HoldfastError, type MountOptions, mount, open, type Volume } from '../src/index.js'
import { readMounts } from '../src/lib/mountinfo.js'

export const ROOT = fileURLToPath(new URL('../../', import.meta.url))
export const CLI = join(ROOT, 'dist/program/cli/main.js')
const TREECMP = join(ROOT, 'test/tools/target/release/treecmp')
const TEST_ROOT = process.env.HOLDFAST_TEST_ROOT ?? '/dev/shm'
const WAIT_MS = 20_000

export interface Result {
  code: number
  stdout: string
  stderr: string
}

export type Tap = Pick<typeof t, 'teardown'>

export class Home {
  /** On tmpfs: a checkpoint syncs the whole file system, which others may keep busy. */
  readonly path = mkdtempSync(join(TEST_ROOT, `holdfast-home-${process.pid}-`))
  readonly data = join(this.path, 'data')
  readonly base = join(this.path, 'base')
  readonly stateRoot = join(this.path, 'state')
  readonly runDirectory = join(this.path, 'run')

  constructor(t: Tap) {
    cleanAbandonedHomes()
    if (!existsSync('/dev/fuse')) throw new Error('these tests need /dev/fuse: modprobe fuse')
    mkdirSync(this.data)
    // In this process too: the library and the registry read them.
    process.env.HOLDFAST_STATE_ROOT = this.stateRoot
    process.env.HOLDFAST_RUN_DIR = this.runDirectory
    const cleanUp = () => {
      process.off('exit', cleanUp)
      cleanHome(this.path)
    }
    t.teardown(cleanUp)
    // A test that runs out of time is ended without its teardowns.
    process.once('exit', cleanUp)
  }

  /** Keeps a copy of the tree as it is now, to replay onto. */
  copyBase(): void {
    rmSync(this.base, { recursive: true, force: true })
    execFileSync('cp', ['-a', '--sparse=always', this.data, this.base])
  }

  /** Protects the tree, through the library: no further process than the daemon. */
  mount(options: Partial<MountOptions> = {}): Promise<Volume> {
    return mount({ dir: this.data, ...options })
  }

  async unmount(name = 'data'): Promise<void> {
    await open(name).unmount()
  }

  /** The error with which a mount is refused. */
  async refusal(options: Partial<MountOptions> = {}): Promise<HoldfastError> {
    try {
      await this.mount(options)
    } catch (error) {
      if (error instanceof HoldfastError) return error
      throw error
    }
    throw new Error('the mount was not refused')
  }

  /** Runs the command line; never throws. */
  holdfast(...args: string[]): Promise<Result> {
    return execute(process.execPath, [CLI, ...args])
  }

  /** Runs the command line; throws what it says when it fails. */
  async ok(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.holdfast(...args)
    if (code !== 0) throw new Error(`holdfast ${args.join(' ')} ended with ${code}: ${stderr}`)
    return stdout
  }

  async status(name = 'data'): Promise<Status> {
    return new ControlClient(name).status()
  }

  pid(name = 'data'): number {
    return JSON.parse(readFileSync(join(this.runDirectory, `${name}.pid`), 'utf8')).pid
  }

  /** SIGKILLs the daemon and waits until it is gone. */
  async kill(name = 'data'): Promise<void> {
    const pid = this.pid(name)
    process.kill(pid, 'SIGKILL')
    await until(() => !alive(pid), 'the daemon to be gone')
  }

  /** Differences of two trees as treecmp prints them; empty when they are equal. */
  differences(a: string, b: string): string {
    try {
      execFileSync(TREECMP, [a, b, '--max', '20'], { stdio: 'pipe' })
      return ''
    } catch (error) {
      return String((error as { stdout?: Buffer }).stdout ?? error)
    }
  }

  /** Replays onto the copy of the base and compares it with the tree. */
  async replayDifferences(name = 'data', tree = this.data): Promise<string> {
    const volume = open(name)
    if (this.isMounted(volume.config.mountpoint)) await volume.flush()
    await volume.replay({ onto: this.base })
    return this.differences(tree, this.base)
  }

  /** Whether a holdfast mount is at `path`. */
  isMounted(path = this.data): boolean {
    return readMounts().some(
      ({ mountpoint, type }) => mountpoint === path && type === 'fuse.holdfast',
    )
  }
}

/** Homes whose test was killed. */
function cleanAbandonedHomes(): void {
  for (const name of readdirSync(TEST_ROOT)) {
    const pid = /^holdfast-home-(\d+)-/.exec(name)?.[1]
    if (pid !== undefined && !alive(Number(pid))) cleanHome(join(TEST_ROOT, name))
  }
}

/** Ends the daemons of a home, detaches its mounts, removes its rings and itself. Idempotent. */
function cleanHome(home: string): void {
  for (const { pid } of pidsOf(join(home, 'run'))) if (alive(pid)) process.kill(pid, 'SIGKILL')
  const below = readMounts().filter(({ mountpoint }) => mountpoint.startsWith(`${home}/`))
  for (const { mountpoint } of below.reverse()) {
    execFileSync('umount', ['-l', '--', mountpoint], { stdio: 'ignore' })
  }
  for (const uuid of uuidsOf(join(home, 'state'))) {
    rmSync(`/dev/shm/holdfast-${uuid}.ring`, { force: true })
  }
  rmSync(home, { recursive: true, force: true })
}

function pidsOf(runDirectory: string): { pid: number }[] {
  const names = existsSync(runDirectory) ? readdirSync(runDirectory) : []
  return names
    .filter((name) => name.endsWith('.pid'))
    .map((name) => JSON.parse(readFileSync(join(runDirectory, name), 'utf8')))
}

function uuidsOf(stateRoot: string): string[] {
  const names = existsSync(stateRoot) ? readdirSync(stateRoot) : []
  return names
    .map((name) => join(stateRoot, name, 'volume.json'))
    .filter((path) => existsSync(path))
    .flatMap((path) => /"uuid": "([0-9a-f-]+)"/.exec(readFileSync(path, 'utf8'))?.[1] ?? [])
}

export function execute(
  command: string,
  args: string[],
  env: NodeJS.ProcessEnv = {},
): Promise<Result> {
  return new Promise((resolve) => {
    const options = { env: { ...process.env, NO_COLOR: '1', ...env }, maxBuffer: 64 << 20 }
    execFile(command, args, options, (error, stdout, stderr) => {
      const code = error === null ? 0 : typeof error.code === 'number' ? error.code : 1
      resolve({ code, stdout, stderr })
    })
  })
}

export function alive(pid: number): boolean {
  try {
    return !readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z ')
  } catch {
    return false
  }
}

/** Polls until `condition` holds; throws after 20 s. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  what: string,
  waitMs = WAIT_MS,
): Promise<void> {
  const end = Date.now() + waitMs
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`waited in vain for ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

export function exists(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined
}
