/**
 * What is shipped: the volume of this host, or the log of a replica of it (a chain). The daemon gives
 * it, the shipper uses it.
 */
import type { RepairedVolume } from './repairs.js'

/** What the shipper needs of the volume that it ships. */
export interface ShippedVolume extends RepairedVolume {
  readonly name: string
  readonly host: string
  readonly journalPath: string
  /**
   * Sees to it that a baseline which begins after this seq comes into the journal: images of all of
   * the tree, between the baseline's marks. Called again and again until the replica has it all.
   * Tells why there is none just now; null when all is well.
   */
  wantBaseline(after: bigint, options: { data: BaselineData }): Promise<string | null>
  /** Bytes captured after this seq. */
  bytesAfter(seq: bigint): number
  /**
   * What is told of a journal that ends at `end`: how far it goes at its source, and the horizon, of a
   * replica that is whole, or of one whose baseline is under way.
   */
  horizon(end: bigint, replica: { baseline: boolean }): Horizon
  /** Nothing is shipped now; what is told goes on. */
  frozen(): boolean
}

/**
 * What a baseline has of the data of files: all of it; codes, for a replica that has a tree of the volume;
 * or of large files nothing, for a replica that asks the volume itself for it.
 */
export type BaselineData = 'whole' | 'codes' | 'later'

export interface Horizon {
  /** Last seq of the primary's journal, as far as it is known here. */
  end: bigint
  /** Up to here it may be applied. */
  authorised: bigint
}
