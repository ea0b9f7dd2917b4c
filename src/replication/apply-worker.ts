/**
 * The replica's replay: a worker thread that applies the log to the tree, up to the horizon that
 * the primary has authorised and not beyond.
 */
import { rmSync } from 'node:fs'
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import { Journal } from '../journal/store.js'
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import { APPLY_REPORT_MS } from '../lib/limits.js'
import { native, type ReplayStart } from '../lib/native.js'
import type { ApplyOptions, ApplyReply, ApplyRequest, LogPlace } from './replica-messages.js'

/** Kind of the scan that is a baseline, as a bit of the replay's scans (docs/FORMAT.md). */
const BASELINE = 1 << 2

const { logPath, uuid: uuidBytes, tree, state } = workerData as ApplyOptions
const uuid = Buffer.from(uuidBytes)
if (parentPort === null) throw new Error('the replay runs in a worker thread only')
const port = parentPort

let replay: number | undefined
let log: Journal | undefined
let applied = 0n
let scans = 0
let horizon = 0n
let saidAt = 0

function post(reply: ApplyReply): void {
  port.postMessage(reply)
}

function say(): void {
  saidAt = Date.now()
  post({ kind: 'applied', seq: applied, baseline: (scans & BASELINE) !== 0 })
}

/** Opens the replay where it was; `start` for a new one. */
function open(start?: ReplayStart): void {
  const target = Buffer.from(tree)
  replay = native.openReplay({ target, uuid, state, ...(start === undefined ? {} : { start }) })
  const position = native.replayPosition(replay)
  applied = position.appliedSeq
  scans = position.scans
}

function close(): void {
  if (replay === undefined) return
  native.closeReplay(replay, false)
  replay = undefined
}

function startOver({ seq, chain }: LogPlace): void {
  try {
    close()
  } catch {
    // It is given up.
  }
  rmSync(state, { recursive: true, force: true })
  open({ seq, chain: Buffer.from(chain), scans: BASELINE })
  horizon = seq
  post({ kind: 'reset' })
  say()
}

function handle(request: ApplyRequest): boolean {
  switch (request.kind) {
    case 'horizon':
      if (request.seq > horizon) horizon = request.seq
      return true
    case 'reset':
      startOver(request.at)
      return true
    case 'close':
      close()
      void Promise.resolve(log?.close()).then(() => {
        post({ kind: 'closed' })
        port.close()
      })
      return false
  }
}

/**
 * Applies all that may be applied; between frames it looks at its mailbox. The horizon may rise
 * meanwhile, to frames that a read of the log begun before does not see: so it reads again.
 */
function apply(): void {
  while (applied < horizon) {
    if (replay === undefined) open()
    const before = applied
    if (!applyOnce() || applied === before) return
  }
}

/** One read of the log to its end; false: not to be gone on with. */
function applyOnce(): boolean {
  log ??= Journal.open({ path: logPath, readOnly: true })
  log.refresh()
  for (const frame of log.frames({ from: applied + 1n })) {
    if (replay === undefined || frame.lastSeq > horizon) break
    if (frame.firstSeq !== applied + 1n) {
      const message = `the log has no seq ${applied + 1n}`
      throw new HoldfastError('PRUNED', message, { op: 'replica.apply' })
    }
    const position = native.replayFrame(replay, Buffer.from(frame.bytes))
    applied = position.appliedSeq
    scans = position.scans
    if (Date.now() - saidAt >= APPLY_REPORT_MS) say()
    const mail = receiveMessageOnPort(port)
    if (mail === undefined) continue
    const request = mail.message as ApplyRequest
    // The log may be made anew now.
    if (!handle(request) || request.kind === 'reset') return false
  }
  say()
  return true
}

port.on('message', (request: ApplyRequest) => {
  try {
    if (handle(request)) apply()
  } catch (error) {
    post({ kind: 'failure', error: toHoldfastError(error, 'replica.apply').toJSON() })
  }
})
try {
  // Says where it stands before anything is applied.
  open()
  say()
} catch (error) {
  post({ kind: 'failure', error: toHoldfastError(error, 'replica.apply').toJSON() })
}
