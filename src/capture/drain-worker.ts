/**
 * The drain: takes frames from the capture ring and makes them durable in the journal. A worker
 * thread of the daemon, and the journal's only writer.
 *
 * Invariant: the ring forgets a record (`native.committed`) only when its transaction has returned:
 * then it outlives the process, as it did in the ring. Waiting fsyncs return (`native.journaled`)
 * only when it would outlive the machine; the flush log does that, and what it has may be committed
 * a little later, many small frames at once. Frames taken are never dropped: while the journal refuses
 * them (no space, I/O error) they are tried again, waiting fsyncs fail with that error, the ring
 * fills, and writers wait and at last get ENOSPC. Nothing is lost.
 *
 * The loop is synchronous; the mailbox is read between two takes.
 */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import { prune, type Retention } from '../journal/prune.js'
import { Journal } from '../journal/store.js'
import { type HoldfastError, toHoldfastError } from '../lib/errors.js'
import {
  COMMIT_BYTES_HELD_MAX,
  COMMIT_DELAY_MS,
  DRAIN_BATCH_BYTES_MAX,
  DRAIN_REPORT_MS,
  DRAIN_RETRY_MS,
  DRAIN_WAIT_MS,
  HEAP_KEPT_BYTES_MAX,
  PRUNE_INTERVAL_MS,
  SHIP_BUSY_BYTES_PER_MS,
  SHIP_LINGER_BUSY_MS,
  SHIP_LINGER_MS,
  SYNC_BYTES_MAX,
  SYNC_INTERVAL_MS,
  WRITE_BEHIND_BYTES,
} from '../lib/limits.js'
import { type Frame, native } from '../lib/native.js'
import type { DrainMessage, DrainOptions, DrainReport, DrainRequest } from './messages.js'

const ENOSPC = 28
const EIO = 5

const options = workerData as DrainOptions
const port = parentPort
if (port === null) throw new Error('the drain runs in a worker thread only')

const journal = openJournal()
const behind = new native.WriteBehind(journal.file)
const totals = { frames: 0, bytes: 0, commits: 0, lastCommitNs: 0 }
let retention: Retention = options.retention
let failure: HoldfastError | null = null
let abandoned = false
/** Frames taken and not committed yet, and when that has to happen. */
let held: Frame[] = []
let heldBytes = 0
let commitBy = 0
/** Bytes of the last take, and how long it has waited for further records. */
let takenBytes = 0
let lingerMs = SHIP_LINGER_MS
/** Everything up to this seq is to be committed and durable soon, although no fsync asks for it. */
let syncUpTo = 0n
let shipping = false
let nextReport = 0
let unwritten = 0
let committed = journal.end().lastSeq
let durable = committed
let nextSync = Date.now() + SYNC_INTERVAL_MS
let nextPrune = Date.now() + PRUNE_INTERVAL_MS

function post(message: DrainMessage): void {
  port?.postMessage(message)
}

/** The main thread gets the refusal; the exception ends this thread. */
function openJournal(): Journal {
  try {
    return Journal.open({ path: options.journalPath, uuid: Buffer.from(options.uuid) })
  } catch (error) {
    post({ kind: 'unopened', error: toHoldfastError(error, 'drain.open').toJSON() })
    throw error
  }
}

function report(): DrainReport {
  return {
    ...totals,
    failure: failure === null ? null : failure.toJSON(),
    journal: journal.stat(),
    meta: journal.meta(),
  }
}

function answer(request: DrainRequest) {
  switch (request.kind) {
    case 'updateMeta':
      return journal.updateMeta(request.change)
    case 'prune':
      return prune(journal, request.retention)
    case 'setRetention':
      retention = request.retention
      return report()
    case 'report':
      return report()
    case 'ship':
      shipping = request.on
      if (shipping) post({ kind: 'committed', seq: committed })
      return undefined
    case 'sync':
      syncUpTo = native.volumeStats(options.handle).capturedSeq
      return undefined
    case 'abandon':
      abandoned = true
      return undefined
    case 'close':
      void journal.close().then(() => port?.close())
      return undefined
  }
}

function serve(request: DrainRequest): void {
  const { id } = request
  try {
    commit()
  } catch {
    // The loop meets it again and reports it; what is asked for may be what makes room.
  }
  try {
    const result = answer(request)
    post({ kind: 'reply', id, ...(result === undefined ? {} : { result }) })
  } catch (error) {
    post({ kind: 'reply', id, error: toHoldfastError(error, `drain.${request.kind}`).toJSON() })
  }
}

function readMailbox(): void {
  for (;;) {
    const received = port === null ? undefined : receiveMessageOnPort(port)
    if (received === undefined) return
    serve(received.message as DrainRequest)
  }
}

function setFailure(error: HoldfastError | null): void {
  const changed = error?.message !== failure?.message
  failure = error
  native.journalFailed(
    options.handle,
    error === null ? 0 : error.code === 'JOURNAL_FULL' ? ENOSPC : EIO,
  )
  if (changed) post({ kind: 'failure', error: error === null ? null : error.toJSON() })
}

