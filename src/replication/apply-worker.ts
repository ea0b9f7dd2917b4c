/**
 * The replica's replay: a worker thread that applies the log to the tree, up to the horizon that
 * the primary has authorised and not beyond.
 */
import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import { Journal } from '../journal/store.js'
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import { APPLY_REPORT_MS, CODES_IDLE_MS } from '../lib/limits.js'
import { native } from '../lib/native.js'
import type { HistoryOptions } from '../lib/native-history.js'
import type { ReplayPosition, ReplayStart } from '../lib/native-replay.js'
import type {
  ApplyDelay,
  ApplyOptions,
  ApplyReply,
  ApplyRequest,
  LogPlace,
} from './replica-messages.js'

/** How long codes are computed before the mailbox is looked at, and the pause after it. */
const CODES_MS = 20
const CODES_PAUSE_MS = 20
/** Longest time a timer can be set for. */
const ALARM_MS_MAX = 2 ** 31 - 1

const options = workerData as ApplyOptions
const { logPath, uuid: uuidBytes, tree, state, lacksState } = options
let { options: historyOptions, handle: history } = options.history
const uuid = Buffer.from(uuidBytes)
if (parentPort === null) throw new Error('the replay runs in a worker thread only')
const port = parentPort

let replay: number | undefined
let log: Journal | undefined
let at: ReplayPosition | undefined
let applied = 0n
let horizon = 0n
let saidAt = 0
/** Differences and the end of a comparison, as far as they have been told. */
let toldDifferences = 0
let toldVerified = -1n
let doubt = false
/** The log was found to be what the tree has come from. */
let proven = false
let computing: NodeJS.Timeout | undefined
let delay: ApplyDelay = options.delay
/** Rings when the next frame is old enough. */
let alarm: NodeJS.Timeout | undefined
/** Nothing was applied since the last failure: that it is over has to be said. */
let failed = false
/** A baseline is under way, or what it was found to need is not all there. */
let resyncing = false

function post(reply: ApplyReply): void {
  port.postMessage(reply)
}

function say(): void {
  saidAt = Date.now()
  failed = false
  const { baseline = true, needs = 0 } = at ?? {}
  tellComparison()
  post({ kind: 'applied', seq: applied, baseline, needs, doubt })
  doubt = false
}

function tellComparison(): void {
  if (replay === undefined || at === undefined) return
  const { differences, verified } = at
  const ended = verified != null && verified.seq !== toldVerified
  if (differences !== toldDifferences || ended) {
    toldDifferences = differences
    const list = native.replayDifferences(replay).map(({ seq, path, what, from, to }) => ({
      seq: Number(seq),
      path: path.toString('base64'),
      what,
      from: Number(from),
      to: Number(to),
    }))
    if (list.length > 0) post({ kind: 'differences', list })
  }
  if (ended) {
    toldVerified = verified.seq
    post({ kind: 'verified', ...verified })
  }
}

function stand(position: ReplayPosition): void {
  at = position
  applied = position.appliedSeq
  resyncing = position.baseline || (resyncing && position.needs > 0)
}

/** Opens the replay where it was; with `start` there, whatever the tree is. */
function open(start?: ReplayStart): void {
  // Past the guard of the tree.
  const target = Buffer.from(basename(tree))
  const place = { beneath: Buffer.from(dirname(tree)), target, state: basename(state) }
  const from = start === undefined ? {} : { start, restart: true }
  const past = history === undefined ? {} : { history }
  replay = native.openReplay({ ...place, uuid, compare: true, ...from, ...past })
  toldDifferences = 0
  stand(native.replayPosition(replay))
  doubt ||= native.replayDoubt(replay)
}

/**
 * The log has to be what was applied: else the tree belongs to another history. Not before the first
 * horizon: until then the log is being opened by the other worker. REPLAY_FORK.
 */
function prove(): void {
  log ??= Journal.open({ path: logPath, readOnly: true })
  log.refresh()
  const frame = applied === 0n ? undefined : log.frameAt(applied)
  const chain = at?.appliedChain
  const comparable = chain !== undefined && frame?.lastSeq === applied
  proven = !comparable || Buffer.compare(frame.chain, chain) === 0
  if (proven) return
  throw new HoldfastError('REPLAY_FORK', `the tree is at another seq ${applied} than the log`, {
    op: 'replica.open',
    hint: 'The primary brings it back by codes when it connects.',
  })
}

function close(): void {
  if (replay === undefined) return
  native.closeReplay(replay, false)
  replay = undefined
}

/** Without one, what was kept before goes: it would have a gap. */
function openHistory(): void {
  if (historyOptions === null) {
    rmSync(join(dirname(tree), 'history'), { recursive: true, force: true })
  }
  if (history === undefined && historyOptions !== null) {
    mkdirSync(historyOptions.path, { recursive: true, mode: 0o700 })
    const place = { beneath: Buffer.from(dirname(tree)), target: Buffer.from(basename(tree)) }
    history = native.openReplicaHistory({ history: historyOptions, uuid, ...place })
  }
}

/** The replica goes on without one that cannot be had; that is put aside, for it would have a gap. */
function tryHistory(): void {
  try {
    openHistory()
    post({ kind: 'history', handle: history })
  } catch (error) {
    const failure = toHoldfastError(error, 'replica.history')
    const { path } = historyOptions ?? {}
    if (path !== undefined && existsSync(path)) {
      rmSync(`${path}.unreadable`, { recursive: true, force: true })
      renameSync(path, `${path}.unreadable`)
    }
    post({ kind: 'history', handle: undefined, error: failure.toJSON() })
  }
}

