/** Comparing and restoring trees, as the data plane does it: jobs that are read in batches. */

export interface NativeTreeOptions {
  /** The older tree, or the one that is changed. */
  a: Buffer
  /** The newer tree, or the one that is wanted. */
  b: Buffer
  /** Components of the path below the roots that is looked at; empty: everything. */
  scope: Buffer[]
  /** Inode numbers of both trees are of one volume: the same number is the same object. */
  identity: boolean
  /** Nothing is taken as equal because of its inode number and times. */
  thorough: boolean
  /** Without identity: files of equal size and mtime hold equal data. */
  quick: boolean
  ranges: boolean
  /** Only objects with these inode numbers can differ. */
  only?: BigUint64Array
  /** Only these directories lead to what can differ, or to names that can; needs `only`. */
  within?: BigUint64Array
  restore: boolean
  /** Nobody reads side A meanwhile. */
  private: boolean
}

export interface NativeTreeChange {
  kind: 'deleted' | 'created' | 'renamed' | 'changed' | 'metadata'
  /** Relative, without a leading slash; empty for the root. */
  path: Buffer
  from?: Buffer
  /** S_IFMT. */
  object: number
  what: string[]
  size: bigint
  mtimeNs: bigint
  /** Pairs: from, to. */
  ranges: BigUint64Array
  linked: boolean
}

export interface NativeTreeFailure {
  path: Buffer
  /** errno name. */
  code: string
  message: string
}

export interface NativeTreeProgress {
  /** Names looked at. */
  seen: number
  /** Objects made equal, of those that are to be. */
  done: number
  total: number
  bytes: number
  totalBytes: number
}

export interface NativeTreeBatch {
  changes: NativeTreeChange[]
  failures: NativeTreeFailure[]
  progress: NativeTreeProgress
  /** The job has ended, and everything was read. */
  outcome?: { stopped?: NativeTreeFailure; failures: number }
}
