/**
 * The limit of lag: while a replica is further behind than it may be, changes are slowed down.
 *
 * Each by a second at most (the data plane's bound), and for no longer than the replica's loss is
 * waited for: who is gone slows nobody.
 */
import type { Logger } from '../lib/log.js'
import type { ShipperState } from '../replication/ship-state.js'
import type { CapturedView } from './captured.js'

/** Slowed until it is this much below the limit: not on and off with every write. */
const EASED = 0.9

export interface LagLimits {
  maxLagBytes: number | null
  maxLagMs: number | null
  lossMs: number
}

interface Watched {
  logged: bigint
  movedAt: number
  slowing: boolean
  lost: boolean
}

export class LagLimit {
  readonly #watched = new Map<string, Watched>()
  readonly #captured: CapturedView
  readonly #slow: (on: boolean) => void
  readonly #log: Logger
  #on = false

  constructor(options: { captured: CapturedView; slow(on: boolean): void; log: Logger }) {
    this.#captured = options.captured
    this.#slow = options.slow
    this.#log = options.log
  }

  slowedBy(peer: string): boolean {
    return this.#watched.get(peer)?.slowing === true
  }

  /** Looks at all replicas; those not named are gone. */
  look(replicas: ReadonlyMap<string, { limits: LagLimits; state: ShipperState }>): void {
    for (const peer of this.#watched.keys()) if (!replicas.has(peer)) this.#watched.delete(peer)
    for (const [peer, { limits, state }] of replicas) this.#lookAt(peer, limits, state)
    const on = [...this.#watched.values()].some(({ slowing }) => slowing)
    if (on === this.#on) return
    this.#on = on
    this.#slow(on)
  }

  #lookAt(peer: string, limits: LagLimits, state: ShipperState): void {
    const now = Date.now()
    const { logged } = state
    const known = this.#watched.get(peer)
    const watched = known ?? { logged, movedAt: now, slowing: false, lost: false }
    this.#watched.set(peer, watched)
    const { bytes, seconds } = this.#captured.behind(logged)
    const ms = seconds * 1000
    if (logged !== watched.logged || bytes === 0) {
      watched.logged = logged
      watched.movedAt = now
    }
    const share = Math.max(
      bytes / (limits.maxLagBytes ?? Infinity),
      ms / (limits.maxLagMs ?? Infinity),
    )
    const over = !state.baseline && share > (watched.slowing ? EASED : 1)
    const lost = over && now - watched.movedAt >= limits.lossMs
    if (lost && !watched.lost) {
      this.#log.error({ peer, bytes, ms }, 'a replica stands still: changes wait for it no more')
    }
    const slowing = over && !lost
    if (slowing && !watched.slowing && !watched.lost) {
      this.#log.warn({ peer, bytes, ms }, 'a replica lags too far behind: changes are slowed down')
    }
    watched.lost = lost || (watched.lost && over)
    watched.slowing = slowing
  }
}
