/** What is told of a replica, and waiting until that is so. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { ErrorReport } from '../lib/errors.js'
import { REPLICA_OPEN_MS_MAX } from '../lib/limits.js'
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

/** Resolves when it is so, looking at each change of a replica's state. */
export async function untilSo(
  replica: { watch(onChange: () => void): () => void },
  isSo: () => boolean,
): Promise<void> {
  while (!isSo()) {
    await new Promise<void>((resolve) => {
      const end = replica.watch(() => {
        end()
        resolve()
      })
    })
  }
}

/** Resolves when it is ready. */
export function whenReady(replica: Parameters<typeof untilSo>[0] & { readonly isReady: boolean }) {
  return untilSo(replica, () => replica.isReady)
}

/** Resolves when it is open, or late. */
export async function whenOpen(replica: {
  readonly isOpen: boolean
  watch(onChange: () => void): () => void
}): Promise<void> {
  const late = sleep(REPLICA_OPEN_MS_MAX, undefined, { ref: false })
  await Promise.race([late, untilSo(replica, () => replica.isOpen)])
}
