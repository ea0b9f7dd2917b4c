/**
 * What a replica keeps of its past, written by its replay (`replication/replica-past.ts`), and the views
 * of it that are mounted.
 */
import { z } from 'zod'
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import {
  HISTORY_AGE_LOOK_MS,
  HISTORY_BYTES_DEFAULT,
  HISTORY_BYTES_MIN,
  HORIZON_MARKER,
  VIEWS_LOOK_MS,
} from '../lib/limits.js'
import type { Logger } from '../lib/log.js'
import { native } from '../lib/native.js'
import type { PathObject } from '../lib/native-history.js'
import { printable } from '../lib/printable.js'
import { lower } from '../lib/seqs.js'
import type { Replica } from '../replication/replica.js'
import type { HistoryStatus } from './history.js'
import { Losses } from './losses.js'
import type { Past } from './past-routes.js'
import { type ViewRequest, type ViewStatus, ViewTable } from './view-table.js'

const op = 'replica.history'

export const ReplicaHistorySchema = z.strictObject({
  mode: z.enum(['none', 'continuous']),
  bytesMax: z.int().min(HISTORY_BYTES_MIN).optional(),
  ageMs: z.int().min(0).nullish(),
})

/** What is to be kept; what is not given stays as it is. */
export type ReplicaHistoryChange = z.infer<typeof ReplicaHistorySchema>

/** A moment that the primary has named. */
export interface ReplicaPoint {
  name: string
  seq: number
  /** Of the primary, ISO 8601. */
  time: string
}

export class ReplicaHistory implements Past {
  readonly #replica: Replica
  readonly #log: Logger
  readonly #views: ViewTable
  readonly #losses: Losses
  readonly #timer: NodeJS.Timeout
  #agedAt = 0
  #looking = false

  constructor(replica: Replica, log: Logger) {
    this.#replica = replica
    this.#log = log.child({ replica: replica.config.name })
    this.#losses = new Losses(this.#log)
    this.#views = new ViewTable({ of: `replica:${replica.place.directory}`, log: this.#log })
    this.#timer = setInterval(() => void this.#look(), VIEWS_LOOK_MS)
  }

  get status(): HistoryStatus {
    const { config, place, past } = this.#replica
    const state = past.handle === undefined ? null : native.historyState(past.handle)
    const floor = Number(state?.floor ?? 0n)
    return {
      mode: config.history === undefined ? 'none' : 'continuous',
      directory: place.history,
      fromSeq: state === null ? null : floor,
      floor,
      bytes: state?.bytes ?? 0,
      bytesMax: config.history?.bytesMax ?? HISTORY_BYTES_DEFAULT,
      lost: state?.lost ?? 0,
      unprovenBefore: Number(state?.powerLostBefore ?? 0n),
      views: this.#views.list,
    }
  }

  get lastSeq(): bigint {
    return this.#replica.state.applied
  }

  /** BUSY while a view is mounted. */
  async change({ mode, bytesMax, ageMs }: ReplicaHistoryChange): Promise<HistoryStatus> {
    const [view] = this.#views.list
    if (view !== undefined) {
      throw new HoldfastError('BUSY', `the replica is seen as it was at ${view.path}`, {
        op,
        hint: `Unmount that first: holdfast history unmount ${view.path}`,
      })
    }
    const now = this.#replica.config.history
    const wanted = {
      bytesMax: bytesMax ?? now?.bytesMax ?? HISTORY_BYTES_DEFAULT,
      ageMs: ageMs === undefined ? (now?.ageMs ?? null) : ageMs,
    }
    await this.#replica.keepHistory(mode === 'none' ? undefined : wanted)
    this.#agedAt = 0
    return this.status
  }

  /** The last seq at a time of the primary. HISTORY_RANGE, HISTORY_OFF. */
  async seqAt(timeMs: number): Promise<bigint> {
    const handle = this.#handle()
    const { seq, oldestMs } = await this.#views.seqAt(handle, timeMs)
    const floor = native.historyState(handle)?.floor ?? 0n
    if (seq !== undefined && seq >= floor) return lower(seq, this.lastSeq)
    const begins = oldestMs === undefined ? '' : ` at ${new Date(oldestMs).toISOString()}`
    throw new HoldfastError('HISTORY_RANGE', `the history begins${begins} with seq ${floor}`, {
      op,
      details: { fromSeq: Number(floor) },
    })
  }

  /** Markers of its primary that can be looked at, oldest first: snapshots among them. */
  get points(): ReplicaPoint[] {
    const named = native.historyPoints(this.#handle()).map(({ name, seq, timeMs }) => ({
      name: printable(name),
      seq: Number(seq),
      time: new Date(timeMs).toISOString(),
    }))
    // Of those there is one a second, and nobody asks for them by name.
    return named.filter(({ name }) => !name.startsWith(HORIZON_MARKER))
  }

  async mount(request: ViewRequest): Promise<ViewStatus> {
    const handle = this.#handle()
    const { copy } = this.#replica.state
    if (copy !== 'Inconsistent') return this.#views.mount(handle, request)
    const message = 'the replica is not what its primary was: it is being brought back'
    throw new HoldfastError('HISTORY_RANGE', message, {
      op,
      hint: 'Its history begins when that has ended: holdfast replica list',
    })
  }

  unmount(id: number, lazy: boolean): Promise<void> {
    return this.#views.unmount(id, lazy)
  }

  ofPath(path: Buffer, seq: bigint): Promise<PathObject[]> {
    return this.#views.ofPath(this.#handle(), path, seq)
  }

  #handle(): number {
    const { past, config } = this.#replica
    if (past.handle !== undefined) return past.handle
    throw new HoldfastError('HISTORY_OFF', `the replica ${config.name} keeps no history`, {
      op,
      hint: `Keep every change: holdfast replica history ${config.name} --mode continuous`,
    })
  }

  async #look(): Promise<void> {
    if (this.#looking) return
    this.#looking = true
    try {
      await this.#views.dropOrphans()
      const { handle } = this.#replica.past
      if (handle !== undefined) await this.#keepWithin(handle)
    } catch (error) {
      this.#log.warn({ error: toHoldfastError(error, op) }, 'looking after the history failed')
    } finally {
      this.#looking = false
    }
  }

  async #keepWithin(handle: number): Promise<void> {
    this.#losses.look(handle)
    if (Date.now() < this.#agedAt) return
    this.#agedAt = Date.now() + HISTORY_AGE_LOOK_MS
    const { ageMs = null } = this.#replica.config.history ?? {}
    const { seq } = ageMs === null ? {} : await this.#views.seqAt(handle, Date.now() - ageMs)
    // It may have been turned off, or begun anew, meanwhile.
    if (handle === this.#replica.past.handle) native.setHistoryWanted(handle, 0n, seq ?? 0n)
  }

  /** Ends the views; the history itself ends with the replica. Idempotent. */
  async close(): Promise<void> {
    clearInterval(this.#timer)
    for (const { id } of this.#views.list) {
      await this.unmount(id, true).catch((error: unknown) => {
        this.#log.warn({ error: toHoldfastError(error, op) }, 'a view stays')
      })
    }
    await this.#views.close()
  }
}
