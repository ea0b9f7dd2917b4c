/**
 * Structured logs: one pino logger per process, JSON lines. The one file that imports `pino`.
 * A daemon logs what the operator acts on; errors are returned, not logged on the way.
 */
import { type DestinationStream, destination, type Logger, pino, stdTimeFunctions } from 'pino'

export type { Logger }

export interface LogOptions {
  /** File descriptor to write to; 2 is stderr. */
  fd?: number
  level?: string | undefined
  /** Fields on every line. */
  base?: Record<string, unknown>
}

export function makeLogger({ fd = 2, level, base = {} }: LogOptions = {}): Logger {
  // Synchronous: the last line before a crash is the one that matters.
  const target: DestinationStream = destination({ fd, sync: true })
  return pino(
    {
      level: level ?? process.env.HOLDFAST_LOG_LEVEL ?? 'info',
      base: { pid: process.pid, ...base },
      timestamp: stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    target,
  )
}

/** A logger that says nothing, for tests and library use. */
export function silentLogger(): Logger {
  return pino({ level: 'silent' })
}
