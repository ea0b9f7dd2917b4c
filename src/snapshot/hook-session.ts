/**
 * The hooks of one snapshot, or of its end, phase by phase. What was begun before the snapshot is
 * undone after it, in reverse, whatever has happened in between: an application must not stay frozen.
 *
 * A hook that was begun and has failed is undone, too: it may have died halfway.
 */
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import { requireGoing } from '../lib/going.js'
import { CUT_HOLD_MS_DEFAULT } from '../lib/limits.js'
import {
  argumentsFor,
  environmentFor,
  type HookOccasion,
  type HookSubject,
  inputFor,
} from './hook-occasion.js'
import { describeRun, type HookEnd, type HookRun, runHook } from './hook-run.js'
import type { Hook, Phase } from './hooks.js'

export interface HookSessionOptions {
  hooks: readonly Hook[]
  subject: HookSubject
  /** Told of every hook that has ended. */
  onEnd?(end: HookEnd): void
  /** Ends what is before the snapshot; what undoes it runs all the same. */
  signal?: AbortSignal | undefined
}

type Outcome = Pick<HookOccasion, 'result' | 'error'>

type Circumstances = Partial<HookOccasion> & {
  leftMs?: number
  signal?: AbortSignal | undefined
}

export class HookSession {
  /** All that ran, in order. */
  readonly runs: HookRun[] = []
  readonly #hooks: readonly Hook[]
  readonly #onEnd: ((end: HookEnd) => void) | undefined
  readonly #signal: AbortSignal | undefined
  #subject: HookSubject
  /** By `pair`: whether the part before the snapshot has gone well. */
  readonly #begun = new Map<string, boolean>()

  constructor({ hooks, subject, onEnd, signal }: HookSessionOptions) {
    this.#hooks = hooks
    this.#subject = subject
    this.#onEnd = onEnd
    this.#signal = signal
  }

  /** Something is to be run while I/O is on hold. */
  get hasHeld(): boolean {
    return this.#of('held').length > 0
  }

  /** More is known of the volumes now. */
  tell(volumes: HookSubject['volumes']): void {
    this.#subject = { ...this.#subject, volumes }
  }

  /** HOOK_FAILED, ABORTED: there is to be no snapshot. */
  async preSnapshot(): Promise<void> {
    for (const hook of this.#of('pre-snapshot')) {
      this.#requireGoing()
      // Before it is started: whatever goes wrong then, it may have frozen something.
      this.#begun.set(hook.pair, false)
      const run = await this.#run(hook, 'pre-snapshot', { signal: this.#signal })
      this.#begun.set(hook.pair, run.result === 'ok')
      this.#require(run)
    }
    this.#requireGoing()
  }

  /** While I/O is on hold, for `holdMs` at most; `over` says that it no longer is. HOOK_FAILED. */
  async held({ holdMs, over }: { holdMs: number; over: AbortSignal }): Promise<void> {
    const end = performance.now() + holdMs
    const signal = this.#signal === undefined ? over : AbortSignal.any([over, this.#signal])
    for (const hook of this.#of('held')) {
      const leftMs = Math.max(1, end - performance.now())
      const run = await this.#run(hook, 'held', { leftMs, signal })
      this.#requireGoing()
      if (signal.aborted || performance.now() >= end) {
        const message = `hook ${hook.name} had not ended when the time for holding I/O was over`
        throw this.#failed(message, 'Make it faster, or allow more: --max-hold')
      }
      this.#require(run)
    }
  }

