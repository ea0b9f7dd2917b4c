/**
 * The part of this host in one cut of a group: prepared, armed, held, and then kept or undone. However
 * its coordinator ends, it ends, too: its connection, or the time for it, bounds every state, and the
 * hold has its own watchdog.
 */
import { outOfTurn } from '../group/calls.js'
import type { Question } from '../group/wire.js'
import { deferred } from '../lib/deferred.js'
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import { CUT_GATHER_MS } from '../lib/limits.js'
import type { Logger } from '../lib/log.js'
import { ownerOf } from '../lib/process-id.js'
import { CERTIFICATE_VERSION, type Certificate, type Member } from '../snapshot/certificate.js'
import { aroundSnapshot, type HookSession } from '../snapshot/hook-session.js'
import { ControlClient, ifRunning } from './client.js'
import { openHooks } from './hooks.js'
import { HostHold, shown } from './host-hold.js'
import { useSnapshot } from './in-use.js'
import type { Volume } from './registry.js'
import {
  checkRequest,
  keep,
  lookAround,
  requireNew,
  requireProtected,
  type Seen,
} from './taking.js'

const op = 'group.cut'

/** What is known once I/O was held. */
interface Taken {
  seen: Seen
  members: Member[]
}

export class GroupPart {
  readonly #order: Question<'prepare'>
  readonly #volumes: readonly Volume[]
  readonly #log: Logger
  readonly #hooks: HookSession
  readonly #abort = new AbortController()
  /** Keeps or undoes: what the hooks wait for. */
  readonly #verdict = deferred<Question<'commit'>>()
  readonly #kept = deferred<void>()
  #isKept = false
  readonly #timer: NodeJS.Timeout
  readonly #hold: HostHold
  #done: Promise<Certificate> | undefined
  #seen: Seen | undefined
  #taken: Taken | undefined

  constructor(options: {
    order: Question<'prepare'>
    volumes: readonly Volume[]
    log: Logger
  }) {
    const { order, volumes, log } = options
    const { snapshot, labels, maxHoldMs, timeoutMs, group, members, coordinator } = order
    this.#order = order
    this.#volumes = volumes
    this.#log = log.child({ group, snapshot, cut: order.cut })
    checkRequest(snapshot, maxHoldMs)
    requireNew(snapshot)
    const about = { name: group, coordinator, members }
    this.#hooks = openHooks(
      volumes,
      { snapshot, labels, maxHoldMs, dryRun: false, group: about },
      { hooks: order.hooks ? undefined : false, signal: this.#abort.signal },
    )
    this.#hold = new HostHold({ volumes, name: snapshot, maxHoldMs, signal: this.#abort.signal })
    this.#timer = setTimeout(() => this.abort(late(timeoutMs)), timeoutMs)
  }

  /** Resolves when it is armed: from then on the coordinator may order the hold at any time. */
  async prepare(): Promise<{ needsBarrier: boolean }> {
    const armed = deferred<void>()
    const use = await useSnapshot(this.#order.cut)
    const check = () => requireProtected(this.#volumes, { waitMs: CUT_GATHER_MS })
    const take = async () => {
      armed.resolve()
      return this.#keep(await this.#verdict.promise)
    }
    this.#done = aroundSnapshot(this.#hooks, { check, take }).finally(() => {
      use.close()
      this.#leave()
    })
    this.#done.catch((error: unknown) => {
      const { code, message } = toHoldfastError(error, op)
      this.#log.warn({ code, reason: message }, 'there is no snapshot of the group')
    })
    await Promise.race([armed.promise, this.#done])
    this.#log.debug('armed')
    return { needsBarrier: this.#hooks.hasHeld }
  }

  /** How many write locks were held just then. */
  async arm(): Promise<{ writeLocks: number }> {
    await this.#hold.arm()
    this.#seen = await lookAround(this.#volumes)
    // It may have been given up meanwhile.
    this.#hold.requireGoing()
    return { writeLocks: this.#seen.locks.filter(({ access }) => access === 'WRITE').length }
  }

  async hold(): Promise<{ restNs: bigint }> {
    this.#taken = undefined
    const { maxHoldMs: holdMs } = this.#order
    return this.#hold.hold(async (over) => {
      if (this.#hooks.hasHeld) await this.#hooks.held({ holdMs, over })
    })
  }

  async release(): Promise<Member[]> {
    return this.#held(await this.#hold.release())
  }

  async holdBetween(startNs: bigint, untilNs: bigint): Promise<Member[]> {
    this.#taken = undefined
    return this.#held(await this.#hold.holdBetween(startNs, untilNs))
  }

  /** Resolves when the snapshot is kept here; what follows it runs for as long as it takes: see `ended`. */
  async commit(question: Question<'commit'>): Promise<void> {
    if (this.#done === undefined || this.#taken === undefined) throw outOfTurn(op)
    this.#verdict.resolve(question)
    await Promise.race([this.#kept.promise, this.#done])
  }

  /** There is no snapshot. Idempotent; nothing happens once it is kept. */
  abort(error: HoldfastError): void {
    if (this.#isKept) return
    this.#abort.abort(error)
    this.#verdict.reject(error)
  }

  /** Resolves when what was begun has been undone, or has followed. */
  async ended(): Promise<void> {
    await this.#done?.catch(() => {})
  }

  #held(members: Member[]): Member[] {
    if (this.#seen === undefined) throw outOfTurn(op)
    this.#taken = { seen: this.#seen, members }
    return members.map(shown)
  }

  async #keep({ created, method, attempt }: Question<'commit'>): Promise<Certificate> {
    if (this.#taken === undefined) throw outOfTurn(op)
    const { cut: id, snapshot: name, labels, maxHoldMs, group, coordinator, members } = this.#order
    const certificate: Certificate = {
      version: CERTIFICATE_VERSION,
      id,
      name,
      created,
      labels,
      maxHoldMs,
      attempt,
      members: this.#taken.members,
      ...this.#taken.seen,
      owner: this.#order.temporary ? ownerOf(process.pid) : null,
      hooks: [...this.#hooks.runs],
      group: { name: group, coordinator, method, members },
    }
    keep(this.#volumes, certificate, this.#hooks)
    this.#isKept = true
    // What is left of the time was for the coordinator.
    clearTimeout(this.#timer)
    for (const { config } of this.#volumes) {
      await ifRunning(new ControlClient(config.name).refreshHistory())
    }
    this.#log.info({ method, attempt }, 'the snapshot of the group is kept')
    this.#kept.resolve()
    return certificate
  }

  #leave(): void {
    clearTimeout(this.#timer)
    this.#hold.leave()
  }
}

function late(timeoutMs: number): HoldfastError {
  const message = `the coordinator did not end the cut within ${timeoutMs / 1000} s`
  return new HoldfastError('TIMEOUT', message, { op })
}
