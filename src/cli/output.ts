/**
 * What the command line prints: results on stdout, everything else on stderr, errors in at most
 * three lines. Colours only on a terminal, never with NO_COLOR.
 */
import picocolors from 'picocolors'
import { type ExitCode, HoldfastError, toHoldfastError } from '../lib/errors.js'

const { createColors, isColorSupported } = picocolors

/** Colours for stdout and for stderr: each only when it is a terminal. */
export const out = createColors(isColorSupported && process.stdout.isTTY === true)
export const err = createColors(isColorSupported && process.stderr.isTTY === true)

/** One line, or several, on stdout. */
export function print(text: string): void {
  process.stdout.write(`${text}\n`)
}

/** A remark on stderr: it does not disturb what reads stdout. */
export function remark(text: string): void {
  process.stderr.write(`${text}\n`)
}

/** JSON on stdout; bigints as numbers, or as strings beyond 2^53. */
export function printJson(value: unknown, { line = false } = {}): void {
  print(jsonText(value, { line }))
}

/** The same without the line's end. */
export function jsonText(value: unknown, { line = false } = {}): string {
  return JSON.stringify(value, jsonValue, line ? undefined : 2)
}

function jsonValue(_key: string, value: unknown): unknown {
  if (typeof value !== 'bigint') return value
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : `${value}`
}

/** Prints `error`: what and where, the cause, what to do. Returns the exit code. */
export function reportError(error: unknown, { json = false } = {}): ExitCode {
  const known = toHoldfastError(error, 'holdfast')
  if (json) process.stderr.write(`${JSON.stringify({ error: known.toJSON() })}\n`)
  else {
    remark(`${err.red('error')}: ${known.message} ${err.dim(`[${known.code}]`)}`)
    if (known.hint !== undefined) remark(`  ${known.hint}`)
  }
  if (process.env.HOLDFAST_DEBUG) remark(debugText(known))
  return known.exitCode
}

function debugText(error: HoldfastError): string {
  const lines = [error.stack ?? '']
  for (let cause = error.cause; cause !== undefined; ) {
    lines.push(`caused by ${cause instanceof Error ? cause.stack : String(cause)}`)
    cause = cause instanceof Error ? cause.cause : undefined
  }
  return lines.join('\n')
}

/** Rows as columns, two blanks apart; the last column is not padded. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths: number[] = []
  for (const row of rows) {
    row.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, visibleLength(cell))
    })
  }
  return rows
    .map((row) =>
      row
        .map((cell, column) =>
          column === row.length - 1
            ? cell
            : cell + ' '.repeat((widths[column] ?? 0) - visibleLength(cell)),
        )
        .join('  '),
    )
    .join('\n')
}

function visibleLength(text: string): number {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: colour sequences have no width
  return text.replaceAll(/\u001b\[[0-9;]*m/g, '').length
}

/** Stops a listing quietly when its reader is gone: `holdfast journal tail | head`. */
export function exitOnClosedPipe(): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    process.exit(error.code === 'EPIPE' ? 0 : 1)
  })
}

/** An AbortSignal of the first SIGINT or SIGTERM; the second ends the process. */
export function interruptSignal(): AbortSignal {
  return catchInterrupts().signal
}

export interface Interrupts {
  signal: AbortSignal
  /** From now on they are somebody else's. Idempotent. */
  release(): void
}

/** As `interruptSignal`, for as long as they are wanted. */
export function catchInterrupts(): Interrupts {
  const controller = new AbortController()
  const onSignal = () => {
    if (controller.signal.aborted) process.exit(130)
    controller.abort()
  }
  const caught = ['SIGINT', 'SIGTERM'] as const
  for (const signal of caught) process.on(signal, onSignal)
  const release = () => {
    for (const signal of caught) process.off(signal, onSignal)
  }
  return { signal: controller.signal, release }
}

/** A question of usage that commander cannot see. */
export function usageError(message: string, hint?: string): HoldfastError {
  return new HoldfastError('USAGE', message, { op: 'arguments', hint })
}
