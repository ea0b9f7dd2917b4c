/**
 * One replica on this host: a log that is durable before it is acknowledged, and a tree that
 * follows it up to the horizon its primary has authorised.
 */
import { existsSync } from 'node:fs'
import type { Worker } from 'node:worker_threads'
import type { ErrorReport } from '../lib/errors.js'
import {
  APPLY_RETRY_MS,
  CLOCK_STEP_MS_MAX,
  DIFFERENCES_TOLD_MAX,
  REPLICA_QUEUE_BYTES_MAX,
} from '../lib/limits.js'
import type { Logger } from '../lib/log.js'
import { higher, lower } from '../lib/seqs.js'
import { parseUuid } from '../record/frame.js'
import { type CopyState, needsBaseline } from './copy-state.js'
import { FillQueue } from './fill-queue.js'
import { receiveMemory } from './frame-memory.js'
import { TreeGuard } from './guard.js'
import type { HeaderOf, WirePlace } from './message.js'
import {
  type HistoryConfig,
  type ReplicaConfig,
  type ReplicaPlace,
  replicaPlace,
  writeReplica,
} from './replica-config.js'
import { ReplicaLag } from './replica-lag.js'
import type {
  ApplyOptions,
  ApplyReply,
  ApplyRequest,
  FoundDifference,
  LogOptions,
  LogPlace,
  LogReply,
  LogRequest,
} from './replica-messages.js'
import { ReplicaPast } from './replica-past.js'
import type { ReplicaState, Resetting } from './replica-state.js'
import { died, ended, worker } from './replica-workers.js'
import type { Behind } from './timeline.js'
import { KeptVerdict } from './verdict.js'

export class Replica {
  config: ReplicaConfig
  readonly place: ReplicaPlace
  readonly past: ReplicaPast
  /** Its primary is connected: what is known of the primary's journal is news. */
  connected = false
  /** Frames after this seq stay in the log for replicas that it feeds; undefined: it feeds none. */
  keepAfter: bigint | undefined
  #log: Worker
  #apply: Worker
  readonly #logger: Logger
  readonly #watchers = new Set<() => void>()
  #logged: LogPlace | null = null
  #applied = 0n
  #baseline = false
  #end = 0n
  #authorised = 0n
  #logFailure: ErrorReport | null = null
  #applyFailure: ErrorReport | null = null
  #queued = 0
  readonly #fills = new FillQueue()
  readonly #lag = new ReplicaLag()
  /** How often it could not go on, since this server started. */
  failures = 0
  #logBytes = 0
  #gap = false
  #generation = 0
  #wish: bigint | undefined
  #opened = { log: false, apply: false }
  #dead = { log: false, apply: false }
  /** The replay starts over; the log does so after it, with the frames kept here. */
  #resetting: Resetting | undefined
  #resets = 0
  #told: string | undefined
  readonly #timer: NodeJS.Timeout
  #closing: Promise<void> | undefined
  #needs = 0
  readonly #verdict: KeptVerdict
  #differences: FoundDifference[] = []
  #asked: ((words: BigUint64Array) => void)[] = []
  readonly #guard: TreeGuard

