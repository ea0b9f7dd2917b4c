/**
 * Reads a journal as an unbelieving reader: every checksum, the chain, the order, the volume.
 * Runs in a process of its own (`verifyJournal`), because a damaged LMDB file may end its reader
 * with a signal: pages are read through a memory map.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { programUrl } from '../lib/code.js'
import { type ErrorCode, HoldfastError, toHoldfastError } from '../lib/errors.js'
import {
  checkFrame,
  checkSuccession,
  type FrameView,
  formatUuid,
  JOURNAL_START,
  type JournalEnd,
} from '../record/frame.js'
import type { Journal } from './store.js'

/** Problems listed in full; further ones are counted. */
const PROBLEMS_LISTED_MAX = 20
/** Bytes between two progress messages. */
const PROGRESS_BYTES = 16 * 1024 * 1024

/** One violation, with its place. */
export interface Problem {
  code: ErrorCode
  message: string
  /** First seq of the frame, from its key; null when it concerns the file. */
  frame: string | null
  /** Offset in the frame of what is wrong; null when it has none. */
  byte: number | null
}

export interface VerifyReport {
  volume: string
  frames: number
  records: number
  bytes: number
  firstSeq: string
  lastSeq: string
  /** seqs that no record has: operations that a crash interrupted. No damage. */
  missingSeqs: number
  problems: Problem[]
  /** Problems found, listed or not. */
  problemCount: number
}

export type VerifyProgress = (bytes: number, seq: bigint) => void

/** Verifies in this process. Prefer `verifyJournal`. */
export function verifyFrames(journal: Journal, progress?: VerifyProgress): VerifyReport {
  const meta = journal.meta()
  const report: VerifyReport = {
    volume: formatUuid(meta.uuid),
    frames: 0,
    records: 0,
    bytes: 0,
    firstSeq: '0',
    lastSeq: '0',
    missingSeqs: 0,
    problems: [],
    problemCount: 0,
  }
  let end: JournalEnd = meta.horizon ?? JOURNAL_START
  let reported = 0
  for (const { key, bytes } of journal.rawFrames()) {
    const seq = key.length === 8 ? key.readBigUInt64BE() : 0n
    try {
      const frame = checkFrame(bytes)
      checkKey(key, frame)
      if (report.frames === 0) report.firstSeq = `${frame.firstSeq}`
      const expected = end
      end = { lastSeq: frame.lastSeq, chain: Buffer.from(frame.chain) }
      report.records += frame.recordCount
      report.missingSeqs += Number(frame.lastSeq - frame.firstSeq) + 1 - frame.recordCount
      report.lastSeq = `${frame.lastSeq}`
      checkSuccession(frame, meta.uuid, expected)
    } catch (error) {
      addProblem(report, toProblem(error, seq))
      end = claimedEnd(bytes) ?? end
    }
    report.frames += 1
    report.bytes += bytes.length
    if (report.bytes - reported >= PROGRESS_BYTES) {
      reported = report.bytes
      progress?.(report.bytes, seq)
    }
  }
  return report
}

function checkKey(key: Buffer, frame: FrameView): void {
  if (key.length === 8 && key.readBigUInt64BE() === frame.firstSeq) return
  const message = `frame of seq ${frame.firstSeq} is stored under key ${key.toString('hex')}`
  throw new HoldfastError('FRAME_KEY', message, { op: 'journal.verify' })
}

/** What a damaged frame's header claims, so that its successor is not blamed too. */
function claimedEnd(bytes: Buffer): JournalEnd | undefined {
  if (bytes.length < 80) return undefined
  return { lastSeq: bytes.readBigUInt64LE(40), chain: Buffer.from(bytes.subarray(72, 80)) }
}

function toProblem(error: unknown, seq: bigint): Problem {
  const { code, message, details } = toHoldfastError(error, 'journal.verify')
  const byte = typeof details?.byte === 'number' ? details.byte : null
  return { code, message, frame: `${seq}`, byte }
}

function addProblem(report: VerifyReport, problem: Problem): void {
  report.problemCount += 1
  if (report.problems.length < PROBLEMS_LISTED_MAX) report.problems.push(problem)
}

/** What the child sends. */
export type VerifyMessage =
  | { kind: 'progress'; bytes: number; seq: string }
  | { kind: 'report'; report: VerifyReport }
  | { kind: 'error'; error: ReturnType<HoldfastError['toJSON']> }

export interface VerifyOptions {
  path: string
  /** UUID of the volume that the journal must be of, as text; without it, any. */
  volume?: string | undefined
  progress?: VerifyProgress | undefined
  signal?: AbortSignal | undefined
}

/**
 * Verifies the journal at `path` in a child process. Damage is in the report; an error is thrown
 * only when there is nothing to verify (JOURNAL_MISSING, UNKNOWN_FORMAT, …) or on abort.
 */
