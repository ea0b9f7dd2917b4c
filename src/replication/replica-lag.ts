/** How far a replica's tree is behind its primary, and behind its own log: bytes and age. */
import { type Behind, Timeline } from './timeline.js'

export class ReplicaLag {
  /** Bytes the primary has not sent, as it said last. */
  #unsent = 0
  #storedBytes = 0
  /** Ends of the primary's journal, as they were heard of; frames, as they were stored. */
  #ends = new Timeline()
  #stored = new Timeline()

  /** The primary's journal ends at `end`. */
  heard(end: bigint, unsent: number | undefined): void {
    if (unsent !== undefined) this.#unsent = unsent
    this.#ends.note({ seq: end, bytes: 0, at: Date.now() })
  }

  /** So many bytes more were stored; the log ends at `seq`. */
  stored(seq: bigint | undefined, bytes: number): void {
    this.#storedBytes += bytes
    if (seq !== undefined) this.#stored.note({ seq, bytes: this.#storedBytes, at: Date.now() })
  }

  /** The log starts over. */
  reset(): void {
    this.#ends = new Timeline()
    this.#stored = new Timeline()
  }

  /** What of the log lies behind a place, and since when the primary has more than that. */
  behind(seq: bigint): Behind {
    const { bytes } = this.#stored.behind(seq, Date.now())
    const { seconds } = this.#ends.behind(seq, Date.now())
    return { bytes, seconds }
  }

  /** What the primary has, as far as it was heard of, and the tree, which is at `applied`, has not. */
  of(place: { applied: bigint; end: bigint; queued: number }): Behind & { records: number } {
    const { applied, end, queued } = place
    const { bytes, seconds } = this.behind(applied)
    const records = end > applied ? Number(end - applied) : 0
    return { records, seconds, bytes: records === 0 ? 0 : bytes + queued + this.#unsent }
  }
}
