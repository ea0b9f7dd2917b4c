/**
 * Moves the commit horizon of a group, as long as it runs: `holdfast group serve`.
 *
 * Again and again it marks one instant in the journals of all members, waits until every replica has
 * logged it, writes down that it is the horizon, tells all, and waits until every replica has applied it.
 * When a copy fails, or a member is not heard, it freezes all that can be reached.
 *
 * Invariant: what hosts are told was written down before, so that whoever dies and starts again says
 * nothing that contradicts it; and hosts that hear nothing authorise nothing.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { Copying } from '../group/copying.js'
import {
  type Group,
  type GroupMember,
  type GroupSnapshot,
  Groups,
  volumesOn,
} from '../group/definition.js'
import { type CommonCut, freeze, hasLogged } from '../group/horizon.js'
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import { hostName } from '../lib/host-name.js'
import { COPY_GRACE_MS, HORIZON_CUT_MS } from '../lib/limits.js'
import type { Logger } from '../lib/log.js'
import { GroupCut } from './group-cut.js'
import { changeHorizon, horizonStore, takeServing } from './group-horizon.js'
import { hostsOf } from './group-links.js'
import { type Goal, HorizonHost, type Reported } from './horizon-host.js'
import { hostDirectory } from './places.js'
import { takeGroupTurn } from './taking.js'

const op = 'group.serve'
const JUDGE_MS = 250
const NEWS_MS_MAX = 1_000

export interface HorizonServerOptions {
  group: string
  /** Between two markers. */
  intervalMs: number
  /** Longest time that one of them may hold I/O. */
  maxHoldMs: number
  /** A copy that gets no further for so long has failed. */
  copyTimeoutMs: number
  /** For how long applications are held when a copy has failed; 0: not. */
  holdApplicationsMs: number
  log: Logger
}

export class HorizonServer {
  readonly #options: HorizonServerOptions
  readonly #signal: AbortSignal
  readonly #log: Logger
  readonly #copying: Copying
  readonly #hosts = new Map<string, HorizonHost>()
  #group: Group
  #goal: Goal | undefined
  /** A cut that is to be the horizon, once all have logged it: however long those take that lag. */
  #next: CommonCut | undefined
  #said: string | undefined
  #wasFrozen = false
  #judgeSaid: string | undefined
  #news: () => void = () => {}

  private constructor(options: HorizonServerOptions, group: Group, signal: AbortSignal) {
    this.#signal = signal
    this.#options = options
    this.#group = group
    this.#log = options.log.child({ group: options.group })
    this.#copying = new Copying({ timeoutMs: options.copyTimeoutMs, graceMs: COPY_GRACE_MS })
  }

