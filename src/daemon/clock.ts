/** Time for checkpoints: the wall clock, and whether it can be trusted to have gone forward. */

export interface Clock {
  /** CLOCK_REALTIME, ns since the epoch. */
  wallNs(): bigint
  /** CLOCK_MONOTONIC, ns. */
  monotonicNs(): bigint
}

export const systemClock: Clock = {
  // Date.now follows clock steps; performance.timeOrigin does not.
  wallNs: () => BigInt(Date.now()) * 1_000_000n,
  monotonicNs: () => process.hrtime.bigint(),
}

/**
 * Watches for a wall clock that goes backwards: then a change after a checkpoint may carry a change
 * time before it, and a re-capture by change time would miss it.
 */
export class StepDetector {
  readonly #clock: Clock
  readonly #toleranceNs: bigint
  #wall: bigint
  #monotonic: bigint

  constructor(clock: Clock, toleranceMs: number) {
    this.#clock = clock
    this.#toleranceNs = BigInt(toleranceMs) * 1_000_000n
    this.#wall = clock.wallNs()
    this.#monotonic = clock.monotonicNs()
  }

  /** Whether the wall clock fell back by more than the tolerance since the last call. */
  steppedBack(): boolean {
    const wall = this.#clock.wallNs()
    const monotonic = this.#clock.monotonicNs()
    const lag = monotonic - this.#monotonic - (wall - this.#wall)
    this.#wall = wall
    this.#monotonic = monotonic
    return lag > this.#toleranceNs
  }
}
