/**
 * The LMDB environment below a journal: how it is opened, counted, and how its errors are named.
 * The one file that imports `lmdb`.
 */
import { statfsSync } from 'node:fs'
import { type Database, open, type RootDatabase } from 'lmdb'
import { errnoOf, HoldfastError } from '../lib/errors.js'
import { JOURNAL_MAP_BYTES } from '../lib/limits.js'

export type Environment = RootDatabase<Buffer, Buffer>
export type Table = Database<Buffer, Buffer>

/** LMDB says EIO for a short write; below this much free space it means a full file system. */
const FULL_BYTES = 1024 * 1024

export interface PageStats {
  pageSize: number
  treeBranchPageCount: number
  treeLeafPageCount: number
  overflowPages: number
  entryCount: number
}

export function pageCount(stats: PageStats): number {
  return stats.treeBranchPageCount + stats.treeLeafPageCount + stats.overflowPages
}

export function openEnvironment(path: string, readOnly: boolean): Environment {
  const options = {
    path,
    readOnly,
    // Without this a directory with a dot in its name is taken for a file.
    noSubdir: false,
    maxDbs: 8,
    mapSize: JOURNAL_MAP_BYTES,
    overlappingSync: false,
    noSync: true,
    // Replicas are fed from here, in order, with frames that have left the page cache: without it
    // every 4 KiB page would be a read of its own. One process has one map, whoever opens it first.
    noReadAhead: false,
    noMemInit: true,
    keyEncoding: 'binary',
    encoding: 'binary',
    cache: false,
    compression: false,
  } as const
  return open<Buffer, Buffer>(options)
}

function numericCode(error: unknown): number | undefined {
  if (typeof error === 'object' && error !== null && 'code' in error) {
    return typeof error.code === 'number' ? error.code : undefined
  }
  return undefined
}

export function text(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

/** JOURNAL_FULL or JOURNAL_WRITE. */
export function writeError(path: string, cause: unknown): HoldfastError {
  if (errnoOf(cause) === 'ENOSPC' || numericCode(cause) === 28 || isFull(path)) {
    return fullError(path, cause)
  }
  const message = `cannot write the journal at ${path}: ${text(cause)}`
  return new HoldfastError('JOURNAL_WRITE', message, { op: 'journal.append', cause })
}

export function fullError(path: string, cause: unknown): HoldfastError {
  return new HoldfastError('JOURNAL_FULL', `no space for the journal at ${path}`, {
    op: 'journal.append',
    cause,
    hint: 'Free space there, or shorten retention: holdfast journal prune.',
  })
}

/**
 * Throws JOURNAL_FULL where `bytes` and `spare` do not fit. A transaction that is too large for the
 * disk can damage the memory of the process, not only fail (lmdb 3.5: an error while it spills pages).
 */
export function requireSpace(
  path: string,
  { bytes, spare }: { bytes: number; spare: number },
): void {
  const { bavail, bsize } = statfsSync(path)
  if (bavail * bsize < bytes + spare) throw fullError(path, undefined)
}

/** LMDB reports a short write as EIO: the file system tells whether it is full. */
function isFull(path: string): boolean {
  try {
    const { bavail, bsize } = statfsSync(path)
    return bavail * bsize < FULL_BYTES
  } catch {
    return false
  }
}
