/**
 * How far behind a place is, in bytes and in time: from samples of how much was captured when.
 *
 * Invariant: what is told is never less than the truth by more than what came since the last sample.
 */
import { LAG_SAMPLES_MAX } from '../lib/limits.js'

interface Sample {
  seq: bigint
  bytes: bigint
  /** From when to when the last captured record was `seq`, milliseconds. */
  from: number
  until: number
}

export interface Lag {
  bytes: number
  ms: number
}

export class LagMeter {
  #samples: Sample[] = []
  readonly #bytesOf: (records: bigint) => number

  /** `bytesOf`: about how many bytes so many records have, of which there are no samples. */
  constructor(bytesOf: (records: bigint) => number) {
    this.#bytesOf = bytesOf
  }

  /** Everything up to `seq` was captured at `at` (ms), `bytes` in all. */
  sample(seq: bigint, bytes: bigint, at: number): void {
    const last = this.#samples.at(-1)
    if (last !== undefined && last.seq >= seq) {
      last.until = at
      return
    }
    this.#samples.push({ seq, bytes, from: at, until: at })
    if (this.#samples.length <= LAG_SAMPLES_MAX) return
    // What is long ago is known less exactly.
    const half = LAG_SAMPLES_MAX / 2
    this.#samples = this.#samples.filter((_, n) => n === 0 || n > half || n % 2 === 1)
  }

  /** What was captured after `seq`, and how old the oldest of it is. */
  behind(seq: bigint, at: number): Lag {
    const last = this.#samples.at(-1)
    const [first] = this.#samples
    if (last === undefined || first === undefined || seq >= last.seq) return { bytes: 0, ms: 0 }
    if (seq < first.seq) {
      const before = this.#bytesOf(first.seq - seq)
      return { bytes: Number(last.bytes - first.bytes) + before, ms: at - first.from }
    }
    const known = this.#samples[this.#after(seq) - 1] ?? first
    return { bytes: Number(last.bytes - known.bytes), ms: at - known.until }
  }

  /** Last seq captured at that time, as far as is known. */
  capturedAt(at: number): bigint {
    const found = this.#samples.findLast(({ from }) => from <= at)
    return found?.seq ?? 0n
  }

  /** Index of the first sample beyond `seq`. */
  #after(seq: bigint): number {
    let [low, high] = [0, this.#samples.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if ((this.#samples[middle]?.seq ?? 0n) > seq) high = middle
      else low = middle + 1
    }
    return low
  }
}
