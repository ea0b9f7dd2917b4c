/** Values on the command line: parsed once, refused with what would be right. */
import { readFileSync } from 'node:fs'
import { InvalidArgumentError } from 'commander'
import { formatBytes, parseBytes, parseDuration } from '../lib/format.js'
import { RATE_BYTES_MIN } from '../lib/limits.js'

export function sizeArgument(text: string): number {
  const bytes = parseBytes(text)
  if (bytes === undefined) throw new InvalidArgumentError('Give a size such as 512M or 4GiB.')
  return bytes
}

/** A size, or `none` for no limit (null). */
export function sizeOrNone(text: string): number | null {
  return text === 'none' ? null : sizeArgument(text)
}

/** Bytes per second, or `none` (null). */
export function rateArgument(text: string): number | null {
  const bytes = sizeOrNone(text.replace(/\/s$/, ''))
  if (bytes === null || bytes >= RATE_BYTES_MIN) return bytes
  throw new InvalidArgumentError(
    `Give at least ${formatBytes(RATE_BYTES_MIN)} per second, or none.`,
  )
}

/** What a replica may lag behind, by size or by time; null where there is no limit. */
export interface LagArgument {
  maxLagBytes: number | null
  maxLagMs: number | null
}

/** A size (`64M`), a duration (`5s`, `10m`), or `none`. Minutes are a small m. */
export function lagArgument(text: string): LagArgument {
  const none = { maxLagBytes: null, maxLagMs: null }
  if (text === 'none') return none
  const maxLagMs = /[a-z]$/.test(text) ? parseDuration(text) : undefined
  if (maxLagMs !== undefined && maxLagMs > 0) return { ...none, maxLagMs }
  const maxLagBytes = parseBytes(text)
  if (maxLagBytes !== undefined && maxLagBytes > 0) return { ...none, maxLagBytes }
  throw new InvalidArgumentError('Give a size such as 64M, a duration such as 5s, or none.')
}

/** Milliseconds. */
export function durationArgument(text: string): number {
  const ms = parseDuration(text)
  if (ms === undefined) throw new InvalidArgumentError('Give a duration such as 90s, 12h or 7d.')
  return ms
}

/** A duration, ms, down to microseconds. */
export function fineDurationArgument(text: string): number {
  const ms = parseDuration(text, { perMs: 1000 })
  if (ms === undefined) throw new InvalidArgumentError('Give a duration such as 9.5ms.')
  return ms
}

/** A duration, or `none` for no limit (null). */
export function durationOrNone(text: string): number | null {
  return text === 'none' ? null : durationArgument(text)
}

export function seqArgument(text: string): bigint {
  if (!/^\d{1,19}$/.test(text)) throw new InvalidArgumentError('Give a sequence number.')
  return BigInt(text)
}

export function countArgument(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError('Give a number.')
  return Number(text)
}

/** A point in time (ns since the epoch): a duration ago (`10m`), or a date that JavaScript reads. */
export function timeArgument(text: string): bigint {
  const ago = parseDuration(text)
  const ms = ago === undefined ? Date.parse(text) : Date.now() - ago
  if (Number.isNaN(ms)) {
    throw new InvalidArgumentError('Give a time such as 10m (ago) or 2026-01-31T14:00.')
  }
  return BigInt(ms) * 1_000_000n
}

/** The bytes of an argument: a name that is no UTF-8 is not the text that Node makes of it. */
export function rawArgument(text: string): Buffer {
  const plain = Buffer.from(text)
  if (!text.includes('\ufffd')) return plain
  const line = readFileSync('/proc/self/cmdline')
  for (let from = 0; from < line.length; ) {
    const at = line.indexOf(0, from)
    const end = at < 0 ? line.length : at
    const bytes = line.subarray(from, end)
    if (bytes.toString() === text) return Buffer.from(bytes)
    from = end + 1
  }
  return plain
}
