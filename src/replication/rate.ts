/** A limit of bytes per second: a token bucket that may be overdrawn by one send. */

/** What may be sent at once after a rest, as time at the full rate. */
const BURST_MS = 100

export class RateLimit {
  readonly bytesPerSecond: number
  readonly #bytesPerMs: number
  readonly #now: () => number
  /** Bytes that may be sent; below 0: what was sent too early. */
  #tokens = 0
  #at: number

  constructor(bytesPerSecond: number, now: () => number = () => performance.now()) {
    this.bytesPerSecond = bytesPerSecond
    this.#bytesPerMs = bytesPerSecond / 1000
    this.#now = now
    this.#at = now()
  }

  /** Milliseconds until something may be sent. */
  get pauseMs(): number {
    const now = this.#now()
    const earned = (now - this.#at) * this.#bytesPerMs
    this.#tokens = Math.min(this.#tokens + earned, BURST_MS * this.#bytesPerMs)
    this.#at = now
    return this.#tokens >= 0 ? 0 : -this.#tokens / this.#bytesPerMs
  }

  /** `bytes` are sent. */
  spend(bytes: number): void {
    this.#tokens -= bytes
  }
}