  /** Until the signal. GROUP_NOT_FOUND; BUSY: another one does. */
  static async run(options: HorizonServerOptions, signal: AbortSignal): Promise<void> {
    const group = groups().get(options.group)
    const lock = await takeServing(options.group)
    const server = new HorizonServer(options, group, signal)
    try {
      await server.#serve()
    } finally {
      for (const host of server.#hosts.values()) host.close()
      lock.close()
    }
  }

  async #serve(): Promise<void> {
    const signal = this.#signal
    const { group, intervalMs, copyTimeoutMs, holdApplicationsMs } = this.#options
    const times = { intervalMs, copyTimeoutMs, holdApplicationsMs }
    await changeHorizon(group, (state) => {
      if (state !== undefined) return undefined
      return { version: 1, revision: 1, horizon: null, before: null, frozen: null }
    })
    const { revision, horizon, frozen } = this.#state()
    this.#log.info({ revision, horizon, frozen, ...times }, 'serving')
    this.#meet()
    const judge = setInterval(() => void this.#judge(), JUDGE_MS)
    try {
      while (!signal.aborted) {
        await this.#attempt(() => this.#step())
        await sleep(intervalMs, undefined, { signal }).catch(() => {})
      }
    } finally {
      clearInterval(judge)
    }
  }

  /** What fails is said once, and tried again. Ends when the group, or its horizon, is no more. */
  async #attempt(step: () => Promise<string | undefined>): Promise<void> {
    let why: string | undefined
    try {
      why = await step()
    } catch (error) {
      const known = toHoldfastError(error, op)
      if (known.code === 'GROUP_NOT_FOUND' || known.code === 'GROUP_NO_HORIZON') throw known
      why = known.message
    }
    if (why !== undefined && why !== this.#said) this.#log.warn({ why }, 'the horizon stands')
    if (why === undefined && this.#said !== undefined) this.#log.info('the horizon moves again')
    this.#said = why
  }

  /** One move of the horizon; or why there is none. */
  async #step(): Promise<string | undefined> {
    this.#meet()
    const { revision, horizon, frozen } = this.#state()
    if (frozen !== null) return `frozen: ${frozen.why}`
    const { copyTimeoutMs } = this.#options
    const missing = [...this.#hosts.values()].find(({ answers }) => !answers)
    if (missing !== undefined)
      return `${missing.host || hostName()}: ${missing.error ?? 'no answer yet'}`
    const silent = this.#reported().find(({ error }) => error !== null)
    if (silent !== undefined) return `${this.#nameOf(silent.uuid)}: ${silent.error}`
    // Whoever has not heard of it yet may let its replicas go beyond what comes now.
    const untold = this.#reported().find((each) => each.revision !== revision)
    if (untold !== undefined) return `${this.#nameOf(untold.uuid)} was not told yet`
    const behind = horizon && this.#lacking('applied', horizon)
    if (behind !== null) return `${behind} has not applied it`
    if (horizon !== null && this.#idle(horizon)) return undefined
    const next = this.#next ?? this.#snapshotAfter(horizon) ?? (await this.#mark())
    this.#next = next
    this.#aim({ for: 'logged', seqs: next.seqs })
    await this.#until(() => this.#lacking('logged', next) === null, copyTimeoutMs)
    const lacks = this.#lacking('logged', next)
    if (lacks === null || this.#isVain(next)) this.#next = undefined
    if (lacks !== null) return `${lacks} has not logged ${next.snapshot ?? 'the marker'}`
    if (!(await this.#commit(next))) return undefined
    this.#aim({ for: 'applied', seqs: next.seqs })
    await this.#until(() => this.#lacking('applied', next) === null, copyTimeoutMs)
    this.#aim(undefined)
    return undefined
  }

  /** From here on it is the horizon, whoever hears of it. */
  async #commit(cut: CommonCut): Promise<boolean> {
    const state = await changeHorizon(this.#options.group, (known) => {
      if (known === undefined || known.frozen !== null) return undefined
      return { ...known, revision: known.revision + 1, before: known.horizon, horizon: cut }
    })
    if (state === undefined) return false
    this.#log.debug({ revision: state.revision, horizon: cut }, 'the horizon has moved')
    return true
  }

  /** Markers on all members, at one instant. GROUP_CUT_FAILED, CONNECTION, BUSY. */
  async #mark(): Promise<CommonCut> {
    const { maxHoldMs } = this.#options
    const links = [...this.#hosts.values()].flatMap(({ link }) =>
      link === undefined ? [] : [link],
    )
    if (links.length < this.#hosts.size) {
      throw new HoldfastError('CONNECTION', 'a host is not connected', { op })
    }
    const order = { name: 'horizon', labels: {}, maxHoldMs, attempts: 2, markers: true }
    const how = {
      signal: this.#signal,
      method: 'auto',
      timeoutMs: HORIZON_CUT_MS,
      hooks: false,
      temporary: false,
    } as const
    const turn = await takeGroupTurn()
    try {
      return cutOf(await this.#take(new GroupCut(this.#group, links, { ...order, ...how })))
    } finally {
      turn.close()
    }
  }

  /** Nothing of it is kept by the hosts. */
  async #take(cut: GroupCut): Promise<GroupSnapshot> {
    const taken = await cut.take()
    await cut.abort(new HoldfastError('ABORTED', 'the markers are set', { op }))
    return taken
  }

  /** A snapshot of the group that all replicas can go to. */
  #snapshotAfter(horizon: CommonCut | null): CommonCut | undefined {
    const taken = groups()
      .snapshots(this.#options.group)
      .filter(({ state, created }) => state === 'complete' && created > (horizon?.at ?? ''))
      .at(-1)
    if (taken === undefined) return undefined
    const cut = { ...cutOf(taken), snapshot: taken.name }
    const isNew = ({ uuid }: GroupMember) => (cut.seqs[uuid] ?? 0) > (horizon?.seqs[uuid] ?? 0)
    const fits = this.#group.members.every(isNew) && this.#lacking('logged', cut) === null
    return fits ? cut : undefined
  }

  /** Nothing has changed on any member since. */
  #idle({ seqs }: CommonCut): boolean {
    const all = this.#reported()
    return all.length > 0 && all.every(({ uuid, captured }) => captured === seqs[uuid])
  }

  /** Some replica has gone beyond it, or it is not of all members: it can be the horizon no more. */
  #isVain({ seqs }: CommonCut): boolean {
    return this.#reported().some(({ uuid, replicas }) => {
      const seq = seqs[uuid]
      return seq === undefined || replicas.some(({ authorised }) => authorised > seq)
    })
  }

  /** The first replica that lacks it, by name; null: none does. */
  #lacking(what: Goal['for'], { seqs }: CommonCut): string | null {
    for (const { uuid, replicas } of this.#reported()) {
      const seq = seqs[uuid]
      // A member that was added since has none of it.
      if (seq === undefined) continue
      const has = what === 'logged' ? hasLogged : hasApplied
      const lacking = replicas.find((each) => !has(each, seq))
      if (lacking !== undefined) return `${lacking.peer} of ${this.#nameOf(uuid)}`
    }
    return null
  }

  /** Freezes the group when a copy has failed. */
  async #judge(): Promise<void> {
    try {
      const why = this.#failure()
      if (why === undefined) return
      const holdMs = this.#options.holdApplicationsMs
      const changed = await changeHorizon(this.#options.group, (known) => {
        if (known === undefined || known.frozen !== null) return undefined
        return freeze(known, { why, holdMs })
      })
      if (changed === undefined) return
      this.#log.error(
        { why, revision: changed.revision },
        'frozen: the group is not shipped any more',
      )
      for (const host of this.#hosts.values()) host.wake()
    } catch (error) {
      const known = toHoldfastError(error, op)
      if (known.message !== this.#judgeSaid) {
        this.#log.error({ error: known }, 'whether to freeze the group cannot be told')
      }
      this.#judgeSaid = known.message
    }
  }

  #failure(): string | undefined {
    const now = performance.now()
    const state = horizonStore(this.#options.group).read()
    if (state === undefined) return undefined
    if (state.frozen !== null || this.#wasFrozen) this.#copying.restart(now)
    this.#wasFrozen = state.frozen !== null
    return state.frozen === null ? this.#copying.failure(now) : undefined
  }

  /** Has a connection to each host of the group as it is now. GROUP_NOT_FOUND. */
  #meet(): void {
    const { group, intervalMs, copyTimeoutMs, log } = this.#options
    this.#group = groups().get(group)
    const { id, name, members } = this.#group
    const wanted = hostsOf(members)
    this.#copying.keepOnly(new Set(members.map(({ uuid }) => uuid)))
    for (const [host, met] of this.#hosts) {
      if (wanted.includes(host)) continue
      met.close()
      this.#hosts.delete(host)
    }
    for (const host of wanted.filter((each) => !this.#hosts.has(each))) {
      const volumes = () => volumesOn(this.#group.members, host)
      const met: HorizonHost = new HorizonHost({
        host,
        group: { id, name },
        intervalMs,
        timeoutMs: copyTimeoutMs,
        volumes,
        state: () => horizonStore(group).read(),
        goal: () => this.#goal,
        onNews: () => this.#hear(met),
        log,
      })
      this.#hosts.set(host, met)
      const now = performance.now()
      for (const uuid of volumes())
        this.#copying.unheard(this.#nameOf(uuid), uuid, 'no answer', now)
    }
  }

  #hear(host: HorizonHost): void {
    const now = performance.now()
    for (const uuid of volumesOn(this.#group.members, host.host)) {
      const name = this.#nameOf(uuid)
      const found = host.members.find((each) => each.uuid === uuid)
      if (host.error !== null) this.#copying.unheard(name, uuid, host.error, now)
      else if (found !== undefined) this.#copying.heard(name, found, now)
    }
    this.#news()
  }

  #reported(): Reported[] {
    const uuids = new Set(this.#group.members.map(({ uuid }) => uuid))
    return [...this.#hosts.values()]
      .flatMap(({ members }) => members)
      .filter(({ uuid }) => uuids.has(uuid))
  }

  #aim(goal: Goal | undefined): void {
    this.#goal = goal
    for (const host of this.#hosts.values()) host.wake()
  }

  /** Until it is so, or the time is over. */
  async #until(isSo: () => boolean, waitMs: number): Promise<void> {
    const end = performance.now() + waitMs
    while (!isSo() && performance.now() < end && !this.#signal.aborted) {
      const news = new Promise<void>((resolve) => {
        this.#news = resolve
      })
      await Promise.race([news, sleep(Math.min(NEWS_MS_MAX, end - performance.now()))])
    }
  }

  #nameOf(uuid: string): string {
    const member = this.#group.members.find((each) => each.uuid === uuid)
    return `${member?.host || hostName()}/${member?.volume ?? uuid}`
  }

  #state() {
    const { group } = this.#options
    const state = horizonStore(group).read()
    if (state !== undefined) return state
    throw new HoldfastError('GROUP_NO_HORIZON', `the horizon of ${group} was ended`, { op })
  }
}

function groups(): Groups {
  return new Groups(hostDirectory())
}

function hasApplied({ applied, baseline }: Reported['replicas'][number], seq: number): boolean {
  return !baseline && applied >= seq
}

function cutOf({ created, hosts }: GroupSnapshot): CommonCut {
  const members = hosts.flatMap((host) => host.members)
  return {
    snapshot: null,
    at: created,
    seqs: Object.fromEntries(members.map(({ uuid, seq }) => [uuid, seq])),
  }
}
