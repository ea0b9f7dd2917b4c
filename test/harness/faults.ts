/** What the fault tests share: chance with a seed, the load and its judge, the daemon's death. */
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { tool } from './files.js'
import { attempt, run, start } from './run.js'
import type { TestVolume } from './volume.js'
import { compareTrees } from './volume.js'

const WAIT_MS = 30_000
const POLL_MS = 20

/** A number of the environment, for longer runs than CI's. */
export function setting(name: string, usual: number): number {
  const given = Number(process.env[name])
  return Number.isFinite(given) && given > 0 ? given : usual
}

/** HOLDFAST_SEED, or the clock. */
export function chooseSeed(): number {
  return setting('HOLDFAST_SEED', Date.now() % 1_000_000_007)
}

/** A sequence of chance that a seed repeats (mulberry32). */
export class Chance {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  /** 0 ≤ x < 1 */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let x = this.#state
    x = Math.imul(x ^ (x >>> 15), x | 1)
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61)
    return ((x ^ (x >>> 14)) >>> 0) / 4294967296
  }

  /** An integer, both ends included. */
  between(low: number, high: number): number {
    return low + Math.floor(this.next() * (high - low + 1))
  }

  pick<T>(of: readonly T[]): T {
    return of[Math.floor(this.next() * of.length)] as T
  }
}

/** Polls until `condition` holds; throws after `waitMs`. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  what: string,
  waitMs = WAIT_MS,
): Promise<void> {
  const end = Date.now() + waitMs
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`waited in vain for ${what}`)
    await sleep(POLL_MS)
  }
}

/** Whether a process lives; a zombie does not. */
export function alive(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return stat.slice(stat.lastIndexOf(')') + 2)[0] !== 'Z'
  } catch {
    return false
  }
}

/** The daemon of a volume, from its pid file. */
export function daemonPid(name: string): number {
  const path = join(process.env.HOLDFAST_RUN_DIR ?? '', `${name}.pid`)
  return (JSON.parse(readFileSync(path, 'utf8')) as { pid: number }).pid
}

/** Sends a signal to a process, or to a group (-pid), unless that has ended. */
export function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

/** SIGKILLs a process and waits until it is gone. */
export async function kill(pid: number): Promise<void> {
  process.kill(pid, 'SIGKILL')
  await until(() => !alive(pid), `process ${pid} to be gone`)
}

/** The errno with which a path answers; undefined when it answers. */
export function errnoOfPath(path: string): string | undefined {
  try {
    statSync(path)
    return undefined
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? 'unknown'
  }
}

export interface LoadOptions {
  /** Empty directory to load. */
  dir: string
  /** File of the acknowledgements, outside of what is tested. */
  ack: string
  seed: number
  threads?: number
  seconds?: number
  fsyncRate?: number
  /** Operations per thread. */
  ops?: number
}

/** A load that runs until it is over or the mount below it dies. */
export class Load {
  readonly options: LoadOptions
  readonly #child: ChildProcess
  readonly #ended: Promise<unknown>
  #output = ''

  /** Starts it; resolves when the directories that its judge asks for are there. */
  static async begin(options: LoadOptions): Promise<Load> {
    const load = new Load(options)
    const begun = () => existsSync(options.ack) || load.#child.exitCode !== null
    await until(begun, 'the load to begin')
    return load
  }

  private constructor(options: LoadOptions) {
    this.options = options
    const { dir, ack, seed, threads = 4, seconds = 20, fsyncRate = 0.02, ops } = options
    const args = ['--dir', dir, '--ack', ack, '--seed', `${seed}`, '--threads', `${threads}`]
    args.push('--seconds', `${seconds}`, '--fsync-rate', `${fsyncRate}`)
    if (ops !== undefined) args.push('--ops', `${ops}`)
    this.#child = start(tool('fsload'), args)
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.#output += text
      })
    }
    this.#ended = once(this.#child, 'close')
  }

  /** Ends it now: at most one operation per thread is under way. */
  async cut(): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#ended
  }

  /** Waits for its end; throws when it met an error that no dying mount explains. */
  async end(): Promise<string> {
    await this.#ended
    if (this.#child.exitCode === 0) return this.#output.trim()
    throw new Error(`fsload ended with ${this.#child.exitCode}: ${this.#output}`)
  }
}

/**
 * What is wrong in a directory by the log of its load; empty when every acknowledged operation is
 * there. `mode`: after a power loss only what was fsynced can be asked for.
 */
export async function checkLoad(
  { dir, ack }: Pick<LoadOptions, 'dir' | 'ack'>,
  ...mode: string[]
): Promise<string> {
  const args = ['--check', '--dir', dir, '--ack', ack, ...mode]
  const { code, stdout, stderr } = await attempt(tool('fsload'), args)
  return code === 0 ? '' : `${code}: ${stdout}${stderr}`
}

/** Waits until the volume is provably whole: re-captured and protected. */
export async function untilProtected({ volume }: TestVolume): Promise<void> {
  await until(
    async () => (await volume.status()).state === 'protected',
    'the volume to be protected',
    60_000,
  )
}

/**
 * Verifies the journal of a running volume that nobody changes, replays what is new onto the copy
 * of the base and compares. Returns the differences. The replay can go on later.
 */
export async function catchUpAndCompare(
  test: TestVolume,
  { holes = false, verify = true } = {},
): Promise<string> {
  await test.volume.flush()
  if (verify) {
    const report = await test.volume.verify()
    if (report.problemCount > 0) throw new Error(`journal: ${JSON.stringify(report.problems)}`)
  }
  await test.volume.replay({ onto: test.base, keepState: true })
  return compareTrees(test.dir, test.base, ...(holes ? ['--holes'] : []))
}

/** Forgets frames that were replayed, so that a long test needs no large disk. */
export async function forgetReplayed({ volume }: TestVolume): Promise<void> {
  const { captured } = await volume.status()
  await volume.prune({ toSeq: captured.seq })
}

/** What a base needs to be worth protecting: every kind of object, made before the first mount. */
export async function fillBase(dir: string): Promise<void> {
  const script = `
    mkdir -p old/a/b/c old/many; echo hello >old/a/f; ln old/a/f old/a/b/hard; ln -s a/f old/soft
    mkfifo old/fifo; mknod old/null c 1 3; truncate -s 3M old/sparse
    printf x | dd of=old/sparse bs=1 seek=1500000 conv=notrunc status=none
    head -c 300000 /dev/urandom >old/big; setfattr -n user.k -v v old/big; chmod 4755 old/big
    for i in $(seq 40); do echo $i >old/many/$i; done; chown -R 1000:1000 old/many
    setfacl -m u:1001:rwx -d -m g:1002:rx old/a
    mkdir t; touch -d '2001-02-03 04:05:06.789' old/a/f old/a/b`
  await run('bash', ['-euc', script], { cwd: dir })
}

/** Changes what `fillBase` made, through the mount: objects that the journal must find by name. */
export async function changeBase(dir: string): Promise<void> {
  const script = `
    mv old/a/b old/moved; echo more >>old/moved/hard; mv old/many/1 old/many/one; rm old/many/2
    rmdir old/moved/c; truncate -s 100 old/big; setfattr -x user.k old/big; chmod 600 old/fifo
    mv old/many old/lot; echo new >old/lot/40; fallocate -p -o 0 -l 4096 old/sparse || true
    ln old/lot/3 old/three; mv old/lot/4 old/lot/5; chown 1001 old/soft old/null; mv old new`
  await run('bash', ['-euc', script], { cwd: dir })
}
