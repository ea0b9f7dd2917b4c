/**
 * Two directory trees: what differs, and making one what the other is. The work is the data plane's
 * (native-bindings/src/tree); here it becomes an iterator and a promise that can be aborted.
 */
import { HoldfastError } from './errors.js'
import { native } from './native.js'
import type { ChangedObjects } from './native-history.js'
import type { NativeTreeBatch, NativeTreeFailure, NativeTreeProgress } from './native-tree.js'
import { printable } from './printable.js'

export type ChangeKind = 'deleted' | 'created' | 'renamed' | 'changed' | 'metadata'
export type ObjectKind =
  | 'file'
  | 'directory'
  | 'symlink'
  | 'fifo'
  | 'socket'
  | 'character-device'
  | 'block-device'

/** One difference. Paths are bytes, relative to the roots, without a leading slash. */
export interface TreeChange {
  kind: ChangeKind
  path: Buffer
  /** Of what was renamed: its path before. */
  from?: Buffer
  object: ObjectKind
  /** Which parts: `data`, `size`, `mode`, `owner`, `mtime`, `xattrs`, … */
  what: string[]
  size: bigint
  mtimeNs: bigint
  /** Bytes that differ, in blocks of 4 KiB, where they were asked for: from, to. */
  ranges: [bigint, bigint][]
  /** Created: a further name of an object that has another. */
  linked: boolean
}

export type TreeFailure = NativeTreeFailure
export type TreeProgress = NativeTreeProgress

export interface TreePair {
  /** The older tree, or the one that is changed. */
  a: Buffer
  /** The newer tree, or the one that is wanted. */
  b: Buffer
  /** A path below both roots; default: everything. */
  scope?: Buffer
  /** Both are of one volume: the same inode number is the same object. Default: false. */
  identity?: boolean
  /** Nothing is taken as equal because of inode numbers and times. Default: false. */
  thorough?: boolean
  /** What can differ, where that is known; needs `identity`. Default: anything. */
  changed?: ChangedObjects | undefined
}

export interface WatchOptions {
  signal?: AbortSignal | undefined
  onProgress?: ((progress: TreeProgress) => void) | undefined
}

export interface CompareOptions extends TreePair, WatchOptions {
  /** Tell which bytes differ. Default: false. */
  ranges?: boolean
}

export interface RestoreTreeOptions extends TreePair, WatchOptions {
  /** Side A is a new copy that nobody uses; what is complete in it by size and time is left. */
  copy?: boolean
  onFailure?: ((failure: TreeFailure) => void) | undefined
}

/** By S_IFMT. */
const OBJECTS: ReadonlyMap<number, ObjectKind> = new Map([
  [0o100000, 'file'],
  [0o040000, 'directory'],
  [0o120000, 'symlink'],
  [0o010000, 'fifo'],
  [0o140000, 'socket'],
  [0o020000, 'character-device'],
  [0o060000, 'block-device'],
])

/** The differences in the order of paths, a directory before what is in it. ABORTED, TREE_READ. */
export async function* compareTrees(options: CompareOptions): AsyncGenerator<TreeChange> {
  const { ranges = false, ...rest } = options
  const job = { ranges, restore: false, private: false, quick: false }
  for await (const batch of batches(job, rest)) {
    for (const { object, ranges: pairs, ...change } of batch.changes) {
      yield { ...change, object: OBJECTS.get(object) ?? 'file', ranges: paired(pairs) }
    }
    const { outcome } = batch
    if (outcome?.stopped !== undefined) throw stopped('compare', outcome.stopped)
  }
}

/**
 * Makes tree `a` what tree `b` is; returns how many things were left undone, each of which `onFailure`
 * was told. Begun again after a kill, it ends with the same tree. ABORTED, RESTORE_FAILED.
 */
export async function restoreTree(options: RestoreTreeOptions): Promise<number> {
  const { copy = false, onFailure, ...rest } = options
  const job = { ranges: false, restore: true, private: copy, quick: copy }
  for await (const { failures, outcome } of batches(job, rest)) {
    for (const failure of failures) onFailure?.(failure)
    if (outcome?.stopped !== undefined) throw stopped('restore', outcome.stopped)
    if (outcome !== undefined) return outcome.failures
  }
  return 0
}

type Job = Pick<Parameters<typeof native.startTree>[0], 'ranges' | 'restore' | 'private' | 'quick'>

/** Runs a job to its end, or to the end of its reader. */
async function* batches(
  job: Job,
  options: TreePair & WatchOptions,
): AsyncGenerator<NativeTreeBatch> {
  const { a, b, scope, identity = false, thorough = false, changed, signal, onProgress } = options
  const { objects: only, directories: within } = changed ?? {}
  const handle = native.startTree({
    ...job,
    ...{ a, b, scope: componentsOf(scope), identity, thorough },
    ...(only === undefined ? {} : { only }),
    ...(within === undefined ? {} : { within }),
  })
  const cancel = () => native.cancelTree(handle)
  signal?.addEventListener('abort', cancel)
  if (signal?.aborted === true) cancel()
  try {
    for (;;) {
      const batch = await native.nextTree(handle)
      onProgress?.(batch.progress)
      yield batch
      if (batch.outcome !== undefined) return
    }
  } finally {
    signal?.removeEventListener('abort', cancel)
    native.closeTree(handle)
  }
}

/** The components of a relative path. */
function componentsOf(path: Buffer | undefined): Buffer[] {
  const parts: Buffer[] = []
  for (let rest = path ?? Buffer.alloc(0); rest.length > 0; ) {
    const at = rest.indexOf('/')
    const end = at < 0 ? rest.length : at
    if (end > 0) parts.push(rest.subarray(0, end))
    rest = rest.subarray(end + 1)
  }
  return parts
}

function paired(flat: BigUint64Array): [bigint, bigint][] {
  const pairs: [bigint, bigint][] = []
  for (let at = 0; at + 1 < flat.length; at += 2) pairs.push([flat[at] ?? 0n, flat[at + 1] ?? 0n])
  return pairs
}

function stopped(op: 'compare' | 'restore', failure: TreeFailure): HoldfastError {
  const { path, code, message } = failure
  if (code === 'ECANCELED') {
    return new HoldfastError('ABORTED', `the ${op} was stopped before its end`, {
      op,
      hint: op === 'restore' ? 'The same command again goes on where it was.' : undefined,
    })
  }
  const where = path.length === 0 ? '' : `${printable(path)}: `
  return new HoldfastError(
    op === 'compare' ? 'TREE_READ' : 'RESTORE_FAILED',
    `${where}${message}`,
    {
      op,
      details: { errno: code, path: path.toString('base64') },
      hint:
        op === 'restore'
          ? 'Everything from there on is undone. Remove the cause; the same command again goes on.'
          : undefined,
    },
  )
}
