/** Values on the command line: parsed once, refused with what would be right. */
import { InvalidArgumentError } from 'commander'
import { parseBytes, parseDuration } from '../lib/format.js'

export function sizeArgument(text: string): number {
  const bytes = parseBytes(text)
  if (bytes === undefined) throw new InvalidArgumentError('Give a size such as 512M or 4GiB.')
  return bytes
}

/** A size, or `none` for no limit (null). */
export function sizeOrNone(text: string): number | null {
  return text === 'none' ? null : sizeArgument(text)
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
