/** Numbers, sizes, durations and times for people. */

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const

/** 1536 → `1.5 KiB` */
export function formatBytes(bytes: number | bigint): string {
  let value = Number(bytes)
  let unit = 0
  while (Math.abs(value) >= 1024 && unit < UNITS.length - 1) {
    value /= 1024
    unit += 1
  }
  const digits = unit === 0 || Math.abs(value) >= 100 ? 0 : 1
  return `${value.toFixed(digits)} ${UNITS[unit]}`
}

/** 12345678 → `12,345,678` */
export function formatCount(count: number | bigint): string {
  return count.toLocaleString('en-US')
}

/** Nanoseconds as `430 µs`, `2.1 ms`, `3.5 s`, `4 min 10 s`, `3 h 2 min`, `5 d 1 h`. */
export function formatDuration(ns: number | bigint): string {
  const us = Number(ns) / 1e3
  if (us < 1) return `${Number(ns)} ns`
  if (us < 1e3) return `${us.toFixed(us < 10 ? 1 : 0)} µs`
  if (us < 1e6) return `${(us / 1e3).toFixed(us < 1e4 ? 1 : 0)} ms`
  const seconds = us / 1e6
  if (seconds < 60) return `${seconds.toFixed(1)} s`
  const whole = Math.floor(seconds)
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`
  if (whole < 86_400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`
  return `${Math.floor(whole / 86_400)} d ${Math.floor((whole % 86_400) / 3600)} h`
}

/** Nanoseconds since the epoch as local ISO time with offset: `2026-01-31T14:05:09.123456789+01:00` */
export function formatTime(ns: bigint, digits = 6): string {
  const fraction = (((ns % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n)
    .toString()
    .padStart(9, '0')
    .slice(0, digits)
  const seconds =
    (ns - (((ns % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n)) / 1_000_000_000n
  const date = new Date(Number(seconds) * 1000)
  const offset = -date.getTimezoneOffset()
  const local = new Date(date.getTime() + offset * 60_000).toISOString().slice(0, 19)
  const sign = offset < 0 ? '-' : '+'
  const hours = String(Math.floor(Math.abs(offset) / 60)).padStart(2, '0')
  const minutes = String(Math.abs(offset) % 60).padStart(2, '0')
  return `${local}${digits > 0 ? `.${fraction}` : ''}${sign}${hours}:${minutes}`
}

const SIZE = /^(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?b)?$/i
const POWERS = ['', 'k', 'm', 'g', 't', 'p']

/** `64M`, `1.5GiB`, `4096` → bytes; undefined when it is no size. Units are powers of 1024. */
export function parseBytes(text: string): number | undefined {
  const match = SIZE.exec(text.trim())
  if (match === null) return undefined
  const power = POWERS.indexOf((match[2] ?? '').toLowerCase())
  const bytes = Number(match[1]) * 1024 ** power
  return Number.isSafeInteger(Math.round(bytes)) ? Math.round(bytes) : undefined
}

const SECONDS: Record<string, number> = { s: 1, m: 60, min: 60, h: 3600, d: 86_400, w: 604_800 }

/** `90s`, `10m`, `36h`, `7d`, `2w` → milliseconds, or parts of them; undefined when it is no duration. */
export function parseDuration(text: string, { perMs = 1 } = {}): number | undefined {
  const match = /^(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d|w)$/i.exec(text.trim())
  if (match === null) return undefined
  const unit = (match[2] ?? '').toLowerCase()
  const factor = unit === 'ms' ? 0.001 : SECONDS[unit]
  return factor === undefined
    ? undefined
    : Math.round(Number(match[1]) * factor * 1000 * perMs) / perMs
}
