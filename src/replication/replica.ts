/**
 * One replica on this host: a log that is durable before it is acknowledged, and a tree that
 * follows it up to the horizon its primary has authorised.
 */
import { readdirSync } from 'node:fs'
import { Worker } from 'node:worker_threads'
import { type ErrorReport, HoldfastError } from '../lib/errors.js'
import { CLOCK_STEP_MS_MAX, DIFFERENCES_TOLD_MAX, REPLICA_QUEUE_BYTES_MAX } from '../lib/limits.js'
import type { Logger } from '../lib/log.js'
import { higher, lower } from '../lib/seqs.js'
import { parseUuid } from '../record/frame.js'
import { TreeGuard } from './guard.js'
import type { HeaderOf, WirePlace } from './message.js'
import {
  type ReplicaConfig,
  type ReplicaPlace,
  replicaPlace,
  writeReplica,
} from './replica-config.js'
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
import { type Behind, Timeline } from './timeline.js'
import { judged, NO_VERDICT, readVerdict, type Verdict, writeVerdict } from './verdict.js'

/** How much of its primary's tree the replica's tree can be relied on to be. */
export type CopyState =
  /** The primary's tree at `applied`, and nothing it is known to lack. */
  | 'UpToDate'
  /** The primary's tree at an earlier moment. */
  | 'Consistent'
  /** No moment's tree: a baseline is under way, or the replay has failed. */
  | 'Inconsistent'

export interface ReplicaState {
  logged: LogPlace | null
  applied: bigint
  /** Last seq of the primary's journal that was heard of. */
  end: bigint
  baseline: boolean
  copy: CopyState
  /** Up to here it may be applied, and replicas that it feeds may apply it. */
  authorised: bigint
  failure: ErrorReport | null
  queuedBytes: number
  /** Objects of which the tree is known to lack something. */
  needs: number
  /** What comparisons have said of it. */
  verdict: Verdict
  logBytes: number
  /** A frame was lost before one that came. */
  gap: boolean
  /** How often the log was made anew. */
  generation: number
}

export class Replica {
  config: ReplicaConfig
  readonly place: ReplicaPlace
  /** Its primary is connected: what is known of the primary's journal is news. */
  connected = false
  /** Frames after this seq stay in the log for replicas that it feeds; undefined: it feeds none. */
  keepAfter: bigint | undefined
  readonly #log: Worker
  readonly #apply: Worker
  readonly #logger: Logger
  readonly #watchers = new Set<() => void>()
  #logged: LogPlace | null = null
  #applied = 0n
  #baseline = false
  #end = 0n
  #authorised = 0n
  #failure: ErrorReport | null = null
  #queued = 0
  /** Bytes the primary has not sent, as it said last. */
  #unsent = 0
  #storedBytes = 0
  /** Ends of the primary's journal, as they were heard of; frames, as they were stored. */
  #ends = new Timeline()
  #stored = new Timeline()
  #failures = 0
  #logBytes = 0
  #gap = false
  #generation = 0
  #wish: bigint | undefined
  #opened = { log: false, apply: false }
  /** The replay starts over; the log does so after it, then come the frames kept here. */
  #resetting: { at: LogPlace; frames: Uint8Array<ArrayBuffer>[] } | undefined
  #closing: Promise<void> | undefined
  #needs = 0
  #verdict: Verdict
  #differences: FoundDifference[] = []
  #asked: ((words: BigUint64Array) => void)[] = []
  readonly #guard: TreeGuard

