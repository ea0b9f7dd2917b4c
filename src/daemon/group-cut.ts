/**
 * One cut of a group: every host prepares and arms, with I/O going on; then all hold it at one instant,
 * and keep the snapshot only when that is proven.
 *
 * Two ways to one instant. *Scheduled*: each host holds around an agreed instant, for as long as its clock
 * is uncertain; no message travels inside the hold, and the intervals that the hosts report must have an
 * instant in common whatever their clocks showed. *Barrier*: each holds until all have said that they are at
 * rest; nobody's clock is asked. The states are those of a CephFS quiesce set.
 *
 * Invariant: a host that hears nothing more undoes its part, and releases I/O by its own watchdog.
 */
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { type CutMethod, type Group, type GroupSnapshot, volumesOn } from '../group/definition.js'
import { shownNow } from '../group/host-clock.js'
import { judge } from '../group/verdict.js'
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import { hostName } from '../lib/host-name.js'
import { CLOCK_EXCHANGES, GROUP_ANSWER_MS, GROUP_LEAD_MS, LOCKS_POLL_MS } from '../lib/limits.js'
import { ownerOf } from '../lib/process-id.js'
import { higher } from '../lib/seqs.js'
import type { Member } from '../snapshot/certificate.js'
import type { GroupLink } from './group-link.js'

const op = 'group.cut'
const MS = 1_000_000n

export interface GroupCutOrder {
  name: string
  labels: Readonly<Record<string, string>>
  /** Longest time for which I/O of any member is held, ms. */
  maxHoldMs: number
  /** auto: scheduled where the clocks allow it. */
  method: CutMethod | 'auto'
  attempts: number
  /** For how long members stay armed, ms. */
  timeoutMs: number
  hooks: boolean
  /** It goes with the connections over which it is taken, however they end. */
  temporary: boolean
  /** No snapshot: markers at one instant, of which nothing is kept. */
  markers?: boolean | undefined
  /** Only when no application keeps a write lock although writes wait for so long, ms. */
  checkLocksMs?: number | undefined
  /** At a moment when nobody holds a write lock, within this time, ms. */
  freeWithinMs?: number | undefined
  signal?: AbortSignal | undefined
  /** Told when the state of the set changes. */
  onState?: ((state: QuiesceState) => void) | undefined
}

/** Of an order, what was said. */
export type SaidOfCut = { [Name in keyof GroupCutOrder]?: GroupCutOrder[Name] | undefined }

export type QuiesceState =
  | 'QUIESCING'
  | 'QUIESCED'
  | 'RELEASING'
  | 'RELEASED'
  | 'TIMEDOUT'
  | 'EXPIRED'
  | 'CANCELED'
  | 'FAILED'

/** What the hosts have reported of one attempt that was good. */
interface Held {
  method: CutMethod
  attempt: number
  /** By the coordinator's clock, ns: all were at rest. */
  instantNs: bigint
  hosts: GroupSnapshot['hosts']
}

/** Takes it, and has every host keep it. GROUP_CUT_FAILED, with what each host said. */
export class GroupCut {
  readonly id = randomUUID()
  readonly #group: Group
  readonly #links: readonly GroupLink[]
  readonly #order: GroupCutOrder

  constructor(group: Group, links: readonly GroupLink[], order: GroupCutOrder) {
    this.#group = group
    this.#links = links
    this.#order = order
  }

  /** Resolves when it is proven to be one instant; nobody keeps it yet. */
  async take(): Promise<GroupSnapshot> {
    try {
      this.#state('QUIESCING')
      const needsBarrier = await this.#prepare()
      await this.#requireUnlocked()
      const held = await this.#holdWithin(needsBarrier)
      this.#state('RELEASED')
      return this.#snapshot(held)
    } catch (error) {
      const known = toHoldfastError(error, op)
      this.#state(stateOf(known))
      await this.abort(known)
      throw known
    }
  }

