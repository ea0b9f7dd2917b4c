/** Where the last changes of a journal begin: read from its end, backwards. */
import type { RecordView } from '../record/record.js'
import type { Journal } from './store.js'

/** seq of the `count`-th last record that `wanted` accepts; 1 beyond the end when count is 0. */
export function nthLast(
  journal: Journal,
  count: number,
  wanted: (record: RecordView) => boolean,
): bigint {
  let left = count
  let seq = journal.end().lastSeq + 1n
  if (left === 0) return seq
  for (const frame of journal.frames({ reverse: true })) {
    for (const record of frame.recordsReversed()) {
      if (!wanted(record)) continue
      seq = record.seq
      left -= 1
      if (left === 0) return seq
    }
  }
  return seq
}
