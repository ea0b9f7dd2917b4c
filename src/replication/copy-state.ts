/** How much of its primary's tree a replica's tree can be relied on to be. */
export type CopyState =
  /** The primary's tree at `applied`, and nothing it is known to lack. */
  | 'UpToDate'
  /** The primary's tree at an earlier moment. */
  | 'Consistent'
  /** No moment's tree: a baseline is under way, or the replay cannot be continued. */
  | 'Inconsistent'

/** A replay that failed so has to start over; any other goes on once the cause is gone. */
const LOST: ReadonlySet<string> = new Set([
  'PRUNED',
  'REPLAY_CORRUPT',
  'REPLAY_DIVERGED',
  'REPLAY_FOREIGN_VOLUME',
  'REPLAY_FORK',
  'REPLAY_GAP',
  'REPLAY_STATE',
])

/** Whether a replica that failed with this code needs a baseline. */
export function needsBaseline(failure: { code: string } | null): boolean {
  return failure !== null && LOST.has(failure.code)
}
