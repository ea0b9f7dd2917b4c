/** Places in a journal: where one is, a seq and the chain value there. */
import type { Journal } from '../journal/store.js'
import type { JournalEnd } from '../record/frame.js'

/** The chain value at `seq`; undefined where the journal has no end of a frame there. */
export function chainAt(journal: Journal, seq: bigint): Buffer | undefined {
  const end = (place: JournalEnd | null) => (place?.lastSeq === seq ? place.chain : undefined)
  if (seq === 0n) return journal.firstFrame()?.firstSeq === 1n ? Buffer.alloc(8) : undefined
  const frame = journal.frameAt(seq)
  if (frame?.lastSeq === seq) return Buffer.from(frame.chain)
  return end(journal.meta().horizon) ?? end(journal.end())
}