  constructor(directory: string, config: ReplicaConfig, logger: Logger) {
    this.config = config
    this.place = replicaPlace(directory)
    this.#verdict = readVerdict(directory)
    this.#logger = logger.child({ replica: config.name })
    this.#guard = new TreeGuard({
      tree: this.place.tree,
      log: this.#logger,
      onBreach: () => {
        this.#judge({ ...this.#verdict, doubt: true })
        this.#changed()
      },
    })
    this.#guard.start()
    const uuid = parseUuid(config.uuid) ?? Buffer.alloc(16)
    const { log, tree, replay } = this.place
    const logOptions: LogOptions = { path: log, uuid }
    const delay = { applyMs: config.applyDelayMs, aheadMs: config.clockAheadMs }
    const applyOptions: ApplyOptions = { logPath: log, uuid, tree, state: replay, delay }
    this.#log = worker('./log-worker.js', 'log', logOptions)
    this.#apply = worker('./apply-worker.js', 'apply', applyOptions)
    this.#log.on('message', (reply: LogReply) => this.#onLog(reply))
    this.#apply.on('message', (reply: ApplyReply) => this.#onApply(reply))
    for (const each of [this.#log, this.#apply]) {
      each.on('error', (cause) =>
        this.#fail({ code: 'INTERNAL', op: 'replica', message: `${cause}` }),
      )
    }
  }

  get state(): ReplicaState {
    return {
      logged: this.#logged,
      applied: this.#applied,
      end: this.#end,
      baseline: this.#baseline || this.#logged === null,
      copy: this.#copyState(),
      authorised: higher(this.#authorised, this.#applied),
      failure: this.#failure,
      queuedBytes: this.#queued,
      needs: this.#needs,
      verdict: this.#verdict,
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

  /** The tree has something in it: a baseline by codes moves only what differs. */
  get hasTree(): boolean {
    try {
      return readdirSync(this.place.tree).length > 0
    } catch {
      return false
    }
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

  /** Both workers have said where they stand. */
  get isReady(): boolean {
    return this.#opened.log && (this.#opened.apply || this.#failure !== null)
  }

  /** Resolves when it is; INTERNAL when it cannot be. */
  async ready(): Promise<void> {
    while (!this.isReady) {
      // A worker died of it: it will not be.
      if (this.#failure?.op === 'replica') throw HoldfastError.from(this.#failure)
      await new Promise<void>((resolve) => {
        const end = this.watch(() => {
          end()
          resolve()
        })
      })
    }
  }

  /** The log takes no more until it has stored some. */
  get isFull(): boolean {
    return this.#queued >= REPLICA_QUEUE_BYTES_MAX
  }

  /** What the primary has, as far as it was heard of, and the tree has not. */
  get lag(): Behind & { records: number } {
    const { bytes } = this.#stored.behind(this.#applied, Date.now())
    const { seconds } = this.#ends.behind(this.#applied, Date.now())
    const records = this.#end > this.#applied ? Number(this.#end - this.#applied) : 0
    return { records, seconds, bytes: records === 0 ? 0 : bytes + this.#queued + this.#unsent }
  }

  /** How much of its log lies behind a place, in bytes, and how old that is. */
  behind(seq: bigint): Behind {
    const { bytes } = this.#stored.behind(seq, Date.now())
    const { seconds } = this.#ends.behind(seq, Date.now())
    return { bytes, seconds }
  }

  /** How often it could not go on, since this server started. */
  get failures(): number {
    return this.#failures
  }

  /** Called after every change of the state; returns how to end that. */
  watch(onChange: () => void): () => void {
    this.#watchers.add(onChange)
    return () => this.#watchers.delete(onChange)
  }

  /** A frame from the primary; the bytes are copied. */
  frame(bytes: Buffer): void {
    const copy = new Uint8Array(bytes)
    this.#queued += copy.length
    if (this.#resetting === undefined) this.#toLog(copy)
    else this.#resetting.frames.push(copy)
  }

  #toLog(bytes: Uint8Array<ArrayBuffer>): void {
    this.#log.postMessage({ kind: 'frame', bytes } satisfies LogRequest, [bytes.buffer])
  }

  /** How far the primary's journal goes, and how far it may be applied. */
  advance(news: { end: number; authorised: number; unsent?: number | undefined }): void {
    const { end, authorised, unsent } = news
    if (unsent !== undefined) this.#unsent = unsent
    if (BigInt(end) > this.#end) this.#end = BigInt(end)
    this.#ends.note({ seq: BigInt(end), bytes: 0, at: Date.now() })
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

  /** Forgets the log: what comes next follows `at` and contains a baseline. */
  reset({ seq, chain }: WirePlace): void {
    const at: LogPlace = { seq: BigInt(seq), chain: Uint8Array.from(Buffer.from(chain, 'hex')) }
    this.#logger.info({ at: seq }, 'a baseline begins')
    this.#baseline = true
    this.#failure = null
    this.#differences = []
    this.#judge({ ...NO_VERDICT })
    this.#authorised = 0n
    this.#ends = new Timeline()
    this.#stored = new Timeline()
    this.#resetting = { at, frames: [] }
    this.#apply.postMessage({ kind: 'reset', at } satisfies ApplyRequest)
  }

  /** A new connection: what failed before is tried again. */
  retry(): void {
    if (this.#failure === null || this.#failure.code.startsWith('REPLAY_')) return
    this.#failure = null
    this.#pushHorizon()
  }

  /** Idempotent. */
  close(): Promise<void> {
    this.#closing ??= Promise.all([
      ended(this.#log, { kind: 'close' } satisfies LogRequest),
      ended(this.#apply, { kind: 'close' } satisfies ApplyRequest),
    ]).then(() => this.#guard.stop())
    return this.#closing
  }

  #copyState(): CopyState {
    if (this.#failure?.code.startsWith('REPLAY_')) return 'Inconsistent'
    if (this.#baseline || this.#logged === null || this.#needs > 0) return 'Inconsistent'
    return this.connected && this.#applied >= this.#end ? 'UpToDate' : 'Consistent'
  }

  #onLog(reply: LogReply): void {
    switch (reply.kind) {
      case 'logged':
        this.#opened.log = true
        this.#queued -= reply.bytes
        this.#logBytes = reply.usedBytes
        if (reply.at?.seq !== this.#logged?.seq) this.#gap = false
        this.#logged = reply.at
        this.#storedBytes += reply.bytes
        if (reply.at !== null) this.#noteStored(reply.at.seq)
        this.#pushHorizon()
        break
      case 'anew':
        this.#generation += 1
        break
      case 'gap':
        this.#queued -= reply.bytes
        this.#gap = true
        break
      case 'failure':
        this.#queued = 0
        this.#fail(reply.error)
        return
      case 'closed':
        return
    }
    this.#changed()
  }

  #noteStored(seq: bigint): void {
    this.#stored.note({ seq, bytes: this.#storedBytes, at: Date.now() })
  }

  #onApply(reply: ApplyReply): void {
    switch (reply.kind) {
      case 'failure':
        this.#fail(reply.error)
        break
      case 'reset':
        this.#resetLog()
        break
      case 'applied':
        if (this.#resetting !== undefined) return
        this.#opened.apply = true
        this.#applied = reply.seq
        this.#baseline = reply.baseline
        this.#needs = reply.needs
        if (reply.doubt) this.#judge({ ...this.#verdict, doubt: true })
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
        this.#judge(judged({ ...reply, seq: Number(reply.seq) }, Date.now()))
        break
      case 'needs':
        for (const resolve of this.#asked.splice(0)) resolve(reply.words)
        break
      case 'closed':
        break
    }
  }

  #judge(verdict: Verdict): void {
    const { proven } = this.#verdict
    this.#verdict = { ...verdict, proven: verdict.proven ?? proven }
    writeVerdict(this.place.directory, this.#verdict)
    const { verified } = verdict
    if (verified === null || verified.differences === 0) return
    this.#logger.error({ verified }, 'the replica differs from its primary')
  }

  #resetLog(): void {
    const reset = this.#resetting
    if (reset === undefined) return
    this.#resetting = undefined
    this.#log.postMessage({ kind: 'reset', at: reset.at } satisfies LogRequest)
    for (const bytes of reset.frames) this.#toLog(bytes)
  }

  #pushHorizon(): void {
    const logged = this.#logged?.seq ?? 0n
    const seq = lower(logged, this.#authorised)
    if (seq <= this.#applied || this.#resetting !== undefined) return
    this.#apply.postMessage({ kind: 'horizon', seq } satisfies ApplyRequest)
  }

  #fail(error: ErrorReport): void {
    this.#logger.error({ error }, 'the replica does not follow')
    this.#failure = error
    this.#failures += 1
    this.#changed()
  }

  #changed(): void {
    for (const onChange of this.#watchers) onChange()
  }
}

function worker(script: string, name: string, workerData: LogOptions | ApplyOptions): Worker {
  return new Worker(new URL(script, import.meta.url), { name, workerData })
}

async function ended(worker: Worker, close: LogRequest | ApplyRequest): Promise<void> {
  const exit = new Promise<void>((resolve) => worker.once('exit', () => resolve()))
  worker.postMessage(close)
  await exit
}

/** Refuses whoever it does not belong to. */
export function requireOwner(config: ReplicaConfig, identity: string): void {
  if (config.owner === identity) return
  throw new HoldfastError('PEER_UNKNOWN', `volume ${config.uuid} is not this peer's`, {
    op: 'replica.open',
  })
}
