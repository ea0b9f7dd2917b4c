/**
 * Acknowledgement by synchronous replicas: who is waited for, up to where they are, and what happens
 * to whoever waits when one is lost. Tells the data plane (native-bindings/src/capture/acks.rs) by
 * *classes*: paths for which the same replicas have to have the same.
 *
 * Invariant: a replica is waited for only from when it has caught up until it is lost; what is told
 * as acknowledged is at the replica.
 */
import { CONNECTED_LATE_MS } from '../lib/limits.js'
import type { Logger } from '../lib/log.js'
import type { AckPolicy, AckReport } from '../lib/native.js'
import { unprintable } from '../lib/printable.js'
import type { Ack, Acknowledge, AckPath, SyncAck } from '../replication/ack-options.js'
import { isResyncing, type ShipperState } from '../replication/ship-state.js'

/** Bits of AckPolicy.points. */
const Point = { fsync: 1, rename: 2, close: 4, 'every-op': 8 } as const
const Mode = { off: 0, wait: 1, refuse: 2 } as const

export interface AckOptions {
  ack: Ack
  ackPaths: readonly AckPath[]
  onLoss: 'continue' | 'refuse'
  lossMs: number
  /** It has been waited for before: while it is not, it is lost, and not just new. */
  established: boolean
}

/** What the data plane offers; lib/native.ts. */
export interface AckPort {
  setPolicy(policy: AckPolicy): void
  acknowledged(at: { class: number; seq: bigint }): void
  report(): AckReport
}

/** One replica at one strength. */
interface Arm {
  peer: string
  strength: SyncAck
  options: AckOptions
  /** Has been where it must be since its last loss. */
  armed: boolean
  /** Its loss is one: it was armed before. */
  counts: boolean
  /** Since when it is not there, or stands still although it is behind. */
  lostAt: number | null
  position: bigint
}

interface AckClass {
  arms: Arm[]
  paths: Buffer[]
}

interface ClassState {
  mode: number
  waitMs: number
  refuseLate: boolean
  position: bigint
}

export class Acks {
  readonly #port: AckPort
  readonly #log: Logger
  readonly #onArmed: (peer: string) => void
  #arms: Arm[] = []
  #classes: AckClass[] = [{ arms: [], paths: [] }]
  #told: { policy: string; positions: bigint[] } = { policy: '', positions: [] }
  #acknowledge: Acknowledge = { at: [], quorum: null }
  #late = 0n

  constructor(options: { port: AckPort; onArmed(peer: string): void; log: Logger }) {
    this.#port = options.port
    this.#onArmed = options.onArmed
    this.#log = options.log
  }

