/**
 * Replaying a journal onto a copy of its base, in the calling process. Restartable: the data plane
 * keeps its position in a state directory beside the target.
 */
import { existsSync, realpathSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import type { Journal } from '../journal/store.js'
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import { isWithin } from '../lib/mountinfo.js'
import { native } from '../lib/native.js'
import type { ReplayPosition } from '../lib/native-replay.js'
import type { FrameView } from '../record/frame.js'
import { resolveAhead, type Volume } from './registry.js'

const op = 'journal.replay'
/** Frames between two looks at the event loop: signals and the progress bar live there. */
const FRAMES_PER_TURN = 8

export interface ReplayRequest {
  volume: Volume
  journal: Journal
  /** Directory onto which the journal is replayed. */
  target: string
  /** Directory of the replay's state; default beside the target. */
  state?: string | undefined
  /** Last seq to apply; frames are applied whole. Default: the journal's end. */
  toSeq?: bigint | undefined
  keepState: boolean
  progress?: ((bytes: number, seq: bigint) => void) | undefined
  signal?: AbortSignal | undefined
}

export interface ReplayResult {
  target: string
  appliedSeq: bigint
  /** Applied by this call; bytes of frames. */
  records: bigint
  bytes: bigint
  objects: number
  /** Where the state was kept; null when it was removed. */
  state: string | null
}

/** Replays; TARGET_REFUSED, PRUNED, REPLAY_*, ABORTED (continues with the same call). */
export async function replayJournal(request: ReplayRequest): Promise<ReplayResult> {
  const { volume, journal, keepState, progress, signal } = request
  const target = checkTarget(request.target, volume)
  const state = resolveAhead(request.state ?? `${target}.holdfast-replay`)
  checkState(state, target)
  const { uuid } = journal.meta()
  const handle = native.openReplay({ target: Buffer.from(target), uuid, state })
  let finish = false
  let before: ReplayPosition
  try {
    before = native.replayPosition(handle)
    const { appliedSeq } = before
    requireReach(journal, appliedSeq)
    let done = 0
    let frames = 0
    for (const frame of journal.frames({ from: appliedSeq + 1n, to: request.toSeq })) {
      if (request.toSeq !== undefined && frame.lastSeq > request.toSeq) break
      replayFrame(handle, frame)
      done += frame.bytes.length
      frames += 1
      progress?.(done, frame.lastSeq)
      if (frames % FRAMES_PER_TURN === 0) await new Promise(setImmediate)
      if (signal?.aborted === true) {
        throw new HoldfastError('ABORTED', `stopped at seq ${frame.lastSeq}`, {
          op,
          hint: 'The same command continues from there.',
        })
      }
    }
    finish = !keepState && request.toSeq === undefined
  } catch (error) {
    closeQuietly(handle)
    throw error
  }
  const { appliedSeq, records, bytes, objects } = native.closeReplay(handle, finish)
  return {
    target,
    appliedSeq,
    // The data plane counts over all replays with this state.
    records: records - before.records,
    bytes: bytes - before.bytes,
    objects,
    state: finish ? null : state,
  }
}

/** An error says at which frame the replay stands. */
function replayFrame(handle: number, frame: FrameView): void {
  try {
    native.replayFrame(handle, frame.bytes)
  } catch (cause) {
    const { code, message, hint, details } = toHoldfastError(cause, op)
    const where = `at the frame of seq ${frame.firstSeq}`
    const frameSeq = `${frame.firstSeq}`
    const options = { op, cause, hint, details: { ...details, frame: frameSeq } }
    throw new HoldfastError(code, `${message} (${where})`, options)
  }
}

function closeQuietly(handle: number): void {
  try {
    native.closeReplay(handle, false)
  } catch {
    // The error under way says more.
  }
}

/** The target must be a directory outside the volume and outside its state. */
function checkTarget(path: string, { config, stateDirectory }: Volume): string {
  if (!existsSync(path) || !statSync(path).isDirectory()) {
    throw new HoldfastError('NOT_A_DIRECTORY', `${path} is not a directory`, {
      op,
      hint: 'Give a copy of the tree as it was when the volume was new.',
    })
  }
  const target = realpathSync(path)
  for (const tree of [config.backing, config.mountpoint, stateDirectory]) {
    if (!isWithin(target, tree) && !isWithin(tree, target)) continue
    throw new HoldfastError(
      'TARGET_REFUSED',
      `${target} is or holds ${tree} of the volume itself`,
      {
        op,
        hint: 'Replay onto a copy elsewhere.',
      },
    )
  }
  return target
}

function checkState(state: string, target: string): void {
  if (isWithin(state, target)) {
    throw new HoldfastError('TARGET_REFUSED', `the replay's state ${state} is inside its target`, {
      op,
      hint: 'Give a directory beside it with --state.',
    })
  }
  if (!existsSync(dirname(state))) {
    throw new HoldfastError('NOT_FOUND', `${dirname(state)} does not exist`, { op })
  }
}

/** A pruned journal cannot be replayed onto the base any more. */
function requireReach(journal: Journal, appliedSeq: bigint): void {
  const { horizon } = journal.meta()
  if (horizon === null || horizon.lastSeq <= appliedSeq) return
  const message = `the journal begins after seq ${horizon.lastSeq}, the target is at ${appliedSeq}`
  throw new HoldfastError('PRUNED', message, {
    op,
    hint: 'Start from a newer copy, or from a re-capture: holdfast recapture.',
  })
}
