/** What a replica's main thread and its two workers say to each other. */
import type { ErrorReport } from '../lib/errors.js'
import type { HistoryOptions } from '../lib/native-history.js'

/** A place in a journal. */
export interface LogPlace {
  seq: bigint
  chain: Uint8Array
}

export interface LogOptions {
  path: string
  uuid: Uint8Array
}

export type LogRequest =
  /** Whoever gets it has the memory as well. */
  | { kind: 'frame'; bytes: Uint8Array<ArrayBuffer> }
  /** Forget everything; the next frame follows this place. Answered by `reset` with its number. */
  | { kind: 'reset'; id: number; at: LogPlace }
  /** After a failure: frames are taken again. Answered by `logged`, or by another failure. */
  | { kind: 'retry' }
  /** What is applied, and not kept for further replicas, may be pruned, beyond the size kept. */
  | { kind: 'applied'; keepAfter: bigint }
  | { kind: 'close' }

/** `bytes`: of the frames that wait no longer, stored or not. */
export type LogReply =
  /** Durable up to here. `null`: there is nothing, not even a place to go on from. */
  | { kind: 'logged'; at: LogPlace | null; bytes: number; usedBytes: number }
  /** A frame came that does not follow what is there: it was left out. */
  | { kind: 'gap'; bytes: number }
  | { kind: 'reset'; id: number; at: LogPlace; bytes: number }
  /** The memory of frames, for others. */
  | { kind: 'spent'; memory: ArrayBuffer[] }
  /** Frames are passed over until `retry` or `reset`. */
  | { kind: 'failure'; error: ErrorReport; bytes: number }
  | { kind: 'closed' }

export interface ApplyOptions {
  logPath: string
  uuid: Uint8Array
  tree: string
  state: string
  delay: ApplyDelay
  /** There is a log, and nothing is known of the tree that would have come of it. */
  lacksState: boolean
  history: ApplyHistory
}

/** What is kept of the past, and the handle of it when it is open already; null: nothing. */
export interface ApplyHistory {
  options: HistoryOptions | null
  handle: number | undefined
}

/** How late frames are applied; `aheadMs`: this host's clock against that of the frames. */
export interface ApplyDelay {
  applyMs: number
  aheadMs: number
}

export type ApplyRequest =
  /** Apply up to this seq, not beyond. */
  | { kind: 'horizon'; seq: bigint }
  | { kind: 'delay'; delay: ApplyDelay }
  /** Starts over from this place, onto whatever the tree is: a baseline follows. */
  | { kind: 'reset'; id: number; at: LogPlace }
  /** From now on this is kept of the past. Answered by `history`. */
  | { kind: 'history'; options: HistoryOptions | null }
  /** The body of a `fill`, with its memory. Answered by `filled`. */
  | { kind: 'fill'; body: Uint8Array<ArrayBuffer> }
  /** What does the tree lack? */
  | { kind: 'needs' }
  | { kind: 'close' }

/** One thing that the tree has otherwise than the primary's; the path in base64, for it is bytes. */
export interface FoundDifference {
  seq: number
  path: string
  what: string
  from: number
  to: number
}

export type ApplyReply =
  | {
      kind: 'applied'
      seq: bigint
      baseline: boolean
      /** Objects of which the tree lacks something. */
      needs: number
      /** A power loss has put the tree in doubt; said once. */
      doubt: boolean
    }
  | { kind: 'differences'; list: FoundDifference[] }
  /** A comparison of everything has ended. */
  | { kind: 'verified'; seq: bigint; differences: number }
  | { kind: 'needs'; words: BigUint64Array }
  /** A fill was taken, or could not be; its memory again. */
  | { kind: 'filled'; bytes: number; memory: ArrayBuffer }
  | { kind: 'reset'; id: number }
  /** The history that is written, or why it is not. */
  | { kind: 'history'; handle: number | undefined; error?: ErrorReport }
  | { kind: 'failure'; error: ErrorReport }
  | { kind: 'closed' }