  /** The replicas there are, and where replies wait. Who stays as he was stays armed. */
  configure(
    targets: ReadonlyMap<string, AckOptions>,
    acknowledge: Acknowledge,
    { restored = false } = {},
  ): void {
    this.#acknowledge = acknowledge
    const before = this.#arms
    this.#arms = armsOf(targets).map((arm) => {
      const known = before.find((each) => each.peer === arm.peer && each.strength === arm.strength)
      if (known !== undefined) return Object.assign(known, { options: arm.options })
      return { ...arm, counts: restored && arm.options.established }
    })
    this.#classes = classes(targets, this.#arms)
    this.#tell()
  }

  /** Everybody who has to be waited for is. */
  waitsFor(peer: string): boolean {
    const own = this.#arms.filter((arm) => arm.peer === peer)
    return own.length > 0 && own.every(({ armed }) => armed)
  }

  /** A replica has moved, or its connection has changed. `caughtUpAt`: who has that is there. */
  news(peer: string, state: ShipperState, captured: bigint, caughtUpAt = captured): void {
    for (const arm of this.#arms) {
      if (arm.peer === peer) this.#follow(arm, state, captured, caughtUpAt)
    }
    this.#tell()
  }

  /** Call about once a second. `capturedAt`: last seq that was captured at a time (ms). */
  tick(capturedAt: (at: number) => bigint): void {
    const { late } = this.#port.report()
    if (late <= this.#late) return
    this.#late = late
    // Somebody has waited for as long as it is bearable, although nobody was gone.
    for (const arm of this.#arms) {
      const due = Date.now() - arm.options.lossMs + CONNECTED_LATE_MS
      if (arm.armed && arm.position < capturedAt(due)) this.#disarm(arm, 'is too slow')
    }
    this.#tell()
  }

  #follow(arm: Arm, state: ShipperState, captured: bigint, caughtUpAt: bigint): void {
    const at = arm.strength === 'sync-apply' ? state.applied : state.logged
    const there = state.connection === 'connected' && !isResyncing(state)
    if (!there) {
      if (arm.armed) this.#lose(arm, state.problem?.message ?? state.connection)
      return
    }
    const behind = at < captured
    if (!behind || at > arm.position) arm.lostAt = null
    else if (arm.armed) this.#lose(arm, 'stands still')
    arm.position = at
    // Armed once it has caught up: nobody waits for the past.
    if (arm.armed || (behind && at < caughtUpAt)) return
    arm.armed = true
    arm.counts = true
    arm.lostAt = null
    this.#onArmed(arm.peer)
    const { peer, strength: ack } = arm
    this.#log.info({ peer, ack }, 'replies wait for the replica')
  }

  #lose(arm: Arm, why: string): void {
    arm.lostAt ??= Date.now()
    if (Date.now() - arm.lostAt >= arm.options.lossMs) this.#disarm(arm, why)
  }

  #disarm(arm: Arm, why: string): void {
    arm.armed = false
    arm.lostAt = null
    const { peer, strength: ack, options } = arm
    const { onLoss } = options
    this.#log.error(
      { peer, ack, onLoss, why },
      onLoss === 'refuse'
        ? 'a synchronous replica is lost: whatever would wait for it fails'
        : 'a synchronous replica is lost: nobody waits for it now',
    )
  }

  /** Tells the data plane what has changed. */
  #tell(): void {
    const { at } = this.#acknowledge
    const states = this.#classes.map(({ arms }) => this.#state(arms))
    const waits = states.some(({ mode }) => mode !== Mode.off)
    const points = at.reduce((bits, point) => bits | Point[point], Point.fsync as number)
    const policy = {
      points: waits ? points : 0,
      close: at.includes('close'),
      rules: this.#classes.flatMap(({ paths }, n) => paths.map((path) => ({ path, class: n }))),
      classes: states,
    }
    const shape = {
      ...policy,
      rules: policy.rules.map(({ path, class: n }) => [path.toString('hex'), n]),
      classes: states.map(({ mode, waitMs, refuseLate }) => [mode, waitMs, refuseLate]),
      // Who is waited for anew may be behind what was acknowledged without him.
      armed: this.#arms.map(({ armed }) => armed),
      quorum: this.#acknowledge.quorum,
    }
    const text = JSON.stringify(shape)
    const positions = states.map(({ position }) => position)
    if (text !== this.#told.policy) this.#port.setPolicy(policy)
    else {
      positions.forEach((seq, n) => {
        if (seq > (this.#told.positions[n] ?? 0n)) this.#port.acknowledged({ class: n, seq })
      })
    }
    this.#told = { policy: text, positions }
  }

  #state(arms: readonly Arm[]): ClassState {
    const armed = arms.filter((arm) => arm.armed)
    const wanted = Math.min(this.#acknowledge.quorum ?? arms.length, arms.length)
    const waitMs = Math.max(0, ...armed.map(({ options }) => options.lossMs))
    const refuseLate = armed.some(({ options }) => options.onLoss === 'refuse')
    const state = { waitMs, refuseLate, position: 0n }
    const lost = arms.filter((arm) => !arm.armed && arm.counts)
    if (armed.length < wanted && lost.some(({ options }) => options.onLoss === 'refuse')) {
      return { ...state, mode: Mode.refuse }
    }
    const enough = Math.min(wanted, armed.length)
    if (enough === 0) return { ...state, mode: Mode.off }
    // The best `enough` of them have everything up to where the last of these is.
    const best = armed.map(({ position }) => position).sort((a, b) => Number(b - a))
    return { ...state, mode: Mode.wait, position: best[enough - 1] ?? 0n }
  }
}

function armsOf(targets: ReadonlyMap<string, AckOptions>): Arm[] {
  const fresh = { armed: false, counts: false, lostAt: null, position: 0n }
  return [...targets].flatMap(([peer, options]) =>
    strengths(options).map((strength) => ({ peer, strength, options, ...fresh })),
  )
}

function strengths({ ack, ackPaths }: AckOptions): SyncAck[] {
  const all = new Set([ack, ...ackPaths.map((each) => each.ack)])
  return [...all].filter((each) => each !== 'async')
}

/** The classes of a volume: the rest of the tree first, then those of the paths that anybody names. */
function classes(targets: ReadonlyMap<string, AckOptions>, arms: readonly Arm[]): AckClass[] {
  const of = (path: string) =>
    arms.filter(({ strength, options }) => ackOf(options, path) === strength)
  const found: AckClass[] = [{ arms: of(''), paths: [] }]
  const named = [...targets.values()].flatMap(({ ackPaths }) => ackPaths.map(({ path }) => path))
  for (const path of new Set(named)) {
    const own = of(path)
    const same = found.find((each) => sameArms(each.arms, own))
    if (same === undefined) found.push({ arms: own, paths: [unprintable(path)] })
    else same.paths.push(unprintable(path))
  }
  return found
}

function sameArms(a: readonly Arm[], b: readonly Arm[]): boolean {
  return a.length === b.length && a.every((arm) => b.includes(arm))
}

/** What a replica has to do about a path: the longest of its own rules. */
function ackOf({ ack, ackPaths }: AckOptions, path: string): Ack {
  const over = ackPaths.filter((rule) => path === rule.path || path.startsWith(`${rule.path}/`))
  const [longest] = over.sort((a, b) => b.path.length - a.path.length)
  return longest?.ack ?? ack
}

/** Classes that these rules would make; the data plane has a limit. */
export function countClasses(targets: ReadonlyMap<string, AckOptions>): number {
  return classes(targets, armsOf(targets)).length
}