  /**
   * What was begun is undone, in reverse; what is for afterwards alone runs when there is a snapshot.
   * Never rejects.
   */
  async postSnapshot(outcome: Outcome): Promise<void> {
    const paired = new Set(this.#of('pre-snapshot').map(({ pair }) => pair))
    for (const hook of this.#of('post-snapshot').toReversed()) {
      const before = this.#begun.get(hook.pair)
      const wanted = paired.has(hook.pair) ? before !== undefined : outcome.result === 'taken'
      const preFailed = before === false
      if (wanted) await this.#runAnyway(hook, 'post-snapshot', { ...outcome, preFailed })
    }
  }

  /** Never rejects. */
  async failure(error: unknown): Promise<void> {
    const outcome: Outcome = {
      result: 'failed',
      error: toHoldfastError(error, 'snapshot').toJSON(),
    }
    for (const hook of this.#of('failure')) await this.#runAnyway(hook, 'failure', outcome)
  }

  /** HOOK_FAILED: it is to stay, unless `force`. */
  async preDestroy({ force }: { force: boolean }): Promise<void> {
    for (const hook of this.#of('pre-destroy')) {
      const run = await this.#run(hook, 'pre-destroy', { signal: this.#signal })
      if (!force) this.#require(run)
    }
  }

  #of(phase: Phase): Hook[] {
    return this.#hooks.filter(({ phases }) => phases.includes(phase))
  }

  async #run(hook: Hook, phase: Phase, about: Circumstances): Promise<HookRun> {
    const { leftMs = hook.timeoutMs, signal, ...rest } = about
    const timeoutMs = Math.min(leftMs, hook.timeoutMs)
    const occasion: HookOccasion = { preFailed: false, ...this.#subject, ...rest, phase }
    const end = await runHook({
      hook,
      phase,
      args: argumentsFor(hook, occasion),
      environment: environmentFor(occasion, Math.floor(timeoutMs)),
      input: inputFor(occasion),
      timeoutMs,
      held: phase === 'held' && !occasion.dryRun,
      signal,
    })
    this.runs.push(end.run)
    try {
      this.#onEnd?.(end)
    } catch {
      // A log without room: what the hook has begun is undone all the same.
    }
    return end.run
  }

  /** One that cannot be run keeps no other from being run. */
  async #runAnyway(hook: Hook, phase: Phase, about: Circumstances): Promise<void> {
    try {
      await this.#run(hook, phase, about)
    } catch {
      // How a hook ends is a result: this is one that could not even be told what it is about.
    }
  }

  #require(run: HookRun): void {
    this.#requireGoing()
    if (run.result === 'ok' || run.onFailure === 'continue') return
    const said = run.stderr.split('\n').at(-1) ?? ''
    const what = `hook ${run.hook} failed in ${run.phase}: ${describeRun(run)}`
    throw this.#failed(said === '' ? what : `${what}: ${said}`, undefined)
  }

  #requireGoing(): void {
    requireGoing(this.#signal, 'hooks.run')
  }

  #failed(message: string, hint: string | undefined): HoldfastError {
    return new HoldfastError('HOOK_FAILED', message, {
      op: 'hooks.run',
      hint: hint ?? 'Its policy is in hooks.json (docs/HOOKS.md); --no-hooks goes without any.',
      details: { hooks: this.runs },
    })
  }
}

/** What takes the snapshot between its hooks. */
export interface Taking<Taken> {
  /** What must hold before anything is begun. */
  check(): Promise<void>
  take(): Promise<Taken>
}

/** Takes it with all that is to be run before and after; throws what has failed, undone. */
export async function aroundSnapshot<Taken>(
  hooks: HookSession,
  { check, take }: Taking<Taken>,
): Promise<Taken> {
  let begun = false
  try {
    await check()
    begun = true
    await hooks.preSnapshot()
    const taken = await take()
    await hooks.postSnapshot({ result: 'taken' })
    return taken
  } catch (error) {
    const known = toHoldfastError(error, 'snapshot.create')
    if (begun) await hooks.postSnapshot({ result: 'failed', error: known.toJSON() })
    await hooks.failure(known)
    throw known
  }
}

/** Runs all that a snapshot would, with the word that nothing is taken. HOOK_FAILED. */
export async function rehearse(hooks: HookSession, check: () => Promise<void>): Promise<void> {
  const over = new AbortController().signal
  const take = () => hooks.held({ holdMs: CUT_HOLD_MS_DEFAULT, over })
  await aroundSnapshot(hooks, { check, take })
}
