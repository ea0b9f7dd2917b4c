/**
 * What a replica is told of the journal besides its frames: how far it goes, and how far it may be applied.
 * Whatever it was told once it may apply at any time, so the farthest of that is remembered.
 */
import { higher } from '../lib/seqs.js'
import type { Sender } from './sender.js'
import type { Horizon, ShippedVolume } from './shipped-volume.js'

export class Told {
  readonly #volume: ShippedVolume
  readonly #sender: Sender
  #last: Horizon | undefined
  #authorised: bigint

  /** `end`: of the journal; what another process has told is not known. */
  constructor(volume: ShippedVolume, sender: Sender, end: bigint) {
    this.#volume = volume
    this.#sender = sender
    this.#authorised = end
  }

  /** The farthest that it may ever have been told to apply. */
  get authorised(): bigint {
    return this.#authorised
  }

  /** A new connection: it has been told nothing. */
  begin(): void {
    this.#last = undefined
  }

  /** What it is to be told now, of a journal that ends at `end`; it is, by whoever asks. */
  horizon(end: bigint): Horizon {
    const { baseline } = this.#sender
    const horizon = this.#volume.horizon(end, { baseline })
    this.#authorised = higher(this.#authorised, horizon.authorised)
    return horizon
  }

  /** It has been told, with frames. */
  said(horizon: Horizon): void {
    this.#last = horizon
  }

  /** What it is to be told although there is no frame to say it; undefined: nothing. */
  news(end: bigint): Horizon | undefined {
    const last = this.#last
    const { sent } = this.#sender.positions
    const found = this.horizon(end)
    const same = last?.authorised === found.authorised
    // Frames that are still to go will say it, but for a horizon that lies before them.
    const later = sent < end && (same || found.authorised > sent)
    if (last !== undefined && (later || (same && last.end === found.end))) return undefined
    this.#last = found
    return found
  }
}
