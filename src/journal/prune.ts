/**
 * Retention: deletes frames from the front, in bounded transactions. Space is reused, the file does
 * not shrink (LMDB).
 *
 * Never pruned: the last frame (it carries the chain) and frames after the last checkpoint (a
 * re-capture after power loss reads which objects they name). A replica's log has no checkpoints of
 * its own; what its tree lacks is kept by `keepAfter`.
 */
import { PRUNE_FRAMES_PER_TXN } from '../lib/limits.js'
import type { JournalEnd } from '../record/frame.js'
import type { Journal } from './store.js'

export interface Retention {
  /** Frames whose last seq is at most this are pruned. */
  toSeq?: bigint | undefined
  /** Oldest frames are pruned until the rest has at most this many bytes. */
  maxBytes?: number | undefined
  /** Frames whose last record is older than this many milliseconds are pruned. */
  maxAgeMs?: number | undefined
  /** Frames with a later seq stay whatever else is said: a replica lacks them. */
  keepAfter?: bigint | undefined
}

export interface PruneResult {
  frames: number
  bytes: number
  /** Everything up to this seq is gone. */
  horizon: bigint
  /** More would have gone, but it is newer than the last checkpoint. */
  heldByCheckpoint: boolean
}

/** Applies `retention`; `nowMs` is the wall clock. Safe to call at any time by the one writer. */
export function prune(journal: Journal, retention: Retention, nowMs = Date.now()): PruneResult {
  const result: PruneResult = { frames: 0, bytes: 0, horizon: 0n, heldByCheckpoint: false }
  const { checkpoint, horizon } = journal.meta()
  result.horizon = horizon?.lastSeq ?? 0n
  const { keepAfter } = retention
  const proven = checkpoint?.seq ?? keepAfter ?? result.horizon
  const floor = keepAfter !== undefined && keepAfter < proven ? keepAfter : proven
  const lastFrame = journal.lastFrame()
  if (lastFrame === undefined) return result
  const oldestNs =
    retention.maxAgeMs === undefined ? 0n : BigInt(nowMs - retention.maxAgeMs) * 1_000_000n
  let excess =
    retention.maxBytes === undefined ? 0 : journal.usedBytes() - Math.max(0, retention.maxBytes)

  let batch: bigint[] = []
  let end: JournalEnd | undefined
  const flush = () => {
    if (end !== undefined && batch.length > 0) journal.removeFrames(batch, end)
    batch = []
  }
  for (const frame of journal.frames()) {
    const wanted =
      excess > 0 ||
      frame.clock < oldestNs ||
      (retention.toSeq !== undefined && frame.lastSeq <= retention.toSeq)
    if (!wanted || frame.firstSeq === lastFrame.firstSeq) break
    if (frame.lastSeq > floor) {
      result.heldByCheckpoint = true
      break
    }
    batch.push(frame.firstSeq)
    end = { lastSeq: frame.lastSeq, chain: Buffer.from(frame.chain) }
    excess -= frame.bytes.length
    result.frames += 1
    result.bytes += frame.bytes.length
    result.horizon = frame.lastSeq
    if (batch.length >= PRUNE_FRAMES_PER_TXN) flush()
  }
  flush()
  return result
}
