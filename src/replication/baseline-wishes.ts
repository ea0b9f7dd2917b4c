/** The baselines that one replica waits for: its own, and one of a replica that it feeds. */
import type { ShippedVolume } from './shipped-volume.js'

export class BaselineWishes {
  readonly #volume: ShippedVolume
  /** Its own begins after this seq at least; 0: not known. */
  #after = 0n
  /** It has a tree: codes will do. */
  hasTree = false
  /** What a replica of its own needs begins after this seq. */
  further: bigint | undefined

  constructor(volume: ShippedVolume) {
    this.#volume = volume
  }

  /** The replica was told to start over from this place. */
  begins(after: bigint): void {
    this.#after = after
  }

  /** It goes on from here; of a baseline that another process began it is not known whether it came. */
  goesOn(applied: bigint): void {
    if (this.#after === 0n) this.#after = applied
  }

  /** Sees to it that they are under way; says why not, or null. `baseline`: its own has not ended. */
  async follow({ baseline }: { baseline: boolean }): Promise<string | null> {
    // What a baseline has brought is a tree: the next one is by codes.
    if (!baseline) this.hasTree = true
    const data = this.hasTree ? 'codes' : 'later'
    let problem: string | null = null
    if (baseline) problem = await this.#volume.wantBaseline(this.#after, { data })
    if (this.further !== undefined) {
      problem ??= await this.#volume.wantBaseline(this.further, { data: 'whole' })
    }
    return problem
  }
}
