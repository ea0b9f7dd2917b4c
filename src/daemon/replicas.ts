/**
 * The replicas of a volume that this daemon ships to: their configuration (`replicas.json` in the
 * state directory), a shipper each, who may hold an fsync, and what the journal keeps for them.
 */
import { HoldfastError } from '../lib/errors.js'
import { formatDuration } from '../lib/format.js'
import { ACK_CLASSES_MAX, LAG_LOOK_MS } from '../lib/limits.js'
import type { Acknowledge } from '../replication/ack-options.js'
import { hostIdentity } from '../replication/identity.js'
import { Peers } from '../replication/peers.js'
import { isResyncing, type ShipperState } from '../replication/ship-state.js'
import { Shipper } from '../replication/shipper.js'
import { Transports } from '../replication/transport.js'
import { Acks, countClasses } from './acks.js'
import { BaselineProgress, type BaselineStatus } from './baseline-progress.js'
import { chooseReplicas } from './chosen.js'
import { LagLimit } from './lag-limit.js'
import { hostDirectory } from './places.js'
import {
  changed,
  type ReplicaRequest,
  type StoredReplica,
  writeReplicas,
} from './replica-options.js'
import type { ReplicasOptions } from './replica-ports.js'
import { type AcknowledgeStatus, type ReplicaStatus, statusOf } from './replica-status.js'
import { isWhole, Scrub } from './scrub.js'
import { Verification, type VerifyOptions, type VerifyProgress } from './verification.js'

interface Target {
  options: StoredReplica
  shipper: Shipper
  state: ShipperState
  held: boolean
  progress: BaselineProgress | null
}

export class Replicas {
  readonly #options: ReplicasOptions
  readonly #targets = new Map<string, Target>()
  readonly #acks: Acks
  readonly #lagLimit: LagLimit
  #acknowledge: Acknowledge
  #watchers = new Set<() => void>()
  #lagTimer: NodeJS.Timeout | undefined
  #shipping = false
  #keepAfter: bigint | undefined
  #transports: Transports | undefined
  /** captured as it was at the last ticks: who has that is as good as there. */
  #capturedBefore = 0n
  #capturedLast = 0n
  #differing = false
  readonly #verification: Verification
  readonly #scrub: Scrub

  /** Before the volume is mounted: the kernel then hears at once whether closes are asked about. */
  constructor(options: ReplicasOptions) {
    this.#options = options
    const { acks: port, log, captured } = options
    this.#verification = new Verification(options.volume, log)
    this.#scrub = new Scrub(log)
    this.#acks = new Acks({ port, onArmed: (peer) => this.#armed(peer), log })
    this.#lagLimit = new LagLimit({ captured, slow: (on) => port.slow(on), log })
    this.#acknowledge = options.stored.acknowledge
    this.#acks.configure(new Map(), this.#acknowledge)
  }

