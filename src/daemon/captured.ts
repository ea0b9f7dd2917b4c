/**
 * What a volume has captured, as its replicas are measured by it: the last seq, the bytes, when it
 * was, and how far a scan is. The bytes before this process began are those of the journal.
 */
import { TIMELINE_STEP_MS } from '../lib/limits.js'
import { native, type VolumeStats } from '../lib/native.js'
import { type Behind, Timeline } from '../replication/timeline.js'
import type { ScanWork } from './baseline-progress.js'

/** Where the journal begins and ends, before anything is captured. Clocks in ns. */
export interface JournalBefore {
  usedBytes: number
  firstSeq: bigint
  lastSeq: bigint
  firstClock: bigint
  lastClock: bigint
}

/** What replicas are measured by: a volume's captured journal, or what a replica knows of it. */
export type CapturedView = Pick<Captured, 'seq' | 'bytes' | 'behind' | 'seqAt' | 'note' | 'scan'>

export class Captured {
  readonly #handle: number
  #timeline = new Timeline()
  #notedAt = 0

  constructor(handle: number) {
    this.#handle = handle
  }

  /** Once, when the journal is open. */
  begin({ usedBytes, firstSeq, lastSeq, firstClock, lastClock }: JournalBefore): void {
    if (lastSeq === 0n || firstSeq === 0n) return
    const ms = (ns: bigint) => Number(ns / 1_000_000n)
    this.#timeline = new Timeline([
      { seq: firstSeq - 1n, bytes: -usedBytes, at: ms(firstClock) },
      { seq: lastSeq, bytes: 0, at: ms(lastClock) },
    ])
    this.#notedAt = 0
  }

  seq(): bigint {
    return this.#stats.capturedSeq
  }

  /** Of all records captured by this process. */
  bytes(): number {
    return Number(this.#stats.capturedBytes)
  }

  scan(): ScanWork {
    const stats = this.#stats
    const total = stats.scanCounted
      ? { objects: Number(stats.scanTotalObjects), bytes: Number(stats.scanTotalBytes) }
      : null
    return { objects: Number(stats.scanObjects), bytes: Number(stats.scanBytes), total }
  }

  /** Takes note of what there is now. Cheap: most calls of a busy moment do nothing. */
  note(): void {
    const at = Date.now()
    if (at - this.#notedAt < TIMELINE_STEP_MS) return
    this.#notedAt = at
    const { capturedSeq, capturedBytes } = this.#stats
    this.#timeline.note({ seq: capturedSeq, bytes: Number(capturedBytes), at })
  }

  /** What was captured after `position`: its bytes, and the age of the oldest of it. */
  behind(position: bigint): Behind {
    this.note()
    return this.#timeline.behind(position, Date.now())
  }

  /** Last seq captured at that time (ms since the epoch), as far as is known. */
  seqAt(at: number): bigint {
    return this.#timeline.seqAt(at)
  }

  get #stats(): VolumeStats {
    return native.volumeStats(this.#handle)
  }
}
