/**
 * Moments as people write them: `now`, `seq:1234`, a snapshot's name, ISO 8601, `10 minutes ago`,
 * `yesterday 14:00`.
 *
 * Invariant: a text has one meaning or none. What could be meant otherwise (days before months, a day
 * without a time, a name that is a time as well) is refused with how to write it. Wraps `chrono-node`.
 */
import { createRequire } from 'node:module'
import { HoldfastError } from '../lib/errors.js'
import { formatTime, parseDuration } from '../lib/format.js'

const require = createRequire(import.meta.url)

export type Moment =
  | { kind: 'now' }
  | { kind: 'seq'; seq: bigint }
  | { kind: 'time'; ms: number }
  | { kind: 'snapshot'; name: string }

export interface MomentContext {
  /** ms since the epoch. */
  nowMs: number
  /** Names of the snapshots that there are. */
  snapshots: readonly string[]
}

const EXAMPLES =
  'Write it as: 10 minutes ago; yesterday 14:00; 2026-01-31 14:05:00; 2026-01-31T13:05:00Z; ' +
  'seq:1234; now; or the name of a snapshot.'

/** What `text` means; a prefix (`seq:`, `snapshot:`, `time:`) says which. USAGE, SNAPSHOT_NOT_FOUND. */
export function parseMoment(text: string, context: MomentContext): Moment {
  const written = text.trim().replaceAll(/\s+/g, ' ')
  const [, prefix, rest] = /^(seq|snapshot|time):\s?(.*)$/.exec(written) ?? []
  if (prefix === 'seq') return { kind: 'seq', seq: parseSeq(rest ?? '') }
  if (prefix === 'snapshot') return { kind: 'snapshot', name: requireSnapshot(rest ?? '', context) }
  if (prefix === 'time') return { kind: 'time', ms: parseTime(rest ?? '', context.nowMs) }
  const named = context.snapshots.includes(written)
  if (!named && written === 'now') return { kind: 'now' }
  if (!named && /^\d+$/.test(written)) {
    throw refused(text, `a bare number may be anything; a sequence number is seq:${written}`)
  }
  if (!named) return { kind: 'time', ms: parseTime(written, context.nowMs) }
  if (meansTime(written, context.nowMs)) {
    throw refused(text, `it is a snapshot and a time; write snapshot:${written} or time:${written}`)
  }
  return { kind: 'snapshot', name: written }
}

function parseSeq(text: string): bigint {
  if (/^\d{1,19}$/.test(text)) return BigInt(text)
  throw refused(`seq:${text}`, 'a sequence number has digits only')
}

function requireSnapshot(name: string, { snapshots }: MomentContext): string {
  if (snapshots.includes(name)) return name
  throw new HoldfastError('SNAPSHOT_NOT_FOUND', `there is no snapshot ${name} of this volume`, {
    op: 'moment',
    hint: 'See what there is: holdfast snapshot list',
  })
}

function meansTime(text: string, nowMs: number): boolean {
  try {
    parseTime(text, nowMs)
    return true
  } catch {
    return false
  }
}

/** ms since the epoch; times without a zone are local. USAGE, telling how it was understood. */
export function parseTime(text: string, nowMs: number): number {
  const ago = parseDuration(text)
  const ms = ago === undefined ? (isoTime(text) ?? spokenTime(text, nowMs)) : nowMs - ago
  if (ms <= nowMs) return ms
  throw refused(text, `it was understood as ${clock(ms)}, which is in the future`)
}

const ISO =
  /^(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?)?\s?(Z|[+-]\d\d:?\d\d)?$/i

/** undefined when it is not written so. */
function isoTime(text: string): number | undefined {
  const match = ISO.exec(text)
  if (match === null) return undefined
  const [, year = '', month = '', day = '', hour, minute = '', second = '0', fraction = '', zone] =
    match
  if (hour === undefined) throw refused(text, `a day is no moment; write ${text} 14:00`)
  const ms = Number(fraction.padEnd(3, '0').slice(0, 3))
  const parts = [year, month, day, hour, minute, second].map(Number) as SixNumbers
  const [y, mo, d, h, mi, s] = parts
  const asUtc = Date.UTC(y, mo - 1, d, h, mi, s, ms)
  // 31 February, or 25 o'clock, would be counted on.
  const plain = new Date(asUtc)
  const read = [plain.getUTCMonth() + 1, plain.getUTCDate(), plain.getUTCHours()]
  if (read[0] !== mo || read[1] !== d || read[2] !== h || mi > 59 || s > 59) {
    throw refused(text, 'there is no such date or time of day')
  }
  if (zone === undefined) return localTime(text, parts, ms)
  if (zone.toUpperCase() === 'Z') return asUtc
  const offset = Number(zone.slice(1, 3)) * 60 + Number(zone.slice(-2))
  return asUtc - (zone.startsWith('-') ? -1 : 1) * offset * 60_000
}

type SixNumbers = [number, number, number, number, number, number]

function localTime(text: string, [y, mo, d, h, mi, s]: SixNumbers, ms: number): number {
  const date = new Date(y, mo - 1, d, h, mi, s, ms)
  if (date.getHours() !== h || date.getMinutes() !== mi) {
    throw refused(text, 'the clocks were put forward over that time here')
  }
  // The same reading an hour earlier or later: the clocks were put back.
  for (const step of [-3_600_000, 3_600_000]) {
    const other = new Date(date.getTime() + step)
    if (other.getHours() === h && other.getMinutes() === mi && other.getDate() === d) {
      const both = [clock(date.getTime()), clock(other.getTime())].join(' or ')
      throw refused(text, `the clocks were put back: it is ${both}`)
    }
  }
  return date.getTime()
}

/** What chrono reads, when it reads all of it, and only one moment. */
function spokenTime(text: string, nowMs: number): number {
  // 270 files: loaded when somebody writes a time in words.
  const { casual } = require('chrono-node') as typeof import('chrono-node')
  const found = casual.parse(text, new Date(nowMs), { forwardDate: false })
  const [first] = found
  if (first === undefined) throw refused(text, 'it is no time, and no snapshot is called so')
  const { start, end } = first
  const understood = clock(start.date().getTime())
  const whole = first.index === 0 && first.text.length === text.length
  if (!whole || found.length > 1) {
    throw refused(text, `only ${JSON.stringify(first.text)} was understood, as ${understood}`)
  }
  if (end !== undefined && end !== null) throw refused(text, 'it is a span of time, not a moment')
  if (start.tags().has('parser/SlashDateFormatParser')) {
    const iso = understood.slice(0, 10)
    throw refused(text, `the day or the month may come first; ${iso} is one of them`)
  }
  // "2 days ago" is this time of that day.
  if (!start.isCertain('hour') && !/ ago$/i.test(text)) {
    throw refused(text, `a day is no moment; write: ${text} 14:00`)
  }
  return start.date().getTime()
}

/** `2026-11-22 14:03:12 +0000` */
export function clock(ms: number): string {
  const [, day, time, zone = ''] =
    /^(.*)T(.{8})(.*)$/.exec(formatTime(BigInt(Math.floor(ms)) * 1_000_000n, 0)) ?? []
  return `${day} ${time} ${zone.replace(':', '')}`
}

function refused(text: string, why: string): HoldfastError {
  return new HoldfastError('USAGE', `${JSON.stringify(text)}: ${why}`, {
    op: 'moment',
    hint: EXAMPLES,
  })
}
