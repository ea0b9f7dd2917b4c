/**
 * The replica's log: a worker thread that checks every frame, makes it durable and says so. All
 * frames that wait are made durable together.
 *
 * Invariant: what is called logged is on the disk, continues the chain, and is whole.
 */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import { requireSpace } from '../journal/environment.js'
import { prune } from '../journal/prune.js'
import { type FrameBytes, Journal } from '../journal/store.js'
import { toHoldfastError } from '../lib/errors.js'
import {
  HEAP_KEPT_BYTES_MAX,
  LOG_BATCH_BYTES_MAX,
  LOG_FLUSH_BYTES_MAX,
  LOG_KEEP_BYTES,
  LOG_PRUNE_INTERVAL_MS,
  LOG_SPARE_BYTES,
} from '../lib/limits.js'
import { native } from '../lib/native.js'
import { checkFrameFast, checkSuccession, type JournalEnd } from '../record/frame.js'
import type { LogOptions, LogPlace, LogReply, LogRequest } from './replica-messages.js'

const { path, uuid: uuidBytes } = workerData as LogOptions
const uuid = Buffer.from(uuidBytes)
if (parentPort === null) throw new Error('the log runs in a worker thread only')
const port = parentPort

let journal: Journal | undefined
let end: JournalEnd
/** There is a place to go on from: frames, or where a baseline begins. */
let started = false
/** What follows a frame that could not be stored is not stored either. */
let failed = false
/** Bytes of frames taken and not reported yet. */
let taken = 0
let nextPrune = 0

function post(reply: LogReply): void {
  port.postMessage(reply)
}

function reported(): number {
  const bytes = taken
  taken = 0
  return bytes
}

function open(): Journal {
  if (journal !== undefined) return journal
  journal = Journal.open({ path, uuid, create: true })
  end = journal.end()
  started = end.lastSeq > 0n || journal.meta().horizon !== null
  return journal
}

function say(): void {
  const at = started ? { seq: end.lastSeq, chain: Uint8Array.from(end.chain) } : null
  post({ kind: 'logged', at, bytes: reported(), usedBytes: journal?.usedBytes() ?? 0 })
}

/** Frames of one batch: checked one by one, durable together. */
function store(frames: Buffer[]): void {
  const log = open()
  const batch: FrameBytes[] = []
  let lost = false
  for (const each of frames) {
    const frame = checkFrameFast(each)
    // Sent again after a break.
    if (started && frame.lastSeq <= end.lastSeq && batch.length === 0) continue
    // Something was lost before it: that is asked for again, and this comes with it.
    if (frame.firstSeq > end.lastSeq + 1n) {
      lost = true
      continue
    }
    checkSuccession(frame, uuid, end)
    batch.push({ firstSeq: frame.firstSeq, bytes: each })
    end = { lastSeq: frame.lastSeq, chain: Buffer.from(frame.chain) }
  }
  if (batch.length > 0) {
    const bytes = batch.reduce((sum, frame) => sum + frame.bytes.length, 0)
    requireSpace(path, { bytes, spare: LOG_SPARE_BYTES })
    // A second flush costs less than writing much twice.
    const flushed = bytes <= LOG_FLUSH_BYTES_MAX && log.flushAhead(batch)
    log.append(batch)
    if (!flushed) log.sync()
    started = true
  }
  say()
  if (lost) post({ kind: 'gap', bytes: 0 })
}

function reset(id: number, { seq, chain }: LogPlace): void {
  const at = { lastSeq: seq, chain: Buffer.from(chain) }
  open().startOver(at)
  end = at
  started = true
  failed = false
  post({ kind: 'reset', id, at: { seq, chain }, bytes: reported() })
}

function pruneApplied(keepAfter: bigint): void {
  if (Date.now() < nextPrune || journal === undefined) return
  nextPrune = Date.now() + LOG_PRUNE_INTERVAL_MS
  try {
    requireSpace(path, { bytes: 0, spare: LOG_SPARE_BYTES / 2 })
  } catch {
    return // It would need space itself, and gives none back to the disk.
  }
  prune(journal, { maxBytes: LOG_KEEP_BYTES, keepAfter })
}

async function close(): Promise<void> {
  await journal?.close()
  post({ kind: 'closed' })
  port.close()
}

/** A request other than a frame; false: it was the last. */
async function command(request: Exclude<LogRequest, { kind: 'frame' }>): Promise<boolean> {
  switch (request.kind) {
    case 'applied':
      pruneApplied(request.keepAfter)
      return true
    case 'retry':
      open()
      failed = false
      say()
      return true
    case 'reset':
      reset(request.id, request.at)
      return true
    case 'close':
      await close()
      return false
  }
}

/** The bytes as a Buffer, in the same memory. */
function frameOf({ buffer, byteOffset, length }: Uint8Array<ArrayBuffer>): Buffer<ArrayBuffer> {
  return Buffer.from(buffer, byteOffset, length)
}

async function serve(first: LogRequest): Promise<void> {
  let waiting: Buffer<ArrayBuffer>[] = []
  let bytes = 0
  const settle = () => {
    const frames = waiting
    waiting = []
    bytes = 0
    if (frames.length === 0) return
    if (!failed) store(frames)
    const memory = frames.map(({ buffer }) => buffer)
    port.postMessage({ kind: 'spent', memory } satisfies LogReply, memory)
  }
  let request: LogRequest | undefined = first
  while (request !== undefined) {
    if (request.kind === 'frame') {
      taken += request.bytes.length
      bytes += request.bytes.length
      waiting.push(frameOf(request.bytes))
      if (bytes >= LOG_BATCH_BYTES_MAX) settle()
    } else {
      settle()
      if (!(await command(request))) return
    }
    request = receiveMessageOnPort(port)?.message as LogRequest | undefined
  }
  settle()
  if (taken > 0) say()
}

/** What was not stored is sent again on the next connection. */
function fail(error: unknown): void {
  failed = true
  if (journal !== undefined) end = journal.end()
  post({
    kind: 'failure',
    error: toHoldfastError(error, 'replica.log').toJSON(),
    bytes: reported(),
  })
}

let turn: Promise<void> = Promise.resolve()
port.on('message', (request: LogRequest) => {
  turn = turn.then(() => serve(request)).catch(fail)
})
native.keepHeap(HEAP_KEPT_BYTES_MAX)
try {
  open()
  say()
} catch (error) {
  fail(error)
}