/** The replay goes on with another history, or without. */
function changeHistory(wanted: HistoryOptions | null): void {
  close()
  closeHistory()
  historyOptions = wanted
  tryHistory()
  open()
}

function closeHistory(): void {
  if (history !== undefined) native.closeReplicaHistory(history)
  history = undefined
}

/** Half a state would be taken for a new one: it goes as a whole, or not at all. */
function forgetState(): void {
  const old = `${state}.old`
  rmSync(old, { recursive: true, force: true })
  if (existsSync(state)) renameSync(state, old)
  rmSync(old, { recursive: true, force: true })
}

function startOver(id: number, { seq, chain }: LogPlace): void {
  const start = { seq, chain: Buffer.from(chain), baseline: true }
  try {
    close()
    open(start)
  } catch {
    // It is given up: objects are known by their names, then.
    replay = undefined
    forgetState()
    open(start)
  }
  horizon = seq
  proven = true
  post({ kind: 'reset', id })
  say()
}

/** Without its end: it goes on from its state, or not at all. */
function giveUp(): void {
  try {
    close()
  } catch {
    replay = undefined
  }
}

function handle(request: ApplyRequest): boolean {
  switch (request.kind) {
    case 'horizon':
      if (request.seq > horizon) horizon = request.seq
      if (failed) say()
      return true
    case 'delay':
      delay = request.delay
      return true
    case 'reset':
      startOver(request.id, request.at)
      return true
    case 'history':
      changeHistory(request.options)
      return true
    case 'needs':
      tellNeeds()
      return true
    case 'fill':
      fill(request.body)
      return true
    case 'close':
      clearTimeout(alarm)
      close()
      closeHistory()
      void Promise.resolve(log?.close()).then(() => {
        post({ kind: 'closed' })
        port.close()
      })
      return false
  }
}

function tellNeeds(): void {
  if (replay === undefined) return
  const words = native.replayNeeds(replay)
  post({ kind: 'needs', words })
  // What was brought is on the disk now.
  if (words.length > 0) return
  stand(native.replayPosition(replay))
  say()
}

/** It is there before any frame that comes after it is applied: those are authorised later. */
function fill({ buffer, byteOffset, length }: Uint8Array<ArrayBuffer>): void {
  try {
    const body = Buffer.from(buffer, byteOffset, length)
    if (replay !== undefined) stand(native.replayFill(replay, body))
  } finally {
    port.postMessage({ kind: 'filled', bytes: length, memory: buffer } satisfies ApplyReply, [
      buffer,
    ])
  }
  if (failed || Date.now() - saidAt >= APPLY_REPORT_MS) say()
}

/**
 * Applies all that may be applied; between frames it looks at its mailbox. The horizon may rise
 * meanwhile, to frames that a read of the log begun before does not see: so it reads again.
 */
function apply(): void {
  while (applied < horizon) {
    if (replay === undefined) open()
    if (!proven) prove()
    const before = applied
    if (!applyOnce() || applied === before) return
  }
}

/**
 * The frame is to wait, and the alarm is set for it. A frame's clock is its primary's, and that of its
 * last record. A baseline does not wait: there is no earlier tree to keep meanwhile.
 */
function isEarly(frame: { clock: bigint }): boolean {
  if (delay.applyMs === 0 || resyncing) return false
  const due = Number(frame.clock / 1_000_000n) + delay.aheadMs + delay.applyMs
  const left = due - Date.now()
  if (left <= 0) return false
  clearTimeout(alarm)
  alarm = setTimeout(ring, Math.min(left, ALARM_MS_MAX))
  return true
}

function ring(): void {
  alarm = undefined
  attempt(apply)
}

/** One read of the log to its end; false: not to be gone on with. */
function applyOnce(): boolean {
  log ??= Journal.open({ path: logPath, readOnly: true })
  log.refresh()
  for (const frame of log.passing(applied + 1n)) {
    if (replay === undefined || frame.lastSeq > horizon || isEarly(frame)) break
    if (frame.firstSeq !== applied + 1n) {
      const message = `the log has no seq ${applied + 1n}`
      throw new HoldfastError('PRUNED', message, { op: 'replica.apply' })
    }
    stand(native.replayFrame(replay, frame.bytes))
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

/** Codes are computed while there is nothing to apply. */
function compute(): void {
  computing = undefined
  const early = alarm !== undefined
  if (replay === undefined || (applied < horizon && !early)) return
  const { codesLeft } = native.replayCodes(replay, CODES_MS)
  if (codesLeft) computing = setTimeout(compute, CODES_PAUSE_MS)
}

function attempt(step: () => void): void {
  try {
    step()
  } catch (error) {
    const failure = toHoldfastError(error, 'replica.apply')
    // After an error of the system the same frame again continues; else from what the state says.
    if (failure.code !== 'REPLAY_IO') giveUp()
    failed = true
    post({ kind: 'failure', error: failure.toJSON() })
  }
}

port.on('message', (request: ApplyRequest) => {
  clearTimeout(computing)
  attempt(() => {
    if (!handle(request)) return
    apply()
    computing = setTimeout(compute, CODES_IDLE_MS)
  })
})
attempt(() => {
  if (lacksState) {
    // It died while it started over: nobody knows what the tree is.
    throw new HoldfastError('REPLAY_STATE', `${state} is missing`, { op: 'replica.apply' })
  }
  // Says where it stands before anything is applied.
  tryHistory()
  open()
  say()
})
