/**
 * The part of this host in a cut of a group that is no snapshot: markers in the journals of its volumes,
 * at one instant with those of the other hosts. No hooks run, nobody is looked for, nothing is kept; its
 * coordinator's end, or the time for it, ends it, and the hold has its own watchdog.
 */

import { outOfTurn } from '../group/calls.js'
import type { Question } from '../group/wire.js'
import { HoldfastError } from '../lib/errors.js'
import { HORIZON_MARKER } from '../lib/limits.js'
import type { Member } from '../snapshot/certificate.js'
import { HostHold, shown } from './host-hold.js'
import type { Volume } from './registry.js'
import { requireProtected } from './taking.js'

const op = 'group.cut'

export class MarkerPart {
  readonly #volumes: readonly Volume[]
  readonly #over = new AbortController()
  readonly #timer: NodeJS.Timeout
  readonly #hold: HostHold

  constructor({ order, volumes }: { order: Question<'prepare'>; volumes: readonly Volume[] }) {
    const { group, maxHoldMs, timeoutMs } = order
    this.#volumes = volumes
    const name = `${HORIZON_MARKER} ${group}`
    const { signal } = this.#over
    this.#hold = new HostHold({ volumes, name, maxHoldMs, keep: false, signal })
    this.#timer = setTimeout(() => this.abort(), timeoutMs)
  }

  async prepare(): Promise<{ needsBarrier: boolean }> {
    await requireProtected(this.#volumes, { waitMs: 0 })
    return { needsBarrier: false }
  }

  async arm(): Promise<{ writeLocks: number }> {
    await this.#hold.arm()
    return { writeLocks: 0 }
  }

  hold(): Promise<{ restNs: bigint }> {
    return this.#hold.hold()
  }

  async release(): Promise<Member[]> {
    return (await this.#hold.release()).map(shown)
  }

  async holdBetween(startNs: bigint, untilNs: bigint): Promise<Member[]> {
    return (await this.#hold.holdBetween(startNs, untilNs)).map(shown)
  }

  /** There is nothing to keep. */
  async commit(): Promise<void> {
    throw outOfTurn(op)
  }

  /** Idempotent. */
  abort(): void {
    clearTimeout(this.#timer)
    this.#over.abort(new HoldfastError('ABORTED', 'that cut is over', { op }))
    this.#hold.leave()
  }

  /** Resolves when nothing of it is under way. */
  ended(): Promise<void> {
    return this.#hold.ended()
  }
}
