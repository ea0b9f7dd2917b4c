/** Values on the command line: parsed once, refused with what would be right. */
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
