/**
 * Comparisons that nobody asked for: on schedule, and when a replica is in doubt (a power loss of its
 * host, a guard that was taken away), then with repair.
 */
import { SCRUB_BYTES_PER_S } from '../lib/limits.js'
import type { Logger } from '../lib/log.js'
import type { ShipperState } from '../replication/ship-state.js'
import type { VerifyOptions } from './verification.js'

interface Scrubbed {
  options: { peer: string; scrubMs: number; applyDelayMs: number }
  state: ShipperState
}

/** As far as is known, the replica's tree lacks nothing that its log has. */
export function isWhole({ connections, baseline, needs }: ShipperState): boolean {
  return connections > 0 && !baseline && needs === 0
}

export class Scrub {
  readonly #log: Logger
  /** When a comparison was begun last by the clock, for each replica. */
  readonly #begunAt = new Map<string, number>()

  constructor(log: Logger) {
    this.#log = log
  }

  /** What was never compared is so one interval from now. */
  added(peer: string): void {
    this.#begunAt.set(peer, Date.now())
  }

  /** The comparison that is due now; undefined when none is. */
  due(replicas: readonly Scrubbed[], now = Date.now()): VerifyOptions | undefined {
    const due = replicas.filter((each) => this.#isDue(each, now))
    if (due.length === 0) return undefined
    const peers = due.map(({ options }) => options.peer)
    const doubtful = due.some(({ state }) => state.verdict.doubt)
    for (const peer of peers) this.#begunAt.set(peer, now)
    this.#log.info({ peers, doubtful }, 'everything is compared')
    return { peers, repair: doubtful, bytesPerS: doubtful ? 0 : SCRUB_BYTES_PER_S }
  }

  #isDue({ options, state }: Scrubbed, now: number): boolean {
    const { peer, scrubMs, applyDelayMs } = options
    // What is applied late on purpose would be compared as late.
    if (applyDelayMs > 0 || state.connection !== 'connected' || !isWhole(state)) return false
    const { verified, doubt } = state.verdict
    const last = Math.max(verified?.at ?? 0, this.#begunAt.get(peer) ?? 0)
    return doubt || (scrubMs > 0 && now - last >= scrubMs)
  }
}
