/**
 * What the browse tree asks the daemon of a volume about its past, remembered for a moment: listing a
 * directory asks the same for each of its files.
 */
import { ControlClient } from '../daemon/client.js'
import type { Status } from '../daemon/status.js'
import type { ObjectVersions } from '../daemon/versions.js'
import { type HistoryRange, historyRange } from '../daemon/views.js'
import { HoldfastError } from '../lib/errors.js'
import { BROWSE_FRESH_MS, BROWSE_NOW_MS, BROWSE_PATHS_MAX } from '../lib/limits.js'

interface Remembered<T> {
  value: Promise<T>
  untilMs: number
}

export class Past {
  readonly #volume: string
  readonly #client: ControlClient
  readonly #objects = new Map<string, Remembered<ObjectVersions[]>>()
  #range: Remembered<HistoryRange> | undefined

  constructor(volume: string) {
    this.#volume = volume
    this.#client = new ControlClient(volume)
  }

  /** VOLUME_NOT_RUNNING. */
  status(): Promise<Status> {
    return this.#client.status()
  }

  /** `toSeq` is what counts as now: it stays for a moment, so that one view serves a listing. */
  range(): Promise<HistoryRange> {
    const known = this.#range
    if (known !== undefined && known.untilMs > Date.now()) return known.value
    const value = historyRange(this.#volume)
    this.#range = { value, untilMs: Date.now() + BROWSE_NOW_MS }
    value.catch(() => {
      this.#range = undefined
    })
    return value
  }

  /** What comes next is asked anew. */
  forget(): void {
    this.#range = undefined
    this.#objects.clear()
  }

  /** The last seq at a time. HISTORY_RANGE, HISTORY_OFF. */
  seqAt(timeMs: number): Promise<bigint> {
    return this.#client.seqAt(timeMs)
  }

  /** What a path led to; its directory as of `seq`, or as it is. */
  objectsOf(path: Buffer, seq: bigint | undefined): Promise<ObjectVersions[]> {
    const key = `${seq ?? ''}:${path.toString('latin1')}`
    const known = this.#objects.get(key)
    if (known !== undefined && known.untilMs > Date.now()) return known.value
    const value = this.#client.historyOf(path, seq)
    this.#objects.delete(key)
    this.#objects.set(key, { value, untilMs: Date.now() + BROWSE_FRESH_MS })
    value.catch(() => this.#objects.delete(key))
    const [oldest] = this.#objects.keys()
    if (this.#objects.size > BROWSE_PATHS_MAX && oldest !== undefined) this.#objects.delete(oldest)
    return value
  }

  /**
   * The moment at which a path's objects can be looked at before `end` (exclusive; undefined: now): with
   * a continuous history the last one, else that of the newest snapshot. undefined: there is none.
   */
  async momentBefore(end: bigint | undefined, from: bigint): Promise<bigint | undefined> {
    const { mode, toSeq, fromSeq, snapshots } = await this.range()
    if (mode === 'none') return undefined
    const last = end === undefined ? toSeq : end - 1n
    if (mode === 'continuous' && fromSeq !== null) return last >= fromSeq ? last : undefined
    return snapshots
      .map(({ seq }) => seq)
      .filter((seq) => seq >= from && seq <= last)
      .reduce<bigint | undefined>((a, b) => (a === undefined || b > a ? b : a), undefined)
  }

  /** HISTORY_RANGE for a moment that no view can show. */
  async requireMoment(seq: bigint): Promise<void> {
    const { mode, fromSeq, toSeq, snapshots } = await this.range()
    if (mode !== 'none' && snapshots.some((each) => each.seq === seq)) return
    const isKept = mode === 'continuous' && fromSeq !== null && seq >= fromSeq
    if (isKept && (seq <= toSeq || seq <= BigInt((await this.status()).captured.seq))) return
    throw new HoldfastError('HISTORY_RANGE', `seq ${seq} is not kept`, { op: 'browse' })
  }
}
