/** What the data plane keeps of the past of a volume, as `native.ts` tells it. */

export interface HistoryOptions {
  /** Directory of the history; made when missing. */
  path: string
  /** The first change of everything after each snapshot, or every change. */
  mode: 'snapshots' | 'continuous'
  /** When it finds no room: the oldest moments go (`drop`), or changes are refused (`refuse`). */
  full: 'drop' | 'refuse'
  bytesMax: number
}

/** `target` is relative to `beneath`: reached past all that is mounted in it. */
export interface ReplicaHistoryOptions {
  history: HistoryOptions
  uuid: Buffer
  beneath: Buffer
  target: Buffer
}

export interface HistoryState {
  /** Moments from this seq on can be looked at. */
  floor: bigint
  /** seq of the newest snapshot; 0: none. */
  point: bigint
  bytes: number
  /** Before-images that found no room, since start. */
  lost: number
  /** Moments before this seq may lack what was not written when the machine went down; 0: none. */
  powerLostBefore: bigint
  /** Views that are mounted. */
  views: number
}

/** Attributes of one version of an object. */
export interface VersionAttributes {
  ino: bigint
  size: number
  mode: number
  uid: number
  gid: number
  mtimeNs: bigint
}

/** A change of an object, and what it was before. */
export interface VersionChange {
  seq: bigint
  timeMs: number
  op: string
  uid: number
  gid: number
  pid: number
  command: string
  before?: VersionAttributes
}

/** One object that a path led to. */
export interface PathObject {
  ino: bigint
  /** The change that ended it under this name; none: it is there. */
  ended?: VersionChange
  /** Those that are kept, oldest first. */
  changes: VersionChange[]
  now?: VersionAttributes
}

/** A moment that its primary has named, on a replica. */
export interface NamedPoint {
  name: Buffer
  seq: bigint
  timeMs: number
}

/** What can differ between two moments, as inode numbers. */
export interface ChangedObjects {
  objects: BigUint64Array
  /** What has to be looked into; undefined: any directory. */
  directories?: BigUint64Array | undefined
}

export interface SeqAtTime {
  seq?: bigint
  /** Time of the oldest change that is kept, ms since the epoch. */
  oldestMs?: number
}

/** The part of the data plane that keeps the past; handles are those of volumes. */
export interface NativeHistory {
  /** What the volume keeps of its past; null: nothing. */
  historyState(handle: number): HistoryState | null
  /** Moments from this seq on are kept in a directory, in use or not; null: it has no history. */
  historyFloor(path: string): bigint | null
  /** Snapshots there are (`newest` 0: none), and the oldest seq from which everything is to be kept. */
  setHistoryWanted(handle: number, newest: bigint, oldest: bigint): void
  /** The last change at a time (ms since the epoch), and the time of the oldest one that is kept. */
  historySeqAt(handle: number, ms: number): SeqAtTime
  /** Mounts a read-only view of the volume as of a seq; returns its number. HISTORY_RANGE. */
  mountView(handle: number, seq: bigint, mountpoint: Buffer, source: string): number
  /** EBUSY while it is in use, unless `lazy`. */
  unmountView(handle: number, id: number, lazy: boolean): void
  /** What a path (relative, bytes) led to, newest first; its directory is looked for as of `seq`. */
  historyOfPath(handle: number, path: Buffer, seq: bigint): PathObject[]
  /** Moments with names that can be looked at, oldest first; on replicas. */
  historyPoints(handle: number): NamedPoint[]
  /** What can differ between two moments (none: now); null when the history cannot tell. */
  historyChanged(handle: number, after: bigint, upTo?: bigint): ChangedObjects | null

  /** The history of a replica; a handle for all that is asked of the history of a volume. */
  openReplicaHistory(options: ReplicaHistoryOptions): number
  /** Ends its views, and it; its replay has to be closed before. */
  closeReplicaHistory(handle: number): void
}
