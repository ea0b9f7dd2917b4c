/**
 * How far a baseline is: what the scan has captured of the tree, and how much of what was captured
 * since its beginning the replica has applied. Both have to reach their end.
 */
import { BASELINE_RATE_MS } from '../lib/limits.js'

/** Counters of the scan (`native.volumeStats`). Sizes in bytes. */
export interface ScanWork {
  objects: number
  bytes: number
  /** What there is in all; null while it is being counted. */
  total: { objects: number; bytes: number } | null
}

/** What `status` says of a baseline under way. `null`: not known yet. */
export interface BaselineStatus {
  percent: number | null
  /** At the replica, of so many. */
  objects: number
  objectsTotal: number | null
  bytes: number
  bytesTotal: number | null
  bytesPerSecond: number
  secondsLeft: number | null
}

/** An object without data is work too: about as much as this many bytes. */
const OBJECT_BYTES = 4096
/** Not all of it until the replica says so. */
const PERCENT_MAX = 99.9

export class BaselineProgress {
  readonly #start: number
  #samples: { at: number; done: number; bytes: number }[] = []

  /** `start`: bytes captured when it began. */
  constructor(start: number) {
    this.#start = start
  }

  /**
   * `captured` and `applied` in bytes, as `start`; `now` in ms. `filled`: bytes that came past the journal,
   * after the scan; null before its end.
   */
  update(news: {
    scan: ScanWork
    captured: number
    applied: number
    filled?: number | null
    now: number
  }): BaselineStatus {
    const { scan, captured, applied, filled = null, now } = news
    const since = captured - this.#start
    const scanned = since > 0 ? Math.min(1, Math.max(0, applied - this.#start) / since) : 0
    const part = filled === null ? scanned : 1
    const objects = Math.floor(scan.objects * part)
    const bytes = Math.floor(scan.bytes * part) + (filled ?? 0)
    const done = bytes + objects * OBJECT_BYTES
    const { total } = scan
    const all = total === null ? 0 : total.bytes + total.objects * OBJECT_BYTES
    const rate = this.#rate({ at: now, done, bytes })
    return {
      percent: all === 0 ? null : Math.min(PERCENT_MAX, (done / all) * 100),
      objects,
      objectsTotal: total?.objects ?? null,
      bytes,
      bytesTotal: total?.bytes ?? null,
      bytesPerSecond: Math.round(rate.bytes),
      secondsLeft: all === 0 || rate.done <= 0 ? null : Math.max(0, all - done) / rate.done,
    }
  }

  /** Per second, over the last seconds. */
  #rate(now: { at: number; done: number; bytes: number }): { done: number; bytes: number } {
    const last = this.#samples.at(-1)
    // More of the tree is known than it was: what is done may seem less.
    if (last !== undefined && now.done < last.done) this.#samples = []
    if (last === undefined || now.at > last.at) this.#samples.push(now)
    while ((this.#samples[1]?.at ?? now.at) <= now.at - BASELINE_RATE_MS) this.#samples.shift()
    const first = this.#samples[0] ?? now
    const seconds = (now.at - first.at) / 1000
    if (seconds <= 0) return { done: 0, bytes: 0 }
    return { done: (now.done - first.done) / seconds, bytes: (now.bytes - first.bytes) / seconds }
  }
}