/** Does it until it succeeds, or until the main thread gives the ring up for now. */
function insist(write: () => void): boolean {
  for (;;) {
    try {
      write()
      if (failure !== null) setFailure(null)
      return true
    } catch (error) {
      setFailure(toHoldfastError(error, 'drain.append'))
    }
    readMailbox()
    if (abandoned) return false
    applyRetention()
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, DRAIN_RETRY_MS)
  }
}

/** Commits what is held, in one transaction; the ring may forget it then. */
function commit(): void {
  const last = held.at(-1)
  if (last === undefined) return
  const begun = process.hrtime.bigint()
  journal.append(held)
  totals.lastCommitNs = Number(process.hrtime.bigint() - begun)
  totals.commits += 1
  totals.frames += held.length
  totals.bytes += heldBytes
  unwritten += heldBytes
  held = []
  heldBytes = 0
  committed = last.lastSeq
  native.committed(options.handle, committed)
  if (shipping) post({ kind: 'committed', seq: committed })
  if (unwritten < WRITE_BEHIND_BYTES) return
  unwritten = 0
  behind.kick()
}

function hold(frames: readonly Frame[]): void {
  if (held.length === 0) commitBy = Date.now() + COMMIT_DELAY_MS
  held.push(...frames)
  for (const { bytes } of frames) heldBytes += bytes.length
}

/** The ring's memory for `frames`, the last ones held, is used again by the next take. */
function keep(frames: readonly Frame[]): void {
  const kept = frames.map((frame) => ({ ...frame, bytes: Buffer.from(frame.bytes) }))
  held.splice(held.length - kept.length, kept.length, ...kept)
}

/**
 * For a waiting fsync: makes `frames`, the last ones held, durable by the flush log; they may stay
 * held then. False: too many for it, or given up.
 */
function flushAhead(frames: readonly Frame[]): boolean {
  const last = frames.at(-1)
  if (last === undefined || syncUpTo > committed || heldBytes > COMMIT_BYTES_HELD_MAX) return false
  let flushed = false
  const done = insist(() => {
    // While it was refused, the mailbox may have had everything committed.
    flushed = held.length === 0 || journal.flushAhead(frames)
  })
  if (!done || !flushed || held.length === 0) return false
  becomeDurable(last.lastSeq)
  return true
}

function becomeDurable(seq: bigint): void {
  durable = seq
  native.journaled(options.handle, seq)
}

/** Makes what is committed durable: at once for an fsync, else in its own time. */
function makeDurable(wanted: boolean): boolean {
  if (committed <= durable) return true
  const due = Date.now() >= nextSync || journal.unflushedBytes >= SYNC_BYTES_MAX
  if (!wanted && !due) return true
  if (!insist(() => (due ? journal.sync() : journal.flush()))) return false
  if (due) nextSync = Date.now() + SYNC_INTERVAL_MS
  becomeDurable(committed)
  return true
}

function applyRetention(): void {
  if (Date.now() < nextPrune) return
  nextPrune = Date.now() + PRUNE_INTERVAL_MS
  if (retention.maxBytes === undefined && retention.maxAgeMs === undefined) return
  try {
    const result = prune(journal, retention)
    if (result.frames > 0) post({ kind: 'pruned', result })
  } catch (error) {
    // A full file system may refuse even this; the next append says so.
    if (failure === null) setFailure(toHoldfastError(error, 'drain.prune'))
  }
}

/**
 * For how long a record waits for others before replicas get it. While much comes, fewer and larger
 * frames cost writers and replicas less, and a replica that is busy has nothing the sooner.
 */
function shipLinger(): number {
  const busy = takenBytes > SHIP_BUSY_BYTES_PER_MS * lingerMs
  lingerMs = busy ? SHIP_LINGER_BUSY_MS : SHIP_LINGER_MS
  return lingerMs
}

function drain(): void {
  while (!abandoned) {
    readMailbox()
    const idle = held.length === 0 ? DRAIN_WAIT_MS : Math.max(0, commitBy - Date.now())
    const wait = syncUpTo > durable ? 0 : idle
    const linger = shipping ? shipLinger() : wait
    const taken = native.takeFrames(options.handle, DRAIN_BATCH_BYTES_MAX, wait, linger)
    hold(taken.frames)
    takenBytes = heldBytes
    const ahead = taken.flushWanted && flushAhead(taken.frames)
    if (ahead && !shipping && Date.now() < commitBy) keep(taken.frames)
    else if (!insist(commit)) return
    if (!ahead && !makeDurable(taken.flushWanted || taken.stopped || syncUpTo > durable)) return
    if (taken.stopped) return
    if (Date.now() >= nextReport) {
      nextReport = Date.now() + DRAIN_REPORT_MS
      post({ kind: 'report', report: report() })
    }
    applyRetention()
  }
}

native.keepHeap(HEAP_KEPT_BYTES_MAX)
post({ kind: 'opened' })
drain()
post({ kind: 'report', report: report() })
if (!abandoned) post({ kind: 'drained' })
port.on('message', serve)
