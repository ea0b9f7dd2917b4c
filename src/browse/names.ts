/**
 * Names of a browse tree are text; names of a volume are bytes. Each name of a volume has exactly one
 * text (`printable`: as it is when it is UTF-8 without control characters or backslashes, else with
 * octal escapes), and only that text leads back to it.
 */
import { printable, unprintable } from '../lib/printable.js'

export function shownName(name: Uint8Array): string {
  return printable(name)
}

/** The name that is shown so; undefined: no name is. */
export function nameShown(text: string): Buffer | undefined {
  const name = unprintable(text)
  const isOne = name.length > 0 && !name.includes(0) && !name.includes(0x2f)
  return isOne && printable(name) === text ? name : undefined
}

/** A piece of a name that is made here: what a command calls itself may hold anything. */
export function namePiece(text: string): string {
  return printable(Buffer.from(text)).replaceAll('/', '\\057')
}

/** `2026-11-22T14-03-12.120Z`: sorts by time, and no tool takes it for a port or a drive. */
export function shownTime(ms: number): string {
  return new Date(ms).toISOString().replaceAll(':', '-')
}

/** Milliseconds of a time as it is shown, or as JavaScript reads it; undefined: it is none. */
export function timeShown(text: string): number | undefined {
  const plain = text.replace(/T(\d\d)-(\d\d)(?:-(\d\d))?/, (_all, hours, minutes, seconds) => {
    return `T${hours}:${minutes}:${seconds ?? '00'}`
  })
  if (!/^\d{4}-\d\d-\d\d/.test(plain)) return undefined
  const ms = Date.parse(plain)
  return Number.isNaN(ms) ? undefined : ms
}
