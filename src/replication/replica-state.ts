/** What is told of a replica. */
import type { ErrorReport } from '../lib/errors.js'
import type { CopyState } from './copy-state.js'
import type { LogPlace } from './replica-messages.js'
import type { Verdict } from './verdict.js'

export interface ReplicaState {
  logged: LogPlace | null
  applied: bigint
  /** Last seq of the primary's journal that was heard of. */
  end: bigint
  baseline: boolean
  copy: CopyState
  /** Up to here it may be applied, and replicas that it feeds may apply it. */
  authorised: bigint
  /** What keeps it from following. */
  failure: ErrorReport | null
  /** Frames that came now would not be stored. */
  logFailed: boolean
  /** The tree cannot be continued: a baseline has to come. */
  lost: boolean
  queuedBytes: number
  /** Objects of which the tree is known to lack something. */
  needs: number
  /** What comparisons have said of it. */
  verdict: Verdict
  logBytes: number
  /** A frame was lost before one that came. */
  gap: boolean
  /** How often the log was made anew. */
  generation: number
}

/** A log that is about to start over. */
export interface Resetting {
  id: number
  at: LogPlace
  /** The replay has started over, and the log was told. */
  told: boolean
  /** Frames for the log, which is not told yet. */
  frames: Uint8Array<ArrayBuffer>[]
}

/** Resolves when a replica is ready, looking at each change of its state. */
export async function untilReady(replica: {
  readonly isReady: boolean
  watch(onChange: () => void): () => void
}): Promise<void> {
  while (!replica.isReady) {
    await new Promise<void>((resolve) => {
      const end = replica.watch(() => {
        end()
        resolve()
      })
    })
  }
}