export async function verifyJournal(options: VerifyOptions): Promise<VerifyReport> {
  const { path, signal } = options
  const script = fileURLToPath(programUrl('journal/verify-child'))
  const child = fork(script, [path], { stdio: ['ignore', 'ignore', 'ignore', 'ipc'], execArgv: [] })
  const abort = () => child.kill('SIGKILL')
  signal?.addEventListener('abort', abort, { once: true })
  if (signal?.aborted === true) abort()
  try {
    const report = await collect(child, options)
    requireVolume(report, options)
    return report
  } finally {
    signal?.removeEventListener('abort', abort)
  }
}

function requireVolume(report: VerifyReport, { path, volume }: VerifyOptions): void {
  if (volume === undefined || report.volume === '' || report.volume === volume) return
  const message = `${path} is the journal of volume ${report.volume}, not of ${volume}`
  throw new HoldfastError('FOREIGN_JOURNAL', message, {
    op: 'journal.verify',
    hint: 'Put back the journal of this volume.',
  })
}

async function collect(child: ChildProcess, options: VerifyOptions): Promise<VerifyReport> {
  const { path, progress, signal } = options
  let last = { bytes: 0, seq: '0' }
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('message', (message: VerifyMessage) => {
      if (message.kind === 'progress') {
        last = message
        progress?.(message.bytes, BigInt(message.seq))
      } else if (message.kind === 'report') resolve(withFileCheck(message.report, path))
      else if (message.error.code === 'JOURNAL_UNREADABLE') {
        resolve(unreadable(path, last, message.error.message))
      } else reject(HoldfastError.from(message.error))
    })
    // After a report or an error this changes nothing: the promise is settled.
    child.on('exit', (code, by) => {
      if (signal?.aborted === true) {
        reject(new HoldfastError('ABORTED', 'verification was stopped', { op: 'journal.verify' }))
      } else resolve(unreadable(path, last, `the reader was ended by ${by ?? `exit code ${code}`}`))
    })
  })
}

/** A file shorter than LMDB's own account of it lost its end, whatever could still be read. */
function withFileCheck(report: VerifyReport, path: string): VerifyReport {
  const missing = missingFileBytes(path)
  // A few pages may be missing in a healthy file: allocated, freed and never written.
  if (missing > 0 && report.problemCount > 0) report.problems.unshift(truncated(path, missing))
  return report
}

function unreadable(path: string, last: { bytes: number; seq: string }, why: string): VerifyReport {
  const missing = missingFileBytes(path)
  const problem: Problem =
    missing > 0
      ? truncated(path, missing)
      : {
          code: 'JOURNAL_UNREADABLE',
          message: `the LMDB file cannot be read after seq ${last.seq}: ${why}`,
          frame: null,
          byte: null,
        }
  return {
    volume: '',
    frames: 0,
    records: 0,
    bytes: last.bytes,
    firstSeq: '0',
    lastSeq: last.seq,
    missingSeqs: 0,
    problems: [problem],
    problemCount: 1,
  }
}

function truncated(path: string, missing: number): Problem {
  const message = `${join(path, 'data.mdb')} was cut: its last ${missing} bytes are missing`
  return { code: 'JOURNAL_TRUNCATED', message, frame: null, byte: null }
}

/**
 * Refuses a journal whose file lost its end, by what verification finds: reading it would end this
 * process with a signal. Costs nothing when the file is as long as it says.
 */
export async function requireReadable(path: string): Promise<void> {
  if (missingFileBytes(path) === 0) return
  const { problems } = await verifyJournal({ path })
  const [first] = problems
  if (first === undefined) return
  throw new HoldfastError(first.code, first.message, {
    op: 'journal.open',
    hint: 'Put back a whole journal, or move it away: the tree itself is not touched.',
  })
}

/** Layout of an LMDB meta page as lmdb 3.5 writes it (mdb.c, MDB_page and MDB_meta). */
const LmdbMeta = { magic: 24, pageSize: 48, lastPage: 144, txn: 152, bytes: 168 } as const
const LMDB_MAGIC = 0xbeefc0de

/** How many bytes data.mdb lacks of what its meta page says it has; 0 when it is whole or unknown. */
export function missingFileBytes(path: string): number {
  let fd: number
  try {
    fd = openSync(join(path, 'data.mdb'), 'r')
  } catch {
    return 0
  }
  try {
    const { size } = fstatSync(fd)
    const first = readMeta(fd, 0)
    if (first === undefined) return 0
    const second = readMeta(fd, first.pageSize)
    const newest = second !== undefined && second.txn > first.txn ? second : first
    return Math.max(0, Number(newest.lastPage + 1n) * newest.pageSize - size)
  } finally {
    closeSync(fd)
  }
}

function readMeta(fd: number, at: number) {
  const page = Buffer.alloc(LmdbMeta.bytes)
  if (readSync(fd, page, 0, page.length, at) < page.length) return undefined
  if (page.readUInt32LE(LmdbMeta.magic) !== LMDB_MAGIC) return undefined
  return {
    pageSize: page.readUInt32LE(LmdbMeta.pageSize),
    lastPage: page.readBigUInt64LE(LmdbMeta.lastPage),
    txn: page.readBigUInt64LE(LmdbMeta.txn),
  }
}
