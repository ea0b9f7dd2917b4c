/**
 * The replica's log: a worker thread that checks every frame, makes it durable and says so. All
 * frames that wait are made durable together.
 *
 * Invariant: what is called logged is on the disk, continues the chain, and is whole.
 */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import { prune } from '../journal/prune.js'
import { type FrameBytes, Journal } from '../journal/store.js'
import { toHoldfastError } from '../lib/errors.js'
import { LOG_BATCH_BYTES_MAX, LOG_KEEP_BYTES, LOG_PRUNE_INTERVAL_MS } from '../lib/limits.js'
import { checkFrame, checkSuccession, type JournalEnd } from '../record/frame.js'
import type { LogOptions, LogReply, LogRequest } from './replica-messages.js'

const { path, uuid: uuidBytes } = workerData as LogOptions
const uuid = Buffer.from(uuidBytes)
if (parentPort === null) throw new Error('the log runs in a worker thread only')
const port = parentPort

const journal = Journal.open({ path, uuid, create: true })
let end: JournalEnd = journal.end()
/** There is a place to go on from: frames, or where a baseline begins. */
let started = end.lastSeq > 0n || journal.meta().horizon !== null
let nextPrune = 0

function post(reply: LogReply): void {
  port.postMessage(reply)
}

function say(bytes: number): void {
  const at = started ? { seq: end.lastSeq, chain: Uint8Array.from(end.chain) } : null
  post({ kind: 'logged', at, bytes, usedBytes: journal.usedBytes() })
}

/** Frames of one batch: checked one by one, durable together. */
function store(frames: Buffer[]): void {
  const batch: FrameBytes[] = []
  let bytes = 0
  let lost = 0
  for (const each of frames) {
    bytes += each.length
    const frame = checkFrame(each)
    // Sent again after a break.
    if (started && frame.lastSeq <= end.lastSeq && batch.length === 0) continue
    // Something was lost before it: that is asked for again, and this comes with it.
    if (frame.firstSeq > end.lastSeq + 1n) {
      lost += each.length
      continue
    }
    checkSuccession(frame, uuid, end)
    batch.push({ firstSeq: frame.firstSeq, bytes: each })
    end = { lastSeq: frame.lastSeq, chain: Buffer.from(frame.chain) }
  }
  if (batch.length > 0) {
    started = true
    const flushed = journal.flushAhead(batch)
    journal.append(batch)
    if (!flushed) journal.sync()
  }
  say(bytes - lost)
  if (lost > 0) post({ kind: 'gap', bytes: lost })
}

function reset(at: JournalEnd): void {
  journal.startOver(at)
  end = at
  started = true
  post({ kind: 'anew' })
  say(0)
}

function pruneApplied(keepAfter: bigint): void {
  if (Date.now() < nextPrune) return
  nextPrune = Date.now() + LOG_PRUNE_INTERVAL_MS
  prune(journal, { maxBytes: LOG_KEEP_BYTES, keepAfter })
}

async function serve(first: LogRequest): Promise<void> {
  let waiting: Buffer[] = []
  let bytes = 0
  const settle = () => {
    if (waiting.length > 0) store(waiting)
    waiting = []
    bytes = 0
  }
  let request: LogRequest | undefined = first
  while (request !== undefined) {
    if (request.kind === 'frame') {
      waiting.push(Buffer.from(request.bytes.buffer))
      bytes += request.bytes.length
      if (bytes >= LOG_BATCH_BYTES_MAX) settle()
    } else {
      settle()
      if (request.kind === 'applied') pruneApplied(request.keepAfter)
      if (request.kind === 'reset') {
        const { seq, chain } = request.at
        reset({ lastSeq: seq, chain: Buffer.from(chain) })
      }
      if (request.kind === 'close') {
        await journal.close()
        post({ kind: 'closed' })
        port.close()
        return
      }
    }
    request = receiveMessageOnPort(port)?.message as LogRequest | undefined
  }
  settle()
}

let turn: Promise<void> = Promise.resolve()
port.on('message', (request: LogRequest) => {
  turn = turn
    .then(() => serve(request))
    .catch((error: unknown) => {
      // What was not stored is sent again on the next connection.
      end = journal.end()
      post({ kind: 'failure', error: toHoldfastError(error, 'replica.log').toJSON() })
    })
})
say(0)
