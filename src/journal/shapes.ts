/** What a journal is opened with, is asked for, and tells of itself. */

/** A frame to append: key and value. The bytes are taken by address until `append` returns. */
export interface FrameBytes {
  readonly firstSeq: bigint
  readonly bytes: Buffer
}

export interface JournalOptions {
  /** Directory of the journal, e.g. `<state>/journal`. */
  path: string
  /** Volume the journal must belong to (16 bytes); without it, any. */
  uuid?: Buffer | undefined
  /** Create the journal when there is none; needs `uuid`. */
  create?: boolean
  /** For other processes than the one that runs the volume. */
  readOnly?: boolean
  /** The machine may have died since the journal was written: go back to what is durable. */
  afterPowerLoss?: boolean
}

export interface FrameRange {
  /** First seq wanted; the frame that holds it comes whole. */
  from?: bigint | undefined
  /** Last seq wanted. */
  to?: bigint | undefined
  /** From the last frame to the first. */
  reverse?: boolean
}

/** Sizes in bytes. */
export interface JournalStat {
  frames: number
  /** Pages that hold frames. */
  usedBytes: number
  /** Pages of the file that are free for reuse: pruning makes them, the file never shrinks. */
  freeBytes: number
  fileBytes: number
  firstSeq: bigint
  lastSeq: bigint
  /** Clock of the first and last frame, ns since the epoch; 0 when there is none. */
  firstClock: bigint
  lastClock: bigint
}