  async start(): Promise<void> {
    for (const options of this.#options.stored.replicas) await this.#begin(options)
    this.#configure({ restored: true })
    this.#settle()
  }

  get acknowledge(): AcknowledgeStatus {
    const { closeRefused } = this.#options.acks.report()
    const { at } = this.#acknowledge
    return { ...this.#acknowledge, closeAtNextMount: at.includes('close') && closeRefused }
  }

  /** Changes when replies are held. USAGE. */
  setAcknowledge(change: Partial<Acknowledge>): void {
    const wanted = { ...this.#acknowledge, ...change }
    if (wanted.at.includes('every-op') && this.#options.writeback) {
      throw new HoldfastError(
        'USAGE',
        'a volume with --writeback cannot acknowledge every operation',
        {
          op: 'replicate',
          hint: 'The kernel collects its writes. Mount it without --writeback, or take --ack-at durability.',
        },
      )
    }
    this.#acknowledge = wanted
    this.#configure()
    this.#write()
  }

  get status(): ReplicaStatus[] {
    return [...this.#targets.values()].map((target) => {
      const { peer } = target.options
      return statusOf({
        ...target,
        captured: this.#options.captured,
        baseline: this.#followBaseline(target),
        waitedFor: this.#acks.waitsFor(peer),
        slowing: this.#lagLimit.slowedBy(peer),
      })
    })
  }

  /** Compares everything; follow `verification.progress`. BUSY, NOT_REPLICATED. */
  verify(options: VerifyOptions): VerifyProgress {
    const participants = [...this.#targets].map(([peer, { shipper }]) => ({ peer, shipper }))
    return this.#verification.start(participants, options)
  }

  /** The comparison under way, or the last one since the daemon started. */
  get verified(): VerifyProgress | null {
    return this.#verification.progress
  }

  /** Brings a replica, or all, back by codes. NOT_REPLICATED. */
  resync(peer?: string): void {
    for (const { shipper } of this.#choose(peer, 'resync')) shipper.resync()
  }

  #choose(peer: string | undefined, op: string): Target[] {
    return chooseReplicas(this.#targets, { peers: peer === undefined ? undefined : [peer], op })
  }

  /** Where its baseline is; null when none is under way. */
  #followBaseline(target: Target): BaselineStatus | null {
    const { state } = target
    const filled = state.filledBytes
    if ((!state.baseline && filled === null) || state.connection !== 'connected') {
      target.progress = null
      return null
    }
    const { captured } = this.#options
    const total = captured.bytes()
    const applied = total - captured.behind(state.applied).bytes
    target.progress ??= new BaselineProgress(applied)
    const scan = captured.scan()
    return target.progress.update({ scan, captured: total, applied, filled, now: Date.now() })
  }

  /** Adds a replica, or changes what is named of its options. PEER_NOT_FOUND, USAGE. */
  async add(request: ReplicaRequest): Promise<void> {
    const target = this.#targets.get(request.peer)
    const options = changed(target?.options, request)
    const all = new Map([...this.#optionsOfAll(), [options.peer, options]])
    if (countClasses(all) > ACK_CLASSES_MAX) {
      const message = `the paths of all replicas make more than ${ACK_CLASSES_MAX} kinds`
      throw new HoldfastError('USAGE', message, { op: 'replicate', hint: 'Name fewer paths.' })
    }
    const transports = await this.#reach()
    await transports.check(options.peer, options)
    if (target !== undefined && target.options.listen === options.listen) {
      target.options = options
      target.shipper.configure(options)
    } else {
      await target?.shipper.close()
      await this.#begin(options)
    }
    this.#configure()
    this.#write()
    this.#settle()
  }

  /** NOT_REPLICATED. */
  async remove(peer: string): Promise<void> {
    const [target] = this.#choose(peer, 'replicate.stop')
    this.#targets.delete(peer)
    this.#configure()
    await target?.shipper.close()
    this.#write()
    this.#settle()
  }

  /** The journal ends at `seq` now. */
  advanced(seq: bigint): void {
    this.#sample()
    for (const { shipper } of this.#targets.values()) shipper.advanced(seq)
  }

  /** The journal has not grown, but what is known of its end or may be applied has. */
  announce(): void {
    for (const { shipper } of this.#targets.values()) shipper.announce()
  }

  /** The journal was made anew: what replicas have of it is asked again. */
  restart(): void {
    for (const { shipper } of this.#targets.values()) shipper.restart()
  }

  /** Call about once a second: losses, and what the journal keeps. */
  tick(): void {
    this.#capturedBefore = this.#capturedLast
    this.#capturedLast = this.#sample()
    for (const target of this.#targets.values()) this.#followBaseline(target)
    this.#settle()
    this.#acks.tick((at) => this.#options.captured.seqAt(at))
    this.#compareWhatIsDue()
  }

  /** Frames after this seq are kept for a replica; undefined: none is. */
  get keepAfter(): bigint | undefined {
    return this.#keepAfter
  }

  /** Gives connected replicas a moment for what was captured last. */
  async finish(waitMs: number): Promise<void> {
    if (this.#options.volume.frozen()) return
    const seq = this.#sample()
    const end = Date.now() + waitMs
    const late = () =>
      [...this.#targets.values()].some(
        ({ state }) => state.connection === 'connected' && !state.baseline && state.logged < seq,
      )
    while (late() && Date.now() < end) await this.#change(end - Date.now())
  }

  /**
   * Resolves when all replicas have `logged` or `applied` seq. TIMEOUT, NOT_REPLICATED; `peer` for
   * one of them only.
   */
  async wait(options: {
    for: 'logged' | 'applied'
    seq: bigint
    peer?: string | undefined
    waitMs: number
  }): Promise<void> {
    const { peer, seq, waitMs } = options
    const targets = this.#choose(peer, 'replica.wait')
    const lacks = (state: ShipperState) =>
      isResyncing(state) || (options.for === 'applied' && state.needs > 0)
    const behind = () =>
      targets.filter(({ state }) => state[options.for] < seq || lacks(state)).map(nameOf)
    const end = Date.now() + waitMs
    while (behind().length > 0) {
      const left = end - Date.now()
      if (left <= 0) {
        const message = `${behind().join(', ')} has not ${options.for} seq ${seq} after ${waitMs} ms`
        throw new HoldfastError('TIMEOUT', message, {
          op: 'replica.wait',
          hint: options.for === 'applied' ? delayHint(targets) : undefined,
          details: { replicas: this.status },
        })
      }
      await this.#change(left)
    }
  }

  /** As `wait`, but what is not reached by then is no error, nor that there is no replica. */
  async reach(options: { for: 'logged' | 'applied'; seq: bigint; waitMs: number }): Promise<void> {
    if (this.#targets.size > 0) await this.wait(options).catch(() => {})
  }

  /** Idempotent. */
  async close(): Promise<void> {
    clearInterval(this.#lagTimer)
    const targets = [...this.#targets.values()]
    this.#targets.clear()
    this.#acks.configure(new Map(), this.#acknowledge)
    this.#lagLimit.look(new Map())
    await this.#verification.close()
    await Promise.all(targets.map(({ shipper }) => shipper.close()))
  }

  #change(maxMs: number): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer)
        this.#watchers.delete(done)
        resolve()
      }
      const timer = setTimeout(done, maxMs)
      this.#watchers.add(done)
    })
  }

  async #begin(options: StoredReplica): Promise<void> {
    const { volume, log } = this.#options
    const transport = (await this.#reach()).to(options.peer, options)
    this.#options.keepCodes()
    this.#scrub.added(options.peer)
    const shipper: Shipper = new Shipper({
      volume,
      peer: options.peer,
      log,
      settings: options,
      transport,
      onChange: (state) => this.#changed(options.peer, state),
    })
    this.#targets.set(options.peer, {
      options,
      shipper,
      state: shipper.state,
      held: true,
      progress: null,
    })
  }

  async #reach(): Promise<Transports> {
    const { volume, log } = this.#options
    this.#transports ??= new Transports({
      volume: volume.name,
      self: volume.host,
      identity: await hostIdentity(hostDirectory()),
      peers: new Peers(hostDirectory()),
      log,
    })
    return this.#transports
  }

  #changed(peer: string, state: ShipperState): void {
    const target = this.#targets.get(peer)
    if (target === undefined) return
    target.state = state
    this.#acks.news(peer, state, this.#sample(), this.#capturedBefore)
    for (const watcher of [...this.#watchers]) watcher()
  }

  /** It was waited for at least once: from now on its loss is one. */
  #armed(peer: string): void {
    const target = this.#targets.get(peer)
    if (target === undefined || target.options.established) return
    target.options.established = true
    this.#write()
  }

  #optionsOfAll(): Map<string, StoredReplica> {
    return new Map([...this.#targets].map(([peer, { options }]) => [peer, options]))
  }

  #configure(how?: { restored: boolean }): void {
    this.#acks.configure(this.#optionsOfAll(), this.#acknowledge, how)
    clearInterval(this.#lagTimer)
    this.#lookAtLag()
    if (this.#limited().size > 0) {
      this.#lagTimer = setInterval(() => this.#lookAtLag(), LAG_LOOK_MS)
    }
  }

  #limited(): Map<string, { limits: StoredReplica; state: ShipperState }> {
    const all = [...this.#targets].filter(
      ([, { options }]) => options.maxLagBytes !== null || options.maxLagMs !== null,
    )
    return new Map(all.map(([peer, { options, state }]) => [peer, { limits: options, state }]))
  }

  #lookAtLag(): void {
    this.#sample()
    this.#lagLimit.look(this.#limited())
  }

  /** Last captured seq, noted for the lag. */
  #sample(): bigint {
    this.#options.captured.note()
    return this.#options.captured.seq()
  }

  #settle(): void {
    const shipping = this.#targets.size > 0
    if (shipping !== this.#shipping) this.#options.ship(shipping)
    this.#shipping = shipping
    const differing = [...this.#targets.values()].some(({ state }) => !isWhole(state))
    if (differing !== this.#differing) this.#options.setDiffering(differing)
    this.#differing = differing
    const captured = this.#sample()
    for (const [peer, { state }] of this.#targets) {
      this.#acks.news(peer, state, captured, this.#capturedBefore)
    }
    this.#settleHold()
  }

  #compareWhatIsDue(): void {
    if (!this.#options.compare || this.#verification.isRunning) return
    const due = this.#scrub.due([...this.#targets.values()])
    if (due !== undefined) this.verify(due)
  }

  /** What a replica lacks is kept for it, up to a limit. */
  #settleHold(): void {
    const bytes = this.#options.journalBytes()
    let keepAfter: bigint | undefined
    for (const target of this.#targets.values()) {
      const behind = target.state.logged
      target.held = bytes <= target.options.holdBytes
      if (target.held && (keepAfter === undefined || behind < keepAfter)) keepAfter = behind
    }
    if (keepAfter === this.#keepAfter) return
    this.#keepAfter = keepAfter
    this.#options.keepAfter(keepAfter)
  }

  #write(): void {
    const replicas = [...this.#targets.values()].map(({ options }) => options)
    const { stateDirectory } = this.#options
    writeReplicas(stateDirectory, { replicas, acknowledge: this.#acknowledge })
  }
}

/** Why waiting for `applied` may be in vain. */
function delayHint(targets: readonly Target[]): string | undefined {
  const late = targets.filter(({ options }) => options.applyDelayMs > 0)
  if (late.length === 0) return undefined
  const each = late.map(
    ({ options: { peer, applyDelayMs } }) => `${peer} by ${formatDuration(applyDelayMs * 1e6)}`,
  )
  return `Applied late on purpose (--apply-delay): ${each.join(', ')}. Wait --for logged, or longer.`
}

function nameOf({ options }: Target): string {
  return options.peer
}
