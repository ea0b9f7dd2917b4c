/**
 * The clock by which this host agrees on instants with others: CLOCK_MONOTONIC, which nobody sets.
 *
 * HOLDFAST_TEST_CLOCK names a file with `{"offsetNs": "…", "driftPpm": n}`: this host's clock is then
 * shown shifted, and drifting since boot, as another machine's is. Read each time, so that it can jump.
 */
import { readFileSync } from 'node:fs'

const MILLION = 1_000_000n

interface Shift {
  offsetNs: bigint
  driftPpm: bigint
}

const NONE: Shift = { offsetNs: 0n, driftPpm: 0n }

function shift(): Shift {
  const path = process.env.HOLDFAST_TEST_CLOCK
  if (path === undefined) return NONE
  const { offsetNs, driftPpm } = JSON.parse(readFileSync(path, 'utf8'))
  return { offsetNs: BigInt(offsetNs), driftPpm: BigInt(driftPpm) }
}

/** What this host's clock shows at an instant of CLOCK_MONOTONIC, ns. */
export function shownAt(monotonicNs: bigint): bigint {
  const { offsetNs, driftPpm } = shift()
  return monotonicNs + (monotonicNs * driftPpm) / MILLION + offsetNs
}

/** The instant of CLOCK_MONOTONIC at which this host's clock shows that, ns. */
export function monotonicAt(shownNs: bigint): bigint {
  const { offsetNs, driftPpm } = shift()
  return ((shownNs - offsetNs) * MILLION) / (MILLION + driftPpm)
}

export function shownNow(): bigint {
  return shownAt(process.hrtime.bigint())
}
