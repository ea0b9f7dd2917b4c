/**
 * I/O of this host's volumes on hold as a coordinator of a group orders it: at its word, or between two instants.
 * From `arm` on this host takes no other snapshot, until the markers are durable or `leave`.
 */
import { randomUUID } from 'node:crypto'
import { outOfTurn } from '../group/calls.js'
import { monotonicAt, shownAt, shownNow } from '../group/host-clock.js'
import { deferred } from '../lib/deferred.js'
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import type { Member } from '../snapshot/certificate.js'
import { removeStaleMeetings } from '../snapshot/meeting.js'
import { takeCut } from './cut.js'
import { runDirectory } from './places.js'
import type { Volume } from './registry.js'
import { requireMarked, takeTurn } from './taking.js'

const op = 'group.cut'

export interface HostHoldOptions {
  volumes: readonly Volume[]
  /** What the markers are called. */
  name: string
  maxHoldMs: number
  /** False: markers and no more. */
  keep?: boolean
  /** Raised, with an error as its reason, when it has been given up. */
  signal: AbortSignal
}

export class HostHold {
  readonly #options: HostHoldOptions
  #turn: { close(): unknown } | undefined
  /** How often it was. */
  #left = 0
  #release = deferred<void>()
  #holding: Promise<Member[]> | undefined

  constructor(options: HostHoldOptions) {
    this.#options = options
  }

  /** BUSY; the reason of the signal. */
  async arm(): Promise<void> {
    this.requireGoing()
    const left = this.#left
    this.#turn ??= await takeTurn()
    removeStaleMeetings(runDirectory(), Date.now())
    // Given up, or ended, while it waited: nobody would give the turn back.
    const isOver = this.#left !== left
    if (isOver || this.#options.signal.aborted) this.leave()
    this.requireGoing()
    if (isOver) throw outOfTurn(op)
  }

  /** I/O is at rest; it stays so until `release`, or until the longest time that it may. `atRest` runs then. */
  async hold(atRest?: (over: AbortSignal) => Promise<void>): Promise<{ restNs: bigint }> {
    const rest = deferred<bigint>()
    const release = deferred<void>()
    this.#release = release
    this.#holding = this.#cut({
      whileHeld: async (over) => {
        await atRest?.(over)
        rest.resolve(shownNow())
        const ended = raised(AbortSignal.any([over, this.#options.signal]))
        await Promise.race([release.promise, ended])
      },
    })
    await Promise.race([rest.promise, this.#holding])
    return { restNs: await rest.promise }
  }

  async release(): Promise<Member[]> {
    this.#release.resolve()
    if (this.#holding === undefined) throw outOfTurn(op)
    return this.#marked(await this.#holding)
  }

  /** By the clock that this host shows. */
  async holdBetween(startNs: bigint, untilNs: bigint): Promise<Member[]> {
    const between = { startNs: monotonicAt(startNs), untilNs: monotonicAt(untilNs) }
    this.#holding = this.#cut({ between })
    return this.#marked(await this.#holding)
  }

  /** Others have their turn. Idempotent. */
  leave(): void {
    this.#left += 1
    this.#turn?.close()
    this.#turn = undefined
  }

  /** Resolves when nothing is on hold. */
  async ended(): Promise<void> {
    await this.#holding?.catch(() => {})
  }

  requireGoing(): void {
    const { signal } = this.#options
    if (signal.aborted) throw toHoldfastError(signal.reason, op)
  }

  async #cut(how: Pick<Parameters<typeof takeCut>[1], 'whileHeld' | 'between'>): Promise<Member[]> {
    this.requireGoing()
    const { volumes, name, maxHoldMs, keep } = this.#options
    const order = { id: randomUUID(), name, maxHoldMs, keep, attempts: 1, ...how }
    return (await takeCut(volumes, order)).members
  }

  /** The markers are durable before anybody hears of them. */
  async #marked(members: Member[]): Promise<Member[]> {
    await requireMarked(this.#options.volumes)
    this.leave()
    return members
  }
}

/** As the clock that this host shows. */
export function shown({ volume, uuid, seq, closedNs, restNs, releaseNs }: Member): Member {
  const at = (ns: string) => `${shownAt(BigInt(ns))}`
  return {
    volume,
    uuid,
    seq,
    closedNs: at(closedNs),
    restNs: at(restNs),
    releaseNs: at(releaseNs),
  }
}

/** Rejects when the signal is raised. */
function raised(signal: AbortSignal): Promise<never> {
  const message = 'I/O was not released in time by the coordinator'
  return new Promise((_resolve, reject) => {
    const stop = () => reject(new HoldfastError('HOLD_EXPIRED', message, { op }))
    if (signal.aborted) stop()
    else signal.addEventListener('abort', stop, { once: true })
  })
}
