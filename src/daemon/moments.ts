/** Moments of a volume: what was written becomes a seq, or an error that says what can be had. */

import { clock, type Moment, parseMoment } from '../history/moment.js'
import { HoldfastError } from '../lib/errors.js'
import { formatCount } from '../lib/format.js'
import type { ChangedObjects } from '../lib/native-history.js'
import type { HistoryRange, OpenView, ViewOptions } from './views.js'

/** Where views and positions come from; `views.ts` is the one there is. */
export interface Views {
  openView(options: ViewOptions): Promise<OpenView>
  historyRange(volume: string): Promise<HistoryRange>
  seqAtTime(volume: string, timeMs: number): Promise<bigint>
  changedBetween(
    volume: string,
    after: bigint,
    upTo: bigint | undefined,
  ): Promise<ChangedObjects | undefined>
}

/** A moment of one volume. */
export interface Instant {
  /** Everything up to this change is in it. */
  seq: bigint
  /** The tree as it is, not a view. */
  now: boolean
  snapshot: string | null
  /** As it was understood: `2026-11-22 14:03:12 +0000, seq 812345`. */
  text: string
}

/** A moment as text, or one that is known to be of a kind. */
export type Written = string | Moment

/** Finds a moment. USAGE, SNAPSHOT_NOT_FOUND, HISTORY_RANGE, HISTORY_OFF. */
export async function findInstant(
  views: Views,
  { volume, at, nowMs = Date.now() }: { volume: string; at: Written; nowMs?: number },
): Promise<Instant> {
  const range = await views.historyRange(volume)
  const snapshots = range.snapshots.map(({ name }) => name)
  const moment = typeof at === 'string' ? parseMoment(at, { nowMs, snapshots }) : at
  if (moment.kind === 'now') {
    return { seq: range.toSeq, now: true, snapshot: null, text: `now, seq ${range.toSeq}` }
  }
  if (moment.kind === 'snapshot') return ofSnapshot(moment.name, range)
  if (moment.kind === 'seq') return ofSeq(moment.seq, { range, volume })
  const text = clock(moment.ms)
  if (range.mode !== 'continuous') throw snapshotsOnly(text, moment.ms, range)
  try {
    const seq = await views.seqAtTime(volume, moment.ms)
    return { ...ofSeq(seq, { range, volume }), text: `${text}, seq ${seq}` }
  } catch (error) {
    if (!(error instanceof HoldfastError) || error.code !== 'HISTORY_RANGE') throw error
    throw outside(`${text} is before what is kept`, { range, volume, cause: error })
  }
}

function ofSnapshot(name: string, range: HistoryRange): Instant {
  const found = range.snapshots.find((each) => each.name === name)
  if (found === undefined) {
    throw new HoldfastError('SNAPSHOT_NOT_FOUND', `there is no snapshot ${name} of this volume`, {
      op: 'moment',
      hint: 'See what there is: holdfast snapshot list',
    })
  }
  const { seq, createdMs } = found
  const text = `snapshot ${name}, ${clock(createdMs)}, seq ${seq}`
  return { seq, now: false, snapshot: name, text }
}

interface Where {
  range: HistoryRange
  volume: string
}

function ofSeq(seq: bigint, { range, volume }: Where): Instant {
  const snapshot = range.snapshots.find((each) => each.seq === seq)?.name ?? null
  const text = `seq ${seq}`
  if (seq > range.toSeq) {
    throw outside(`${text} has not happened yet`, { range, volume })
  }
  if (snapshot === null && (range.fromSeq === null || seq < range.fromSeq)) {
    throw outside(`${text} is not kept`, { range, volume })
  }
  return { seq, now: false, snapshot, text }
}

/** What there is instead. */
function outside(
  what: string,
  { range, volume, cause }: Where & { cause?: unknown },
): HoldfastError {
  const { fromSeq, toSeq, snapshots, mode } = range
  const kept =
    mode === 'none'
      ? 'nothing is kept of the past'
      : [
          ...(fromSeq === null ? [] : [`any moment from seq ${fromSeq} to ${toSeq}`]),
          ...(snapshots.length === 0 ? [] : [`the snapshots ${listed(snapshots)}`]),
        ].join(', and ') || 'there is no snapshot yet'
  return new HoldfastError('HISTORY_RANGE', `${what}; of ${volume}: ${kept}`, {
    op: 'moment',
    cause,
    details: { fromSeq: fromSeq === null ? null : Number(fromSeq), toSeq: Number(toSeq) },
    hint: `See what is kept: holdfast snapshot list ${volume}; holdfast status ${volume}`,
  })
}

function snapshotsOnly(text: string, ms: number, range: HistoryRange): HoldfastError {
  const { mode, snapshots } = range
  if (mode === 'none') {
    return new HoldfastError('HISTORY_OFF', 'nothing is kept of the past of this volume', {
      op: 'moment',
      hint: 'Keep it from now on: holdfast mount VOLUME --history continuous',
    })
  }
  const before = snapshots.findLast(({ createdMs }) => createdMs <= ms)
  const nearest =
    before === undefined
      ? 'and none is that old'
      : `the last one before is ${before.name}, ${clock(before.createdMs)}`
  return new HoldfastError('HISTORY_RANGE', `${text}: only snapshots are kept, ${nearest}`, {
    op: 'moment',
    hint: 'Name a snapshot; every moment is kept with: holdfast mount VOLUME --history continuous',
  })
}

const LISTED_MAX = 3

function listed(snapshots: HistoryRange['snapshots']): string {
  const names = snapshots.slice(-LISTED_MAX).map(({ name, seq }) => `${name} (seq ${seq})`)
  const more = snapshots.length - names.length
  return more > 0 ? `${names.join(', ')} and ${formatCount(more)} more` : names.join(', ')
}
