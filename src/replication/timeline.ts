/**
 * How much lies behind a position, in bytes and in seconds: from what was seen when a journal grew.
 *
 * Spans of seqs, each with the bytes up to its end and the time it was seen in. Exact where a span
 * ends, linear within one: spans are `TIMELINE_STEP_MS` long while they are young; beyond
 * `TIMELINE_SPANS_MAX` the older half is told in spans twice as long.
 */
import { TIMELINE_SPANS_MAX, TIMELINE_STEP_MS } from '../lib/limits.js'

interface Span {
  /** Last seq of the span. */
  seq: bigint
  /** Bytes of everything up to it. */
  bytes: number
  /** ms since the epoch at which its first and its last seq were seen. */
  from: number
  to: number
}

export interface Behind {
  bytes: number
  seconds: number
}

export interface Seen {
  seq: bigint
  bytes: number
  /** ms since the epoch. */
  at: number
}

export class Timeline {
  #spans: Span[] = []

  /** What was there before, known at its two ends only. */
  constructor(before: readonly [Seen, Seen] = [NOTHING, NOTHING]) {
    const [first, last] = before
    this.#spans.push({ seq: first.seq, bytes: first.bytes, from: first.at, to: first.at })
    if (last.seq > first.seq) {
      this.#spans.push({ seq: last.seq, bytes: last.bytes, from: first.at, to: last.at })
    }
  }

  /** Everything up to `seq`, `bytes` in all, is there at this time. Older news is passed over. */
  note({ seq, bytes, at }: Seen): void {
    const last = this.#spans.at(-1)
    if (last !== undefined && seq <= last.seq) return
    const total = Math.max(bytes, last?.bytes ?? 0)
    if (last !== undefined && this.#spans.length > 1 && at - last.from < TIMELINE_STEP_MS) {
      last.seq = seq
      last.bytes = total
      last.to = at
      return
    }
    this.#spans.push({ seq, bytes: total, from: at, to: at })
    if (this.#spans.length > TIMELINE_SPANS_MAX) this.#coarsen()
  }

  /** What is there and not in `position` yet; the seconds are the age of the oldest of it. */
  behind(position: bigint, now: number): Behind {
    const last = this.#spans.at(-1)
    if (last === undefined || position >= last.seq) return { bytes: 0, seconds: 0 }
    const at = this.#first(position)
    const span = this.#spans[at]
    const before = this.#spans[at - 1]
    if (span === undefined) return { bytes: 0, seconds: 0 }
    const start = before ?? { seq: position, bytes: span.bytes }
    const part = Number(position - start.seq) / Math.max(1, Number(span.seq - start.seq))
    const bytes = start.bytes + (span.bytes - start.bytes) * part
    const seen = span.from + (span.to - span.from) * part
    return { bytes: Math.round(last.bytes - bytes), seconds: Math.max(0, now - seen) / 1000 }
  }

  /** The last seq that was surely there at that time. */
  seqAt(at: number): bigint {
    return this.#spans.findLast(({ to }) => to <= at)?.seq ?? 0n
  }

  /** Index of the first span that ends behind `position`. */
  #first(position: bigint): number {
    let low = 0
    let high = this.#spans.length
    while (low < high) {
      const middle = (low + high) >> 1
      const span = this.#spans[middle]
      if (span !== undefined && span.seq <= position) low = middle + 1
      else high = middle
    }
    return low
  }

  #coarsen(): void {
    const half = this.#spans.length >> 1
    // The first one is only a place.
    const kept: Span[] = this.#spans.slice(0, 1)
    for (let at = 1; at < half; at += 2) {
      const [one, other] = this.#spans.slice(at, Math.min(at + 2, half))
      if (one !== undefined) kept.push({ ...(other ?? one), from: one.from })
    }
    this.#spans = [...kept, ...this.#spans.slice(half)]
  }
}

const NOTHING: Seen = { seq: 0n, bytes: 0, at: 0 }
