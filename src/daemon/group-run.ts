/**
 * What a coordinator has this host show, and run on it, of a snapshot of a group: the views of its volumes
 * at the place that is the same every time, and a command that reads them.
 *
 * Invariant: with the coordinator, whose connection this is, everything ends: the command (SIGTERM, then
 * SIGKILL), the views, the place. Should this process die, the command and the views end with it.
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
    // It ends with this process, however that ends; a session of its own, which can be ended as a whole.
    const child = spawn('setpriv', ['--pdeathsig', 'TERM', '--', file, ...words], {
      cwd: '/',
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...exposedEnvironment(this.#exposed) },
    })
    this.#child = child
    for (const name of ['stdout', 'stderr'] as const) {
      const stream = child[name]
      if (stream !== null) this.#output[name].follow(stream, () => this.#news())
    }
    try {
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

  /** One that has ended already gets none. */
  signal({ signal }: Question<'execSignal'>): void {
    this.#child?.kill(signal)
  }

  /** HISTORY_RANGE, VIEW_NOT_FOUND: what was shown may not have been the snapshot. */
  async end(): Promise<void> {
    this.#over.abort()
    try {
      await this.#shown
    } finally {
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
    if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) return
    const ended = once(child, 'exit')
    child.kill('SIGTERM')
    const kill = setTimeout(() => killGroup(child.pid ?? 0), GROUP_COMMAND_END_MS)
    await ended
    clearTimeout(kill)
  }
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL')
  } catch {
    // It has ended just now.
  }
}
