/**
 * Structured logs: one pino logger per process, JSON lines. The one file that imports `pino`.
 * A daemon logs what the operator acts on; errors are returned, not logged on the way.
 *
 * Invariant: to log never fails. A disk without room, or a reader that is gone, costs lines, never the
 * process: with a daemon its mount would go, and whoever logs in a `catch` has nobody to catch more.
 */
import { writeSync } from 'node:fs'
import { type DestinationStream, type Logger, pino, stdTimeFunctions } from 'pino'
import { LOG_PATIENCE_MS, LOG_RETRY_MS } from './limits.js'

export type { Logger }

export interface LogOptions {
  /** File descriptor to write to; 2 is stderr. */
  fd?: number
  level?: string | undefined
  /** Fields on every line. */
  base?: Record<string, unknown>
}

export function makeLogger({ fd = 2, level, base = {} }: LogOptions = {}): Logger {
  return pino(
    {
      level: level ?? process.env.HOLDFAST_LOG_LEVEL ?? 'info',
      base: { pid: process.pid, ...base },
      timestamp: stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    new Lines(fd),
  )
}

/** A logger that says nothing, for tests and library use. */
export function silentLogger(): Logger {
  return pino({ level: 'silent' })
}

/**
 * Writes whole lines, and drops those that cannot be written. Not pino's own destination: that throws what
 * write(2) says, keeps every line that failed in memory, and waits for a full pipe without end.
 */
class Lines implements DestinationStream {
  readonly #fd: number
  /** The last line has no end: what comes next must not be taken for a part of it. */
  #torn = false
  /** The last line was waited for in vain. */
  #stuck = false

  constructor(fd: number) {
    this.#fd = fd
  }

  /** Synchronous: the last line before a crash is the one that matters. Never throws. */
  write(line: string): void {
    const bytes = Buffer.from(this.#torn ? `\n${line}` : line)
    let at = 0
    const end = performance.now() + (this.#stuck ? 0 : LOG_PATIENCE_MS)
    this.#stuck = false
    while (at < bytes.length) {
      try {
        at += writeSync(this.#fd, bytes, at)
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') break
        this.#stuck = performance.now() >= end
        if (this.#stuck) break
        Atomics.wait(NEVER, 0, 0, LOG_RETRY_MS)
      }
    }
    // Of a line of which nothing is there, nothing is torn; nor is anything mended.
    if (at > 0) this.#torn = at < bytes.length
  }
}

const NEVER = new Int32Array(new SharedArrayBuffer(4))
