/**
 * What a coordinator has this host show, and run on it, of a snapshot of a group: the views of its volumes
 * at the place that is the same every time, and a command that reads them.
 *
 * Invariant: with the coordinator, whose connection this is, everything ends: the command and what it has
 * started (SIGTERM, then SIGKILL), the views, the place. Should this process die, the command and the views
 * end with it.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { constants } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { outOfTurn } from '../group/calls.js'
import type { Answer, Question } from '../group/wire.js'
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import { GROUP_COMMAND_END_MS, GROUP_NEWS_MS, GROUP_OUTPUT_MS } from '../lib/limits.js'
import { exposedEnvironment } from './exposed.js'
import { Output } from './group-output.js'
import { endLeftRunning, inSession } from './left-running.js'
import { execPath } from './places.js'
import type { Volume } from './registry.js'
import { type Exposed, takePlace, withViews } from './snapshot-views.js'
import type { Snapshot } from './snapshots.js'

const op = 'group.exec'

interface Command {
  file: string
  args: readonly string[]
}

export class GroupRun {
  readonly #place: string
  readonly #command: Command | null
  readonly #turn: { close(): unknown }
  readonly #over = new AbortController()
  readonly #output = { stdout: new Output(), stderr: new Output() }
  #exposed: Exposed | undefined
  #child: ChildProcess | undefined
  #exit: number | null = null
  /** Raised whenever there is something to be told. */
  #news: () => void = () => {}
  #shown: Promise<void> | undefined

  private constructor(place: string, command: Command | null, turn: { close(): unknown }) {
    this.#place = place
    this.#command = command
    this.#turn = turn
  }

  /** Keeps the place for it. BUSY. */
  static async prepare(volumes: readonly Volume[], command: Command | null): Promise<GroupRun> {
    const place = execPath(...volumes.map(({ config }) => config.name))
    return new GroupRun(place, command, await takePlace(place))
  }

  /** Resolves when the views are there. HISTORY_RANGE, BUSY. */
  async show(snapshot: Snapshot): Promise<Answer<'execShow'>> {
    if (this.#shown !== undefined) throw outOfTurn(op)
    const exposed = await new Promise<Exposed>((resolve, reject) => {
      const shown = { certificate: snapshot, place: this.#place, keep: true }
      this.#shown = withViews(shown, async (exposed) => {
        resolve(exposed)
        const { signal } = this.#over
        if (!signal.aborted) await once(signal, 'abort')
        await this.#endCommand()
      })
      this.#shown.catch(reject)
    })
    this.#exposed = exposed
    const views = exposed.views.map(({ volume, path, seq }) => ({ volume, path, seq }))
    return { path: exposed.path, views }
  }

  /** Resolves when the command runs. START_FAILED. */
  async start(): Promise<void> {
    const isOver = this.#over.signal.aborted || this.#child !== undefined
    if (this.#exposed === undefined || this.#command === null || isOver) throw outOfTurn(op)
    const { file, args } = this.#command
    const { path } = this.#exposed
    const words = args.map((word) => word.replaceAll('{}', path))
    let child: ChildProcess
    try {
      // It ends with this process, however that ends; a session of its own, which can be ended as a whole.
      child = spawn('setpriv', ['--pdeathsig', 'TERM', '--', file, ...words], {
        cwd: '/',
        detached: true,
        stdio: ['ignore', 'pipe', 'pipe'],
        env: { ...process.env, ...exposedEnvironment(this.#exposed) },
      })
      this.#child = child
      for (const name of ['stdout', 'stderr'] as const) {
        const stream = child[name]
        // Without a descriptor for it there is no stream, whatever the type says.
        if (stream) this.#output[name].follow(stream, () => this.#news())
      }
      await once(child, 'spawn')
    } catch (cause) {
      const message = `cannot run ${file}: ${toHoldfastError(cause, op).message}`
      throw new HoldfastError('START_FAILED', message, { op, cause })
    }
    void this.#follow(child)
  }

  /** What there is to be told; nothing when nothing happens for a while. */
  async read(): Promise<Answer<'execRead'>> {
    if (this.#child === undefined) throw outOfTurn(op)
    const { stdout, stderr } = this.#output
    if (this.#exit === null && stdout.isEmpty && stderr.isEmpty) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, GROUP_NEWS_MS)
        this.#news = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
    const said = { stdout: stdout.take(), stderr: stderr.take() }
    const exit = this.#exit === null ? null : { code: this.#exit }
    return { ...said, exit }
  }

  /**
   * One that has ended already gets none. What ends programs goes to all that it has started, as from a
   * terminal; the others are a word to the program itself, of which those that do not know it die.
   */
  signal({ signal }: Question<'execSignal'>): void {
    const child = this.#child
    if (child === undefined || !isGoing(child)) return
    if (signal === 'SIGUSR1' || signal === 'SIGUSR2') child.kill(signal)
    else signalAll(child, signal)
  }

  /** HISTORY_RANGE, VIEW_NOT_FOUND: what was shown may not have been the snapshot. */
  async end(): Promise<void> {
    this.#over.abort()
    // A command that waits for its reader would wait for one that is gone.
    const { stdout, stderr } = this.#output
    for (const each of [stdout, stderr]) each.drop()
    try {
      await this.#shown
    } finally {
      for (const stream of [this.#child?.stdout, this.#child?.stderr]) stream?.destroy()
      this.#turn.close()
    }
  }

  /** As `end`, when nobody hears of it. Idempotent; never rejects. */
  async close(): Promise<void> {
    await this.end().catch(() => {})
  }

  /** It has ended when all that it has said is here, too. */
  async #follow(child: ChildProcess): Promise<void> {
    const closed = once(child, 'close').then(() => true)
    const [code, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null]
    const { stdout, stderr } = this.#output
    // What it has left running may keep the output open.
    while (!(await Promise.race([closed, sleep(GROUP_OUTPUT_MS, false)]))) {
      if (stdout.isEmpty && stderr.isEmpty) break
    }
    this.#exit = signal === null ? (code ?? 1) : 128 + constants.signals[signal]
    this.#news()
  }

  async #endCommand(): Promise<void> {
    const child = this.#child
    if (child?.pid === undefined) return
    if (isGoing(child)) {
      const ended = once(child, 'exit')
      signalAll(child, 'SIGTERM')
      const kill = setTimeout(() => signalAll(child, 'SIGKILL'), GROUP_COMMAND_END_MS)
      await ended
      clearTimeout(kill)
    }
    await endLeftRunning(inSession(child.pid))
  }
}

function isGoing({ pid, exitCode, signalCode }: ChildProcess): boolean {
  return pid !== undefined && exitCode === null && signalCode === null
}

/** With what it has started: until it is seen to have ended its number is its group's. */
function signalAll({ pid = 0 }: ChildProcess, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal)
  } catch {
    // It has ended just now.
  }
}