  constructor(directory: string, config: ReplicaConfig, logger: Logger) {
    this.config = config
    this.place = replicaPlace(directory)
    this.#logger = logger.child({ replica: config.name })
    this.#verdict = new KeptVerdict(directory, this.#logger)
    this.past = new ReplicaPast(this.place, this.#logger)
    this.#guard = new TreeGuard({
      tree: this.place.tree,
      log: this.#logger,
      onBreach: () => {
        this.#verdict.doubt()
        this.#changed()
      },
    })
    this.#guard.start()
    this.#apply = this.#startApply() // First: it looks whether there is a log already.
    this.#log = this.#startLog()
    this.#timer = setInterval(() => this.#applyAgain(), APPLY_RETRY_MS)
    this.#timer.unref()
  }

  #startLog(): Worker {
    const logOptions: LogOptions = { path: this.place.log, uuid: this.#uuid }
    const log = worker('replication/log-worker', 'log', logOptions)
    log.on('message', (reply: LogReply) => this.#onLog(reply))
    log.on('error', (cause) => {
      this.#dead.log = true
      const kept = this.#resetting?.frames ?? []
      const bytes = this.#queued - kept.reduce((sum, { length }) => sum + length, 0)
      this.#onLog({ kind: 'failure', error: died('log', cause), bytes })
    })
    return log
  }

  #startApply(): Worker {
    const { log: logPath, tree, replay: state } = this.place
    const { applyDelayMs: applyMs, clockAheadMs: aheadMs } = this.config
    const delay = { applyMs, aheadMs }
    const lacksState = existsSync(logPath) && !existsSync(state)
    const history = this.past.start(this.config.history)
    const what = { logPath, uuid: this.#uuid, tree, state }
    const options: ApplyOptions = { ...what, delay, lacksState, history }
    const apply = worker('replication/apply-worker', 'apply', options)
    this.#fills.forget()
    apply.on('message', (reply: ApplyReply) => this.#onApply(reply))
    apply.on('error', (cause) => {
      this.#dead.apply = true
      this.#onApply({ kind: 'failure', error: died('replay', cause) })
    })
    return apply
  }

  get #uuid(): Buffer {
    return parseUuid(this.config.uuid) ?? Buffer.alloc(16)
  }

  get state(): ReplicaState {
    // A log that is about to be forgotten is no place to go on from.
    const logged = this.#resetting === undefined ? this.#logged : null
    return {
      logged,
      applied: this.#applied,
      end: this.#end,
      baseline: this.#baseline || logged === null,
      copy: this.#copyState(),
      authorised: higher(this.#authorised, this.#applied),
      failure: this.#logFailure ?? this.#applyFailure,
      logFailed: this.#logFailure !== null,
      lost: this.#lost,
      queuedBytes: this.#queued,
      needs: this.#needs,
      verdict: this.#verdict.value,
      logBytes: this.#logBytes,
      gap: this.#gap,
      generation: this.#generation,
    }
  }

  /** Differences that were found and not taken before: the first ones of a comparison. */
  takeDifferences(): FoundDifference[] {
    return this.#differences.splice(0)
  }

  /** What the tree lacks, as the data plane names it. */
  needs(): Promise<BigUint64Array> {
    return new Promise((resolve) => {
      this.#asked.push(resolve)
      this.#apply.postMessage({ kind: 'needs' } satisfies ApplyRequest)
    })
  }

  /** A replica that it feeds needs a baseline that begins after this seq: its primary is asked. */
  get wish(): bigint | undefined {
    return this.#wish
  }

  set wish(after: bigint | undefined) {
    if (after === this.#wish) return
    this.#wish = after
    this.#changed()
  }

  get #lost(): boolean {
    return needsBaseline(this.#applyFailure)
  }

  /** Both workers have said where they stand, and no frame of an earlier connection waits. */
  get isReady(): boolean {
    return this.#logFailure !== null || (this.isOpen && this.#queued === 0)
  }

  /** Its workers have said where they stand, its past included, or have failed. */
  get isOpen(): boolean {
    const { log, apply } = this.#opened
    return (log || this.#logFailure !== null) && (apply || this.#applyFailure !== null)
  }

  /** The log takes no more until it has stored some. */
  get isFull(): boolean {
    return this.#queued + this.#fills.bytes >= REPLICA_QUEUE_BYTES_MAX
  }

  /** What the primary has, as far as it was heard of, and the tree has not. */
  get lag(): Behind & { records: number } {
    return this.#lag.of({ applied: this.#applied, end: this.#end, queued: this.#queued })
  }

  /** How much of its log lies behind a place, in bytes, and how old that is. */
  behind(seq: bigint): Behind {
    return this.#lag.behind(seq)
  }

  /** Called after every change of the state; returns how to end that. */
  watch(onChange: () => void): () => void {
    this.#watchers.add(onChange)
    return () => this.#watchers.delete(onChange)
  }

  /** A frame from the primary, copied; `own`: the same in memory that is given away here instead. */
  frame(bytes: Buffer, own?: Buffer<ArrayBuffer>): void {
    const kept = own ?? receiveMemory.copy(bytes)
    this.#queued += kept.length
    if (this.#resetting?.told === false) this.#resetting.frames.push(kept)
    else this.#toLog(kept)
  }

  /** What the tree lacks, from the primary, ahead of the frames that are to come. Copied, or `own`. */
  fill(bytes: Buffer, own?: Buffer<ArrayBuffer>): void {
    this.#fills.send(this.#apply, bytes, own)
  }

  #toLog(bytes: Uint8Array<ArrayBuffer>): void {
    this.#log.postMessage({ kind: 'frame', bytes } satisfies LogRequest, [bytes.buffer])
  }

  /** How far the primary's journal goes, and how far it may be applied. */
  advance(news: { end: number; authorised: number; unsent?: number | undefined }): void {
    const { end, authorised, unsent } = news
    if (BigInt(end) > this.#end) this.#end = BigInt(end)
    this.#lag.heard(BigInt(end), unsent)
    if (BigInt(authorised) > this.#authorised) this.#authorised = BigInt(authorised)
    this.#pushHorizon()
    this.#changed()
  }

  /** How late its primary wants it to be; kept, for the time when there is no primary. */
  delay({ applyMs, clockMs }: HeaderOf<'delay'>): void {
    const aheadMs = Date.now() - clockMs
    this.#apply.postMessage({ kind: 'delay', delay: { applyMs, aheadMs } } satisfies ApplyRequest)
    const { applyDelayMs, clockAheadMs } = this.config
    const drifted = applyMs > 0 && Math.abs(aheadMs - clockAheadMs) > CLOCK_STEP_MS_MAX
    if (applyMs === applyDelayMs && !drifted) return
    this.config = { ...this.config, applyDelayMs: applyMs, clockAheadMs: aheadMs }
    writeReplica(this.place.directory, this.config)
    this.#logger.info({ applyMs, aheadMs }, 'applying late')
    this.#changed()
  }

  /** What is kept of its past from now on; undefined: nothing. */
  async keepHistory(history: HistoryConfig | undefined): Promise<void> {
    this.config = { ...this.config, history }
    writeReplica(this.place.directory, this.config)
    await this.past.change(history, (request) => this.#apply.postMessage(request))
  }

  /** Forgets the log: what comes next follows `at` and contains a baseline. */
  reset({ seq, chain }: WirePlace): void {
    const at: LogPlace = { seq: BigInt(seq), chain: Uint8Array.from(Buffer.from(chain, 'hex')) }
    this.#logger.info({ at: seq }, 'a baseline begins')
    this.#dropKept()
    this.#baseline = true
    this.#differences = []
    this.#verdict.forget()
    this.#revive()
    this.#logFailure = null
    this.#applyFailure = null
    this.#authorised = 0n
    this.#lag.reset()
    this.#resets += 1
    const id = this.#resets
    this.#resetting = { id, at, told: false, frames: [] }
    this.#apply.postMessage({ kind: 'reset', id, at } satisfies ApplyRequest)
  }

  /** A new connection, whose primary's journal ends at `end`: what failed is tried again. */
  begin(end: number): void {
    this.#end = BigInt(end)
    this.#dropKept()
    if (this.#logFailure !== null) {
      this.#logFailure = null
      this.#opened.log = false
      this.#revive()
      this.#log.postMessage({ kind: 'retry' } satisfies LogRequest)
    }
    this.#applyAgain()
  }

  /** Frames that wait for a log that starts over go with their connection. */
  #dropKept(): void {
    if (this.#resetting === undefined) return
    for (const { length } of this.#resetting.frames) this.#queued -= length
    this.#resetting.frames = []
  }

  #revive(): void {
    if (this.#dead.log) this.#log = this.#startLog()
    if (this.#dead.apply) this.#apply = this.#startApply()
    this.#dead = { log: false, apply: false }
  }

  /** A replay that is not lost goes on where it was; what it reports then ends the failure. */
  #applyAgain(): void {
    if (this.#applyFailure === null || this.#lost || this.#closing !== undefined) return
    this.#revive()
    const seq = lower(this.#logged?.seq ?? 0n, this.#authorised)
    this.#apply.postMessage({ kind: 'horizon', seq } satisfies ApplyRequest)
  }

  /** Idempotent. */
  close(): Promise<void> {
    clearInterval(this.#timer)
    this.#closing ??= Promise.all([
      ended(this.#log, { kind: 'close' } satisfies LogRequest, this.#dead.log),
      ended(this.#apply, { kind: 'close' } satisfies ApplyRequest, this.#dead.apply),
    ]).then(() => this.#guard.stop())
    return this.#closing
  }

  #copyState(): CopyState {
    if (this.#lost || this.#baseline || this.#logged === null) return 'Inconsistent'
    if (this.#resetting !== undefined || this.#needs > 0) return 'Inconsistent'
    return this.connected && this.#applied >= this.#end ? 'UpToDate' : 'Consistent'
  }

  #onLog(reply: LogReply): void {
    if (reply.kind === 'spent') receiveMemory.give(...reply.memory)
    if (reply.kind === 'closed' || reply.kind === 'spent') return
    this.#queued -= reply.bytes
    switch (reply.kind) {
      case 'logged':
        this.#opened.log = true
        this.#logBytes = reply.usedBytes
        if (reply.at?.seq !== this.#logged?.seq) this.#gap = false
        this.#logged = reply.at
        this.#lag.stored(reply.at?.seq, reply.bytes)
        this.#pushHorizon()
        break
      case 'gap':
        this.#gap = true
        break
      case 'reset':
        if (reply.id !== this.#resetting?.id) return
        this.#generation += 1
        this.#logged = reply.at
        this.#applied = reply.at.seq
        this.#resetting = undefined
        this.#gap = false
        this.#pushHorizon()
        break
      case 'failure':
        this.#logFailure = reply.error
        this.#failed(reply.error)
        return
    }
    this.#changed()
  }

  #onApply(reply: ApplyReply): void {
    switch (reply.kind) {
      case 'failure':
        this.#applyFailure = reply.error
        this.#failed(reply.error)
        break
      case 'reset':
        this.#resetLog(reply.id)
        break
      case 'applied':
        if (this.#resetting !== undefined) return
        this.#opened.apply = true
        if (!this.#lost) this.#applyFailure = null
        this.#applied = reply.seq
        this.#baseline = reply.baseline
        this.#needs = reply.needs
        if (reply.doubt) this.#verdict.doubt()
        this.#log.postMessage({
          kind: 'applied',
          keepAfter: lower(this.keepAfter ?? reply.seq, reply.seq),
        } satisfies LogRequest)
        this.#changed()
        break
      case 'differences':
        this.#differences.push(...reply.list)
        this.#differences.splice(DIFFERENCES_TOLD_MAX)
        break
      case 'verified':
        this.#verdict.judge({ ...reply, seq: Number(reply.seq) })
        break
      case 'needs':
        for (const resolve of this.#asked.splice(0)) resolve(reply.words)
        break
      case 'filled': {
        const wasFull = this.isFull
        this.#fills.taken(reply)
        // News only to a connection that waits.
        if (wasFull && !this.isFull) this.#changed()
        break
      }
      case 'history':
        this.past.onReply(reply)
    }
  }

  #resetLog(id: number): void {
    const reset = this.#resetting
    if (reset?.id !== id) return
    this.#opened.apply = true
    reset.told = true
    this.#log.postMessage({ kind: 'reset', id, at: reset.at } satisfies LogRequest)
    for (const bytes of reset.frames) this.#toLog(bytes)
    reset.frames = []
  }

  #pushHorizon(): void {
    const logged = this.#logged?.seq ?? 0n
    const seq = lower(logged, this.#authorised)
    if (seq <= this.#applied || this.#resetting !== undefined) return
    this.#apply.postMessage({ kind: 'horizon', seq } satisfies ApplyRequest)
  }

  #failed(error: ErrorReport): void {
    this.failures += 1
    // Tried again and again: said once.
    if (error.message !== this.#told) this.#logger.error({ error }, 'the replica does not follow')
    this.#told = error.message
    this.#changed()
  }

  #changed(): void {
    for (const onChange of this.#watchers) onChange()
  }
}
