/**
 * The one file that loads the native data plane (`native-bindings/`).
 *
 * Everything between a system call and its reply happens in Rust; this contract is what the control
 * plane sees of it. Volumes are addressed by a small integer handle so that any thread of the
 * process (the drain is a worker thread) can call the same volume.
 *
 * Invariant: no function here is called by a request of the mounted file system; calling one never
 * touches the daemon's own mount.
 */
import { createRequire } from 'node:module'
import { HoldfastError } from './errors.js'
import type { HistoryOptions, NativeHistory } from './native-history.js'
import type { NativeLinkClass } from './native-link.js'
import type { NativeReplay } from './native-replay.js'
import type { NativeTreeBatch, NativeTreeOptions } from './native-tree.js'

/** A journal frame taken from the capture ring: see docs/FORMAT.md. */
export interface Frame {
  /** seq of the first record in the frame */
  readonly firstSeq: bigint
  /** seq of the last record in the frame */
  readonly lastSeq: bigint
  /** The frame, header and body, exactly as it is journaled and shipped. Valid until the next `takeFrames()`. */
  readonly bytes: Buffer
}

export interface OpenVolumeOptions {
  /** 16 bytes, the identity of the volume. */
  uuid: Buffer
  name: string
  /** Backing directory, a path in bytes. */
  backing: Buffer
  /** Where the volume appears, a path in bytes; the same as `backing` for in-place protection. */
  mountpoint: Buffer
  /** File of the capture ring, on tmpfs. Created and fully allocated when missing. */
  ringPath: string
  /** Size of the capture ring in bytes (all arenas together). */
  ringBytes: number
  epoch: number
  /** seq of the last journaled record; 0 for an empty journal. */
  lastSeq: bigint
  /** Chain value of the last journaled frame (8 bytes); 8 zero bytes for an empty journal. */
  lastChain: Buffer
  /** Clock of the last journaled record (frame header); 0 for an empty journal. */
  lastClock: bigint
  /** Kernel write-back caching (opt-in, see SEMANTICS). */
  writeback: boolean
  /** Number of request threads; 0 lets the data plane choose. */
  workers: number
  /** How long a writer may wait for ring space before it gets ENOSPC, in milliseconds. */
  ringWaitMs: number
  /** false when the backing directory may change behind the mount: bounded cache lifetimes. */
  exclusive: boolean
  /** How requests travel: over io_uring where the kernel has it (`auto`), or by /dev/fuse alone. */
  transport?: 'auto' | 'device'
  /** What things were before they changed; none: it is not kept. */
  history?: HistoryOptions
}

export interface OpenVolumeResult {
  handle: number
  /** What was found in the ring: nothing, a ring of a cleanly stopped volume, or one to recover. */
  ring: 'created' | 'clean' | 'recovered'
  /** Published records found in the ring that the journal does not have yet. */
  pendingRecords: number
  /** Operations that were in flight when the daemon died: their objects are re-captured. */
  intents: number
}

export interface TakeResult {
  frames: Frame[]
  /** An application waits in fsync: journal durably at once. */
  flushWanted: boolean
  /** The volume is stopped and the ring is empty: the drain may end. */
  stopped: boolean
}

