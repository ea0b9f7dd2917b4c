/**
 * What another host's clock shows, known within a bound that is proven, not assumed.
 *
 * In an exchange the other clock is read somewhere between sending and receiving. So its offset lies in
 * an interval as long as the round trip, wherever in it the reading was: links may be as lopsided as
 * they like. All intervals, widened by the most that two clocks can have drifted apart since, hold at
 * once; what they have in common is what is known (Marzullo 1984; NTP's intersection, RFC 5905 section
 * 11.2.1, which however assumes more). When they have nothing in common, a clock has jumped.
 *
 * Who knows how far away the other host is at least knows more: light needs 5 µs per km of fibre. What a
 * message takes at least each way is no part of the interval.
 */
import { CLOCK_DRIFT_PPM_MAX, CLOCK_EXCHANGES_KEPT } from '../lib/limits.js'
import { higher, lower } from '../lib/seqs.js'

/** Of this host's clock, but `remoteNs`; ns. */
export interface Exchange {
  sentNs: bigint
  remoteNs: bigint
  receivedNs: bigint
}

export interface ClockEstimate {
  /** The other clock minus this one, in the middle of what is possible. */
  offsetNs: bigint
  /** It is at most so much more or less. */
  errorNs: bigint
  /** The shortest one. */
  roundTripNs: bigint
  /** How fast the offset grows, as far as can be told; null: not yet. */
  driftPpm: number | null
  exchanges: number
  /** Times at which what was known before could no longer be true. */
  jumps: number
}

interface Interval {
  atNs: bigint
  from: bigint
  to: bigint
}

const MILLION = 1_000_000n
/** Shorter than this, a drift cannot be told from noise. */
const DRIFT_BASE_NS = 10_000_000_000n

export class RemoteClock {
  #kept: Interval[] = []
  #first: { atNs: bigint; offsetNs: bigint } | undefined
  #roundTrip = 0n
  #jumps = 0
  readonly #oneWay: bigint

  /** `oneWayNs`: a message takes at least so long, each way. */
  constructor({ oneWayNs = 0n }: { oneWayNs?: bigint } = {}) {
    this.#oneWay = oneWayNs
  }

  /** RangeError for an exchange that was faster than it can be. False: a clock has jumped; what was known of it is forgotten. */
  add({ sentNs, remoteNs, receivedNs }: Exchange): boolean {
    const roundTrip = receivedNs - sentNs
    if (roundTrip < 2n * this.#oneWay) {
      throw new RangeError(
        `${roundTrip} ns there and back is less than ${this.#oneWay} ns each way`,
      )
    }
    // It was read before it was received, and has drifted since; a ns is what rounding takes.
    const doubt = (roundTrip * BigInt(CLOCK_DRIFT_PPM_MAX)) / MILLION + 1n - this.#oneWay
    const found: Interval = {
      atNs: receivedNs,
      from: remoteNs - receivedNs - doubt,
      to: remoteNs - sentNs + doubt,
    }
    const known = this.#common([...this.#kept, found], receivedNs)
    const steady = known.from <= known.to
    if (!steady) {
      this.#kept = []
      this.#first = undefined
      this.#roundTrip = 0n
      this.#jumps += 1
    }
    if (this.#roundTrip === 0n || roundTrip < this.#roundTrip) this.#roundTrip = roundTrip
    this.#kept.push(found)
    this.#forget(receivedNs)
    const { offsetNs } = this.at(receivedNs)
    this.#first ??= { atNs: receivedNs, offsetNs }
    return steady
  }

  /** What is known at an instant of this clock; before any exchange, nothing. */
  at(nowNs: bigint): ClockEstimate {
    if (this.#kept.length === 0) throw new Error('no exchange with that clock yet')
    const { from, to } = this.#common(this.#kept, nowNs)
    const offsetNs = (from + to) / 2n
    return {
      offsetNs,
      errorNs: (to - from) / 2n + 1n,
      roundTripNs: this.#roundTrip,
      driftPpm: this.#drift(nowNs, offsetNs),
      exchanges: this.#kept.length,
      jumps: this.#jumps,
    }
  }

  #common(intervals: readonly Interval[], nowNs: bigint): { from: bigint; to: bigint } {
    const widened = intervals.map(({ atNs, from, to }) => {
      const age = nowNs > atNs ? nowNs - atNs : atNs - nowNs
      const drift = (age * BigInt(CLOCK_DRIFT_PPM_MAX)) / MILLION
      return { from: from - drift, to: to + drift }
    })
    return {
      from: widened.map(({ from }) => from).reduce(higher),
      to: widened.map(({ to }) => to).reduce(lower),
    }
  }

  /** Those that say the least go first; the last one stays. */
  #forget(nowNs: bigint): void {
    if (this.#kept.length <= CLOCK_EXCHANGES_KEPT) return
    const worth = ({ atNs, from, to }: Interval) =>
      to - from + ((nowNs - atNs) * 2n * BigInt(CLOCK_DRIFT_PPM_MAX)) / MILLION
    const last = this.#kept.at(-1)
    const worst = this.#kept
      .filter((each) => each !== last)
      .reduce((a, b) => (worth(a) >= worth(b) ? a : b))
    this.#kept = this.#kept.filter((each) => each !== worst)
  }

  #drift(nowNs: bigint, offsetNs: bigint): number | null {
    if (this.#first === undefined || nowNs - this.#first.atNs < DRIFT_BASE_NS) return null
    const { atNs, offsetNs: before } = this.#first
    return (Number(offsetNs - before) * 1e6) / Number(nowNs - atNs)
  }
}
