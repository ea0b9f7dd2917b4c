/** When something that has failed is tried again: after a pause that doubles with every failure. */
export class Retry {
  readonly #minMs: number
  readonly #maxMs: number
  #pause = 0
  #at = 0

  constructor({ minMs, maxMs }: { minMs: number; maxMs: number }) {
    this.#minMs = minMs
    this.#maxMs = maxMs
  }

  /** Whether it is time, at `now` (ms). */
  isDue(now: number): boolean {
    return now >= this.#at
  }

  /** It has failed; returns the pause, ms. */
  failed(now: number): number {
    this.#pause = this.#pause === 0 ? this.#minMs : Math.min(this.#pause * 2, this.#maxMs)
    this.#at = now + this.#pause
    return this.#pause
  }

  succeeded(): void {
    this.#pause = 0
    this.#at = 0
  }
}