/** A snapshot of the counters of one volume; all sizes in bytes, all times in nanoseconds. */
export interface VolumeStats {
  state: 'open' | 'mounted' | 'stopped'
  /** seq of the last captured record. */
  capturedSeq: bigint
  /** Highest seq known to be journaled durably. */
  journaledSeq: bigint
  /** Wall-clock time (ns since the epoch) of the last captured and the last journaled record. */
  capturedAt: bigint
  journaledAt: bigint
  /** Bytes of all records ever captured by this process, and of those journaled. */
  capturedBytes: bigint
  journaledBytes: bigint
  ringBytes: number
  ringUsedBytes: number
  /** Requests answered, mutations captured, operations that failed, since this process started. */
  requests: bigint
  mutations: bigint
  failures: bigint
  /** Writers that had to wait for ring space, and that were refused with ENOSPC. */
  ringWaits: bigint
  ringRefusals: bigint
  /** Objects in the inode table, descriptors in the cache. */
  inodes: number
  openDescriptors: number
  lastFsyncNs: bigint
  /** Re-capture (scan) progress; `scanning` false when none runs. */
  scanning: boolean
  scanObjects: bigint
  scanImaged: bigint
  scanBytes: bigint
  scanErrors: bigint
  /** What a baseline has before it, once it is counted. */
  scanCounted: boolean
  scanTotalObjects: bigint
  scanTotalBytes: bigint
  /** Requests by operation name. */
  ops: Record<string, number>
  /** I/O is on hold. */
  held: boolean
  /** The journal does not take frames (errno name), or null. */
  journalError: string | null
  /** Panics contained in a dummy function, since start: anything but 0 is a defect. */
  panics: number
  /** Effects of which not all could be captured, since start: each asks for a re-capture. */
  uncaptured: number
  /** Codes made valid by this process and still so; walks that computed them. */
  codes?: { valid: number; passes: number; running: boolean } | null
}

export interface CodeOptions {
  /** File of the codes; docs/FORMAT.md, section 6. */
  path: string
  /** 16 bytes. */
  uuid: Buffer
  /** Nobody can have changed a file since the last process with these codes has ended. */
  keep: boolean
  /** Between two walks that compute codes. */
  sweepPauseMs: number
}

export interface ScanOptions {
  /**
   * `recapture`: what may have changed. `baseline`: all, for a replica that has nothing. `verify`:
   * all, for replicas to compare with. `repair`: what a replica lacks.
   */
  kind: 'recapture' | 'baseline' | 'verify' | 'repair'
  /** Image objects whose change time is at or after this wall-clock time (ns); 0n images all. */
  changedSinceNs: bigint
  /**
   * These objects in any case, four words each: ino, gen, and the range of its data from, to. An
   * object without a range (from not below to) is imaged whole; one with several comes several times.
   */
  objects: BigUint64Array
  /**
   * Of a baseline: all `data`, or `codes` instead, for a tree that was the volume's before; `later`: of
   * large files none, which replicas ask for afterwards (`readFill`).
   */
  data: 'whole' | 'codes' | 'later'
  /** Most bytes read in a second; 0: no limit. */
  bytesPerS: number
}

/** Which requests wait for replicas; native-bindings/src/capture/acks.rs. */
export interface AckPolicy {
  /** Bits: 1 fsync, 2 rename, 4 close, 8 every operation. 0: nobody waits. */
  points: number
  /** Closes are asked about; once they were not, the kernel asks at the next mount only. */
  close: boolean
  /** Paths below the root, in bytes, with a leading slash; the rest is of class 0. */
  rules: { path: Buffer; class: number }[]
  classes: {
    /** 0 nobody waits, 1 requests wait, 2 they fail with EIO. */
    mode: number
    /** Longest wait of one request; it fails then if `refuseLate`. */
    waitMs: number
    refuseLate: boolean
    position: bigint
  }[]
}

export interface AckReport {
  /** Waits that ended by `waitMs`. */
  late: bigint
  /** The kernel does not ask about closes until the next mount. */
  closeRefused: boolean
}

export interface CutOptions {
  name: string
  maxHoldMs: number
  /** Path of the page where the volumes of a cut meet. */
  meeting?: Buffer
  gatherMs: number
  /** CLOCK_MONOTONIC, ns: I/O is held from then on, and not released before `untilNs`. */
  startNs?: bigint
  untilNs?: bigint
  /** False: the history does not keep what is there. */
  keep: boolean
}

/** Instants on CLOCK_MONOTONIC, ns. */
export interface CutResult {
  /** Of the marker. */
  seq: bigint
  closedNs: bigint
  restNs: bigint
  releaseNs: bigint
}