  /** Every host keeps it. */
  async commit({ created, method, attempt }: GroupSnapshot): Promise<void> {
    const { timeoutMs } = this.#order
    await this.#all((link) =>
      link.ask('commit', { cut: this.id, created, method, attempt }, { timeoutMs }),
    )
  }

  /**
   * What follows it on the hosts has run: hooks, each within its own time. Never rejects: a host that does
   * not say has its part all the same, and nobody has to wait for it.
   */
  async followed(): Promise<void> {
    const { signal } = this.#order
    const ask = async (link: GroupLink) => {
      while (!(await link.ask('followed', { cut: this.id }, { signal })).isOver);
    }
    await Promise.allSettled(this.#links.map(ask))
  }

  /** No host keeps it. Never rejects: one that does not hear of it undoes its part by itself. */
  async abort(why: HoldfastError): Promise<void> {
    const question = { cut: this.id, why: why.message.slice(0, 4000) }
    await Promise.allSettled(this.#links.map((link) => link.ask('abort', question)))
  }

  async #prepare(): Promise<boolean> {
    const { name, labels, maxHoldMs, timeoutMs, hooks, temporary, signal } = this.#order
    const { members } = this.#group
    const answers = await this.#all((link) => {
      const volumes = volumesOn(members, link.host)
      const question = {
        cut: this.id,
        group: this.#group.name,
        coordinator: hostName(),
        members,
        snapshot: name,
        labels: { ...labels },
        maxHoldMs,
        volumes,
        timeoutMs,
        hooks,
        temporary,
        markers: this.#order.markers === true,
      }
      return link.ask('prepare', question, { timeoutMs, signal })
    })
    return answers.some(({ needsBarrier }) => needsBarrier)
  }

  async #holdWithin(needsBarrier: boolean): Promise<Held> {
    const { attempts, freeWithinMs = 0 } = this.#order
    const freeUntil = performance.now() + freeWithinMs
    for (let attempt = 1; ; attempt += 1) {
      try {
        await this.#arm(freeUntil)
        return await this.#hold(await this.#choose(needsBarrier, attempt), attempt)
      } catch (error) {
        if (attempt >= attempts || !mayPass(error)) throw error
      }
    }
  }

  /** GROUP_CUT_FAILED, naming who keeps what locked. */
  async #requireUnlocked(): Promise<void> {
    const { checkLocksMs: waitMs, signal } = this.#order
    if (waitMs === undefined) return
    const found = await this.#all((link) =>
      link.ask('check', this.#locksOf(link, waitMs), { signal }),
    )
    const kept = found.flatMap(({ locks }, n) => {
      return locks.map((lock) => ({ host: this.#links[n]?.shownName ?? '', ...lock }))
    })
    const [first] = kept
    if (first === undefined) return
    const { host, command, pid, kind, path } = first
    const more = kept.length === 1 ? '' : `, and ${kept.length - 1} more`
    const message = `${host}: ${command}[${pid}] keeps a write lock (${kind}) on ${path}${more}`
    throw new HoldfastError('GROUP_CUT_FAILED', message, {
      op,
      hint: 'Allow more: --check-locks TIME; or take one at a moment without locks: --when-free TIME',
      details: { locks: kept },
    })
  }

  /** Armed; and, where that is wanted, at a moment at which nobody holds a write lock. */
  async #arm(freeUntil: number): Promise<void> {
    const { freeWithinMs, signal } = this.#order
    for (;;) {
      const armed = await this.#all((link) => link.ask('arm', { cut: this.id }, { signal }))
      const locked = this.#links.filter((_link, n) => (armed[n]?.writeLocks ?? 0) > 0)
      const [first] = locked
      if (freeWithinMs === undefined || first === undefined) return
      if (performance.now() > freeUntil) {
        const message = `there was no moment without write locks in ${freeWithinMs / 1000} s`
        throw new HoldfastError('GROUP_CUT_FAILED', `${first.shownName}: ${message}`, {
          op,
          // The time that was given for it is over: no further attempt has more.
          cause: new HoldfastError('TIMEOUT', message, { op }),
          hint: `See who holds them: holdfast group check ${this.#group.name}`,
        })
      }
      await sleep(LOCKS_POLL_MS)
    }
  }

  #locksOf(link: GroupLink, waitMs: number) {
    return { volumes: volumesOn(this.#group.members, link.host), waitMs }
  }

  /** A schedule that was missed is followed by a barrier, when the choice is ours. */
  async #choose(needsBarrier: boolean, attempt: number): Promise<CutMethod> {
    const { method, maxHoldMs } = this.#order
    if (method === 'barrier' || needsBarrier) return 'barrier'
    const steady = await this.#all((link) => link.refreshClock())
    const jumped = this.#links.find((_link, n) => steady[n] === false)
    if (jumped !== undefined) {
      if (method === 'scheduled') throw torn(`the clock of ${jumped.shownName} has jumped`)
      return 'barrier'
    }
    if (method === 'scheduled') return 'scheduled'
    const worst = this.#links.map(({ clock }) => clock.errorNs).reduce(higher)
    const fits = worst * 4n < BigInt(maxHoldMs) * MS
    return attempt === 1 && fits ? 'scheduled' : 'barrier'
  }

  #hold(method: CutMethod, attempt: number): Promise<Held> {
    return method === 'barrier' ? this.#barrier(attempt) : this.#scheduled(attempt)
  }

  async #barrier(attempt: number): Promise<Held> {
    const { signal } = this.#order
    const cut = this.id
    // Whoever gives up gives up for all: nobody is held for one that will not come.
    const over = new AbortController()
    const going = signal === undefined ? over.signal : AbortSignal.any([over.signal, signal])
    const hold = async (link: GroupLink) => {
      try {
        await link.ask('hold', { cut }, { signal: going })
      } catch (error) {
        over.abort()
        throw error
      }
    }
    try {
      await this.#all(hold)
    } catch (error) {
      await Promise.allSettled(this.#links.map((link) => link.ask('release', { cut })))
      throw error
    }
    const instantNs = shownNow()
    this.#state('QUIESCED')
    this.#state('RELEASING')
    // A host that was released before this instant says so: its watchdog was faster.
    const answers = await this.#all((link) => link.ask('release', { cut }))
    return this.#held({ method: 'barrier', attempt, instantNs }, answers)
  }

  async #scheduled(attempt: number): Promise<Held> {
    const lead = this.#links.map(({ clock }) => clock.roundTripNs).reduce(higher)
    const instantNs = shownNow() + lead * 2n + BigInt(GROUP_LEAD_MS) * MS
    const answers = await this.#all((link) => {
      const { offsetNs, errorNs } = link.clockAt(instantNs)
      // So early that it takes a moment to come to rest, and is there for sure when it matters.
      const between = {
        startNs: `${instantNs + offsetNs - errorNs - COMING_TO_REST_NS}`,
        untilNs: `${instantNs + offsetNs + errorNs}`,
      }
      return link.ask('holdBetween', { cut: this.id, ...between }, { timeoutMs: GROUP_ANSWER_MS })
    })
    this.#state('QUIESCED')
    this.#state('RELEASING')
    const steady = await this.#all((link) => link.sampleClock(CLOCK_EXCHANGES))
    const jumped = this.#links.find((_link, n) => steady[n] === false)
    if (jumped !== undefined) {
      throw torn(`the clock of ${jumped.shownName} has jumped`)
    }
    const rests = answers.map(({ members }) =>
      members.map(({ restNs, releaseNs }) => ({
        restNs: BigInt(restNs),
        releaseNs: BigInt(releaseNs),
      })),
    )
    const reportedAt = (ns: bigint) =>
      this.#links.map((link, n) => ({ ...link.clockAt(ns), rests: rests[n] ?? [] }))
    const { instantNs: provenNs, slackNs } = judge(reportedAt, instantNs)
    if (provenNs === undefined) {
      throw torn(`no instant is proven: ${Number(-slackNs / 1000n) / 1000} ms are missing`)
    }
    return this.#held({ method: 'scheduled', attempt, instantNs: provenNs }, answers)
  }

  #held(about: Omit<Held, 'hosts'>, answers: readonly { members: Member[] }[]): Held {
    const hosts = this.#links.map((link, n) => {
      const { offsetNs, errorNs } = link.clockAt(about.instantNs)
      return {
        host: link.host,
        offsetNs: `${offsetNs}`,
        errorNs: `${errorNs}`,
        members: answers[n]?.members ?? [],
      }
    })
    return { ...about, hosts }
  }

  #snapshot({ method, attempt, instantNs, hosts }: Held): GroupSnapshot {
    const { name, labels, maxHoldMs, temporary } = this.#order
    const ago = Number((shownNow() - instantNs) / MS)
    return {
      version: 1,
      id: this.id,
      name,
      created: new Date(Date.now() - ago).toISOString(),
      state: 'taking',
      labels: { ...labels },
      owner: temporary ? ownerOf(process.pid) : null,
      maxHoldMs,
      method,
      attempt,
      hosts,
    }
  }

  /** All at once. GROUP_CUT_FAILED: what each host said; the code of the first is the cause's. */
  async #all<Result>(work: (link: GroupLink, n: number) => Promise<Result>): Promise<Result[]> {
    const ended = await Promise.allSettled(this.#links.map((link, n) => work(link, n)))
    const failures = ended.flatMap((each, n) => {
      const host = this.#links[n]?.shownName ?? ''
      return each.status === 'rejected' ? [{ host, error: toHoldfastError(each.reason, op) }] : []
    })
    const first = failures.find(({ error }) => error.code !== 'ABORTED') ?? failures[0]
    if (first === undefined) {
      return ended.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []))
    }
    throw new HoldfastError('GROUP_CUT_FAILED', `${first.host}: ${first.error.message}`, {
      op,
      cause: first.error,
      hint: first.error.hint ?? 'Nothing is on hold any more, and no host keeps a part of it.',
      details: { failures: Object.fromEntries(failures.map((f) => [f.host, f.error.toJSON()])) },
    })
  }

  #state(state: QuiesceState): void {
    this.#order.onState?.(state)
  }
}

