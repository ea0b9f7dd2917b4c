/**
 * One cut: I/O of all volumes at rest at one instant, and a marker in each journal at it. The volumes meet
 * in shared memory (decisions/0009).
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { type ErrorReport, HoldfastError, toHoldfastError } from '../lib/errors.js'
import { CUT_ANSWER_MS, CUT_GATHER_MS, CUT_PAUSE_MS, CUT_SETTLE_MS } from '../lib/limits.js'
import { commonInstant, type Member } from '../snapshot/certificate.js'
import { failMeeting, makeMeeting, removeMeeting } from '../snapshot/meeting.js'
import { ControlClient } from './client.js'
import { type Held, requireHeld, runHeld, type WhileHeld } from './held.js'
import { runDirectory } from './places.js'
import type { Volume } from './registry.js'

const op = 'snapshot.create'

export interface CutOrder {
  id: string
  name: string
  maxHoldMs: number
  /** What is done while everything is at rest; nothing: it is released once the markers are set. */
  whileHeld?: WhileHeld | undefined
  /** CLOCK_MONOTONIC, ns: held from then on, and not released before `untilNs`. */
  between?: { startNs: bigint; untilNs: bigint } | undefined
  /** False: markers and no more; no history keeps what is there. */
  keep?: boolean | undefined
  /** How often it is tried, when I/O does not come to rest in time. */
  attempts: number
}

export interface Cut {
  members: Member[]
  /** CLOCK_MONOTONIC, ns: all were at rest. */
  instant: bigint
  /** The one that succeeded; from 1. */
  attempt: number
}

/**
 * A cut of the volumes. When a disk is so busy that I/O does not come to rest within the bound, what waits
 * for it is written out while nothing is held, and it is tried again. SNAPSHOT_FAILED.
 */
export async function takeCut(volumes: readonly Volume[], order: CutOrder): Promise<Cut> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return { ...(await cut(volumes, order)), attempt }
    } catch (error) {
      if (attempt >= order.attempts || !wasBusy(error)) throw error
      if (!(await haveWritten(volumes))) throw error
      await sleep(CUT_PAUSE_MS)
    }
  }
}

function wasBusy(error: unknown): boolean {
  return error instanceof HoldfastError && (error.cause as HoldfastError)?.code === 'HOLD_TIMEOUT'
}

/** Has what was written reach the disks; false when one of them cannot. */
async function haveWritten(volumes: readonly Volume[]): Promise<boolean> {
  const options = { timeoutMs: CUT_SETTLE_MS }
  const all = volumes.map(({ config }) => new ControlClient(config.name).checkpoint(options))
  return (await Promise.allSettled(all)).every(({ status }) => status === 'fulfilled')
}

interface Failure {
  volume: string
  error: HoldfastError
}

/** Every volume's part of one cut, proven to be one. SNAPSHOT_FAILED. */
async function cut(
  volumes: readonly Volume[],
  { id, name, maxHoldMs, whileHeld, between, keep }: CutOrder,
): Promise<Omit<Cut, 'attempt'>> {
  const staying = whileHeld !== undefined
  const page = { id, members: volumes.length, staying }
  const meeting = volumes.length > 1 || staying ? makeMeeting(runDirectory(), page) : null
  const startNs = between && `${between.startNs}`
  const untilNs = between && `${between.untilNs}`
  const request = { name, maxHoldMs, meeting, gatherMs: CUT_GATHER_MS, startNs, untilNs, keep }
  const failed: Failure[] = []
  const over = new AbortController()
  /** A volume has ended its part: from here on nothing is certain to be held. */
  const ended = new AbortController()
  let timer: NodeJS.Timeout | undefined
  const part = async ({ config }: Volume): Promise<Member[]> => {
    const { name: volume, uuid } = config
    try {
      const reply = await new ControlClient(volume).cut(request, { signal: over.signal })
      return [{ volume, uuid, ...reply }]
    } catch (error) {
      failed.push({ volume, error: toHoldfastError(error, op) })
      // It may have died: those who wait for it go on, and soon say so.
      if (meeting !== null) failMeeting(meeting)
      timer ??= setTimeout(() => over.abort(), CUT_ANSWER_MS)
      return []
    } finally {
      ended.abort()
    }
  }
  const parts = Promise.all(volumes.map(part))
  const about = { members: volumes.length, over: ended.signal }
  const held: Held =
    whileHeld !== undefined && meeting !== null
      ? await runHeld({ meeting, whileHeld, ...about })
      : null
  const members = (await parts).flat()
  clearTimeout(timer)
  if (meeting !== null) removeMeeting(meeting)
  if (failed.length > 0 && !isWhy(held, failed)) throw notTaken(failed)
  requireHeld(held, members)
  const instant = commonInstant(members)
  if (instant !== undefined) return { members, instant }
  throw new HoldfastError('SNAPSHOT_FAILED', 'the volumes were not held at one instant', {
    op,
    details: { members },
  })
}

/** A hook that fails ends the hold, and one that is slow lets it expire: no volume is to blame. */
function isWhy(held: Held, failed: readonly Failure[]): boolean {
  if (held === null || !('error' in held)) return false
  return failed.every(({ error }) => error.code === 'CUT_OTHERS' || error.code === 'HOLD_EXPIRED')
}

/** What one volume could not do; the others gave up because of it. */
export function notTaken(failed: readonly Failure[]): HoldfastError {
  const first = failed.find(({ error }) => error.code !== 'CUT_OTHERS') ?? failed[0]
  const { volume = '', error } = first ?? {}
  const why = error?.code === 'ABORTED' ? 'it does not answer' : error?.message
  const failures: Record<string, ErrorReport> = {}
  for (const each of failed) failures[each.volume] = each.error.toJSON()
  return new HoldfastError('SNAPSHOT_FAILED', `no snapshot: ${volume}: ${why}`, {
    op,
    cause: error,
    hint:
      error?.code === 'HOLD_TIMEOUT'
        ? 'Nothing is on hold any more. Try again, or allow more: --max-hold, --attempts'
        : error?.hint,
    details: { failures },
  })
}