export interface HoldResult {
  /** CLOCK_MONOTONIC ns at which the gate was closed and all mutations in flight were done. */
  startNs: bigint
  /** seq at the hold: everything acknowledged before is ≤ this. */
  seq: bigint
  /** Ends it, and no other one. */
  hold: number
}

/** Functions of the native module; errors are thrown with a stable `code` (see lib/errors.ts). */
export interface Native extends NativeHistory, NativeReplay {
  openVolume(options: OpenVolumeOptions): OpenVolumeResult
  /** Attaches the FUSE mount and starts answering requests. */
  mountVolume(handle: number): void
  /**
   * Waits up to `waitMs` for records, or until `maxBytes` of them or an fsync waits, and returns
   * them as frames in seq order; once there is a record, up to `lingerMs` for further ones. Blocks
   * the calling thread: for the drain's worker only. The frames' bytes stay valid until the next call.
   */
  takeFrames(handle: number, maxBytes: number, waitMs: number, lingerMs: number): TakeResult
  /** Ends the wait of `takeFrames`, or of the next one. */
  callDrain(handle: number): void
  /** All frames up to `seq` are in the journal and outlive the process: trims the ring. */
  committed(handle: number, seq: bigint): void
  /** All frames up to `seq` are durable in the journal: wakes waiting fsyncs. */
  journaled(handle: number, seq: bigint): void
  /** Which requests wait for replicas, from now on. */
  setAckPolicy(handle: number, policy: AckPolicy): void
  /** Everything up to `seq` is where the class has to have it: whoever waits for that goes on. */
  acknowledged(handle: number, ackClass: number, seq: bigint): void
  /** Changes are slowed down, each by a bounded time, or not any more. */
  slowWriters(handle: number, on: boolean): void
  /** Changes are held for `maxMs` at most, by a watchdog in the data path; 0: not any more. */
  holdChanges(handle: number, maxMs: number): void
  /** For how long they will be held at most; 0: they are not. */
  changesHeldMs(handle: number): number
  ackReport(handle: number): AckReport
  /** The journal cannot take frames now (errno, e.g. 28): waiting fsyncs fail with it. 0 clears. */
  journalFailed(handle: number, errno: number): void
  volumeStats(handle: number): VolumeStats
  /** Closes the gate for at most `maxMs`; a watchdog in the data path opens it again. */
  hold(handle: number, maxMs: number): HoldResult
  /** Opens the gate. The ns it was held; HOLD_EXPIRED when the watchdog did it: it may be another's by now. */
  release(handle: number, hold: number): bigint
  /** Codes are kept and computed in the background from now on. Idempotent; before the mount or after. */
  openCodes(handle: number, options: CodeOptions): void
  /** Some replica may hold other bytes than the volume: records do not refer to bytes meanwhile. */
  setDiffering(handle: number, differing: boolean): void
  /**
   * Holds I/O together with the other volumes that join the meeting, marks the instant, releases. Blocks
   * for `gatherMs + maxHoldMs` at most. HOLD_TIMEOUT, HOLD_EXPIRED, CUT_LATE, CUT_OTHERS.
   */
  takeCut(handle: number, options: CutOptions): CutResult
  /** Has the dirty pages of a file's mappings written. Not for the daemon of its volume. */
  writeOut(path: Buffer): void
  /** Adds a marker record; returns its seq. */
  marker(handle: number, name: string): bigint
  /** Starts a re-capture in the background; see volumeStats().scan*. */
  startScan(handle: number, options: ScanOptions): void
  /** Whether an object (ino, gen) is among those that fills can be read of. */
  canFill(handle: number, object: BigUint64Array): boolean
  /**
   * Reads the beginning of a range (ino, gen, from, to) as the body of a `fill` message (64 bytes, then
   * data), and gives its length. EIO and the like: the file cannot be read.
   */
  readFill(handle: number, range: BigUint64Array, into: Buffer): Promise<number>
  /**
   * Captures those of these paths (relative to the volume root, bytes) that others have changed, and
   * drops caches; returns how many. Names that are gone count only with `settled`.
   */
  recapturePaths(handle: number, paths: Buffer[], settled: boolean): number
  /** Unmounts (lazily when `force`), ends the request threads. The ring stays until it is drained. */
  unmountVolume(handle: number, force: boolean): void
  /** Frees the volume; removes the ring file when everything was journaled. */
  closeVolume(handle: number): void
  /** syncfs(2) on the backing file system. */
  syncBacking(handle: number): void

