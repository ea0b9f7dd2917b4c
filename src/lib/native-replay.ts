/** Replay onto a tree, as the data plane does it: one thread for each. */

export interface ReplayOptions {
  /** Directory onto which records are replayed, a path in bytes. */
  target: Buffer
  /** 16 bytes; records of another volume are refused. */
  uuid: Buffer
  /** Directory of the replay's own state: position, object map. On the target's file system. */
  state: string
  /**
   * Directory to which `target` and `state` are relative then: reached past all that is mounted in
   * it, by a mount that nobody else sees.
   */
  beneath?: Buffer
  /** Where a new state starts, when that is not the beginning. */
  start?: ReplayStart
  /** A state that exists starts there as well; it keeps what it knows of objects, and codes. */
  restart?: boolean
  /** Comparisons and codes are looked at; `replayNeeds` has to be served then. */
  compare?: boolean
  /** Handle of the history that is written. */
  history?: number
}

/** Where a new replay starts when the target is not a copy of the base. */
export interface ReplayStart {
  seq: bigint
  /** Chain value there (8 bytes). */
  chain: Buffer
  /** The target is whole when a baseline that begins after this place has ended. */
  baseline: boolean
}

export interface ReplayPosition {
  /** seq of the last record applied; 0 when none. */
  appliedSeq: bigint
  appliedChain: Buffer
  records: bigint
  bytes: bigint
  objects: number
  /** A baseline is awaited or under way: the target lacks things. */
  baseline: boolean
  /** Objects of which the target is known to lack something. */
  needs: number
  /** Differences found by the comparison under way, or the last one. */
  differences: number
  /** The last comparison of everything that ended in this process: where, and what it found. */
  verified?: { seq: bigint; differences: number } | null
  /** There are codes to compute when there is nothing to apply. */
  codesLeft: boolean
}

/** One thing that a replay's target has otherwise than the source. */
export interface Difference {
  seq: bigint
  /** Relative to the target, in bytes, starting with a slash. */
  path: Buffer
  /** Which parts, joined by commas: `data`, `missing`, `mode`, … */
  what: string
  /** Of `data` and `holes`: the bytes. */
  from: bigint
  to: bigint
}

export interface NativeReplay {
  openReplay(options: ReplayOptions): number
  /** Where a replay is: at first, what was applied before it was opened. */
  replayPosition(handle: number): ReplayPosition
  /** Applies the records of one frame with seq > position; returns the new position. */
  replayFrame(handle: number, frame: Buffer): ReplayPosition
  /** Takes the body of a `fill` message; what does not lack is left alone. */
  replayFill(handle: number, body: Buffer): ReplayPosition
  /** Mounts a directory over itself, read-only; and ends that. */
  guardTree(path: Buffer): void
  unguardTree(path: Buffer): void
  /** Computes missing codes for about `maxMs`; `codesLeft` of the result says whether to go on. */
  replayCodes(handle: number, maxMs: number): ReplayPosition
  /** The differences found since the last call; at most the first 10,000 of a comparison. */
  replayDifferences(handle: number): Difference[]
  /** What the target is known to lack, as `ScanOptions.objects`; the beginning of it when it is much. */
  replayNeeds(handle: number): BigUint64Array
  /** A power loss has put effects in doubt that only a comparison can prove right. */
  replayDoubt(handle: number): boolean
  /** Writes out deferred times and syncs; `finish` also removes the state directory. */
  closeReplay(handle: number, finish: boolean): ReplayPosition
}