/** From the order to close until I/O is at rest, in most cases; what takes longer costs slack only. */
const COMING_TO_REST_NS = MS

/** A disk that was busy, a clock that jumped, a schedule that was missed: another attempt may succeed. */
function mayPass(error: unknown): boolean {
  const { cause, code } = toHoldfastError(error, op)
  if (code === 'GROUP_CUT_FAILED' && cause === undefined) return true
  const inner = cause instanceof HoldfastError ? cause : undefined
  if (inner?.code === 'HOLD_EXPIRED') return true
  if (inner?.code !== 'SNAPSHOT_FAILED') return false
  const why = (inner.cause as HoldfastError | undefined)?.code ?? codeIn(inner)
  return why === 'HOLD_TIMEOUT' || why === 'CUT_LATE' || why === 'HOLD_EXPIRED'
}

/** Of what a volume said, in an error that has come over the network. */
function codeIn({ details }: HoldfastError): string | undefined {
  const failures = Object.values((details?.failures ?? {}) as Record<string, { code?: string }>)
  return failures.find(({ code }) => code !== 'CUT_OTHERS')?.code
}

function torn(message: string): HoldfastError {
  return new HoldfastError('GROUP_CUT_FAILED', message, {
    op,
    hint: 'Nothing is kept. A barrier needs no clocks: --method barrier',
  })
}

function stateOf({ code, cause }: HoldfastError): QuiesceState {
  const why = cause instanceof HoldfastError ? cause.code : code
  if (why === 'ABORTED') return 'CANCELED'
  if (why === 'TIMEOUT') return 'TIMEDOUT'
  return why === 'HOLD_EXPIRED' ? 'EXPIRED' : 'FAILED'
}