  /** Starts comparing two trees, or making one what the other is; returns the job's number. */
  startTree(options: NativeTreeOptions): number
  /** What a job has found since the last call; one call at a time. */
  nextTree(handle: number): Promise<NativeTreeBatch>
  /** A job ends soon; it is read to its end all the same. */
  cancelTree(handle: number): void
  /** Forgets a job; one that has not ended is cancelled. */
  closeTree(handle: number): void

  /** TLS over a connected socket: src/replication/link.ts. */
  Link: NativeLinkClass

  /** Writes a file out and drops it from the page cache, in a thread of its own, when kicked. */
  WriteBehind: new (
    path: string,
  ) => { kick(): void }

  /** Locks a file, made where there is none: a descriptor to close, or null when somebody else has it. */
  lockFile(path: string): number | null
  /** Drops from the page cache what this process has read of a file through its map, if it is on disk. */
  forgetRead(path: string): void
  /** Up to so much freed memory stays with this process, for each thread that allocates much. */
  keepHeap(bytes: number): void
  /** What `checkFrame` of record/frame.ts finds good, without saying what is wrong with the others. */
  frameIsSound(bytes: Buffer): boolean
  /** Crc32c of a buffer continued from `seed` (0 to start). */
  crc32c(bytes: Buffer, seed: number): number
}

/** Where a frame stands in the ring's memory: what the module really returns. */
interface FrameSpan {
  firstSeq: bigint
  lastSeq: bigint
  offset: number
  length: number
}

/** The module as built; `takeFrames` is put together here from two of its functions. */
interface NativeModule extends Native {
  /** `crc32c` under the name that napi-rs gives it. */
  crc32C: Native['crc32c']
  /** The memory of the ring and its frame pool. Once per thread: one memory, one owner. */
  ringBuffer(handle: number): Buffer
  takeSpans(
    handle: number,
    maxBytes: number,
    waitMs: number,
    lingerMs: number,
  ): { frames: FrameSpan[]; flushWanted: boolean; stopped: boolean }
}

/** native-bindings/holdfast.node of the package this file belongs to. */
const MODULE_PATH = '../../../native-bindings/holdfast.node'

let loaded: Native | undefined

/** Loaded at first use: reading a journal or `--help` needs no data plane. NATIVE_MISSING. */
function load(): Native {
  if (loaded !== undefined) return loaded
  const require = createRequire(import.meta.url)
  let built: NativeModule
  try {
    built = require(MODULE_PATH) as NativeModule
  } catch (cause) {
    throw new HoldfastError('NATIVE_MISSING', 'the data plane is not built or does not load', {
      op: 'native.load',
      cause,
      hint: 'Build it: npm run build',
    })
  }
  const rings = new Map<number, Buffer>()
  const takeFrames: Native['takeFrames'] = (handle, maxBytes, waitMs, lingerMs) => {
    const ring = rings.get(handle) ?? built.ringBuffer(handle)
    rings.set(handle, ring)
    const { frames, flushWanted, stopped } = built.takeSpans(handle, maxBytes, waitMs, lingerMs)
    const withBytes = frames.map(({ firstSeq, lastSeq, offset, length }) => ({
      firstSeq,
      lastSeq,
      bytes: ring.subarray(offset, offset + length),
    }))
    return { frames: withBytes, flushWanted, stopped }
  }
  loaded = { ...built, takeFrames, crc32c: built.crc32C }
  return loaded
}

export const native: Native = new Proxy({} as Native, {
  get: (_target, name) => load()[name as keyof Native],
})
