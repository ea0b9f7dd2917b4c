/**
 * A replica of this host as the source of further ones (a chain): its own log is shipped as a
 * volume's journal is, by the same `replicas.ts`. What it cannot give, a baseline, it asks of its
 * primary; the records of that come through the log like all others.
 */
import { HoldfastError } from '../lib/errors.js'
import { hostName } from '../lib/host-name.js'
import { FEED_HOLD_BYTES_MAX, FEED_REPAIR_MS_MAX } from '../lib/limits.js'
import type { Logger } from '../lib/log.js'
import { higher } from '../lib/seqs.js'
import type { Replica } from '../replication/replica.js'
import type { ShippedVolume } from '../replication/shipped-volume.js'
import type { CapturedView } from './captured.js'
import { readReplicas } from './replica-options.js'
import type { ReplicasOptions } from './replica-ports.js'
import type { ReplicaStatus } from './replica-status.js'
import { Replicas } from './replicas.js'
import type { VerifiedVolume } from './verification.js'

/** Shippers say every BASELINE_POLL_MS that they need a baseline; silence means that they do not. */
const WISH_MS = 3_000
const TICK_MS = 1_000

export interface FeedRequest {
  peer: string
  listen?: string | null | undefined
  holdBytes?: number | undefined
}

export class Feed {
  readonly replica: Replica
  readonly #replicas: Replicas
  readonly #timer: NodeJS.Timeout
  readonly #unwatch: () => void
  #generation: number
  #told = { end: 0n, authorised: 0n }
  #wishedAt = 0
  #repair: { begunAt: number; seen: boolean; after: bigint } | undefined

  private constructor(replica: Replica, log: Logger) {
    this.replica = replica
    this.#generation = replica.state.generation
    this.#replicas = new Replicas({
      stateDirectory: replica.place.directory,
      stored: readReplicas(replica.place.directory),
      volume: this.#shipped(),
      writeback: false,
      captured: capturedBy(replica),
      journalBytes: () => replica.state.logBytes,
      keepAfter: (seq) => {
        replica.keepAfter = seq
      },
      acks: noAcks(),
      ship: () => {},
      keepCodes: () => {},
      setDiffering: () => {},
      compare: false,
      log: log.child({ feeds: replica.config.name }),
    })
    this.#unwatch = replica.watch(() => this.#changed())
    this.#timer = setInterval(() => this.#tick(), TICK_MS)
  }

  /** Ships to those that were fed before. */
  static async start(replica: Replica, log: Logger): Promise<Feed> {
    const feed = new Feed(replica, log)
    await feed.#replicas.start()
    return feed
  }

  get status(): ReplicaStatus[] {
    return this.#replicas.status
  }

  /** Feeds a peer, or changes how. PEER_NOT_FOUND, CONNECTION, USAGE. */
  async add({ peer, listen = null, holdBytes = FEED_HOLD_BYTES_MAX }: FeedRequest): Promise<void> {
    await this.#replicas.add({ peer, listen, holdBytes, ack: 'async', scrubMs: 0 })
  }

  /** NOT_REPLICATED. */
  async remove(peer: string): Promise<void> {
    await this.#replicas.remove(peer)
  }

  /** Idempotent. */
  async close(): Promise<void> {
    clearInterval(this.#timer)
    this.#unwatch()
    await this.#replicas.close()
  }

  #changed(): void {
    const { logged, generation, end, authorised } = this.replica.state
    if (generation !== this.#generation) {
      this.#generation = generation
      this.#replicas.restart()
    }
    if (this.#repair !== undefined && this.replica.state.baseline) this.#repair.seen = true
    if (logged !== null) this.#replicas.advanced(logged.seq)
    if (end === this.#told.end && authorised === this.#told.authorised) return
    this.#told = { end, authorised }
    this.#replicas.announce()
  }

  #wish(after: bigint): void {
    this.#wishedAt = Date.now()
    const { wish } = this.replica
    if (wish === undefined || wish < after) this.replica.wish = after
  }

  /** A baseline is on its way for what a replica was found to lack; for how long it may be is bounded. */
  #isRepairing(): boolean {
    const repair = this.#repair
    if (repair === undefined) return false
    const over = repair.seen && !this.replica.state.baseline
    if (!over && Date.now() - repair.begunAt < FEED_REPAIR_MS_MAX) return true
    this.#repair = undefined
    return false
  }

  #tick(): void {
    this.#replicas.tick()
    if (this.#isRepairing()) this.#wish(this.#repair?.after ?? 0n)
    if (Date.now() - this.#wishedAt > WISH_MS) this.replica.wish = undefined
  }

  #shipped(): ShippedVolume & VerifiedVolume {
    const { replica } = this
    return {
      name: replica.config.name,
      host: hostName(),
      journalPath: replica.place.log,
      flush: async () => replica.state.logged?.seq ?? 0n,
      scanning: () => this.#isRepairing(),
      // Only the primary has what the replica lacks: a baseline has it all.
      startRepair: async () => {
        this.#repair = { begunAt: Date.now(), seen: false, after: replica.state.end }
      },
      startVerify: async () => {
        throw new HoldfastError('USAGE', 'a replica is compared by its primary', {
          op: 'replica.feed',
          hint: 'On the host of the volume: holdfast verify',
        })
      },
      scanned: () => ({ objects: 0, bytes: 0 }),
      scanErrors: () => 0,
      canFill: () => false,
      readFill: async () => {
        throw new HoldfastError('INTERNAL', 'a replica has no fills', { op: 'replica.feed' })
      },
      // With the data: codes are worth nothing where there is no tree, which the middle cannot see.
      wantBaseline: async (after) => {
        this.#wish(after)
        return null
      },
      bytesAfter: (seq) => replica.behind(seq).bytes,
      horizon: (end) => {
        const { end: known, authorised } = replica.state
        return { end: higher(known, end), authorised }
      },
      // What its primary does not ship, it does not have.
      frozen: () => false,
    }
  }
}

/** How far the primary's journal goes, as far as it is known here. */
function capturedSeq({ state }: Replica): bigint {
  return higher(state.end, state.logged?.seq ?? 0n)
}

function capturedBy(replica: Replica): CapturedView {
  return {
    seq: () => capturedSeq(replica),
    bytes: () => 0,
    behind: (seq) => replica.behind(seq),
    seqAt: () => 0n,
    note: () => {},
    scan: () => ({ objects: 0, bytes: 0, total: null }),
  }
}

/** Nothing waits here: the primary's fsync knows its own replicas only. */
function noAcks(): ReplicasOptions['acks'] {
  return {
    setPolicy: () => {},
    acknowledged: () => {},
    slow: () => {},
    report: () => ({ late: 0n, closeRefused: false }),
  }
}
