/**
 * The replicas of a volume that this daemon ships to: their configuration (`replicas.json` in the
 * state directory), a shipper each, who may hold an fsync, and what the journal keeps for them.
 */
import { existsSync, readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { z } from 'zod'
import { HoldfastError } from '../lib/errors.js'
import { writeFileDurably } from '../lib/files.js'
import {
  REPLICA_HOLD_BYTES_MAX,
  SCRUB_BYTES_PER_S,
  SCRUB_INTERVAL_MS,
  SYNC_LOSS_MS,
} from '../lib/limits.js'
import type { Logger } from '../lib/log.js'
import { hostIdentity } from '../replication/identity.js'
import { Peers } from '../replication/peers.js'
import { type ShippedVolume, Shipper, type ShipperState } from '../replication/shipper.js'
import { connectTls } from '../replication/tls.js'
import { hostDirectory } from './places.js'
import {
  Verification,
  type VerifiedVolume,
  type VerifyOptions,
  type VerifyProgress,
} from './verification.js'

const FILE = 'replicas.json'

export const ReplicaSchema = z.strictObject({
  peer: z.string().min(1),
  /** When an fsync returns: at once, when the replica has logged it, or when it has applied it. */
  ack: z.enum(['async', 'sync-log', 'sync-apply']).default('async'),
  /** What a synchronous replica that is lost does to fsync, after `lossMs`. */
  onLoss: z.enum(['continue', 'refuse']).default('continue'),
  lossMs: z.int().min(0).default(SYNC_LOSS_MS),
  holdBytes: z.int().min(0).default(REPLICA_HOLD_BYTES_MAX),
  /** How often everything is compared with it; 0: never. */
  scrubMs: z.int().min(0).default(SCRUB_INTERVAL_MS),
})
const FileSchema = z.strictObject({ version: z.literal(1), replicas: z.array(ReplicaSchema) })

export type ReplicaOptions = z.infer<typeof ReplicaSchema>
export type ReplicaRequest = z.input<typeof ReplicaSchema>

/** What `status` says of one replica. Sizes in bytes. */
export interface ReplicaStatus {
  peer: string
  ack: ReplicaOptions['ack']
  connection: ShipperState['connection']
  copy: 'UpToDate' | 'Consistent' | 'Inconsistent'
  sent: number
  logged: number
  applied: number
  /** Records captured and not yet logged, and not yet applied, there. */
  lag: { logged: number; applied: number; seconds: number }
  /** A synchronous replica: fsync waits for it now. */
  waitedFor: boolean
  bytesSent: number
  connections: number
  /** Baselines begun since the daemon started. */
  resyncs: number
  problem: { code: string; message: string } | null
  /** Objects of which its tree lacks something. */
  needs: number
  /** When it was compared last (ISO), and how many differences there were; null: never. */
  verified: { at: string; seq: number; differences: number } | null
  /** When it was last proven equal. */
  proven: { at: string; seq: number } | null
  /** The journal keeps for it what it lacks; false: it was down too long, and starts anew. */
  held: boolean
}

/** What fsync does about synchronous replicas; the data plane's words. */
export const SyncMode = { off: 0, wait: 1, refuse: 2 } as const

export interface ReplicasOptions {
  stateDirectory: string
  volume: ShippedVolume & VerifiedVolume
  capturedSeq(): bigint
  journalBytes(): number
  /** Frames after this seq are kept; undefined: replicas ask for nothing. */
  keepAfter(seq: bigint | undefined): void
  /** Everything up to `seq` is where the synchronous replicas have to have it. */
  acknowledged(seq: bigint): void
  setSync(mode: number): void
  /** Whether frames are shipped: they are committed without delay then. */
  ship(on: boolean): void
  /** Some replica may hold other bytes than the volume. */
  setDiffering(differing: boolean): void
  /** Codes are kept from now on. Idempotent. */
  keepCodes(): void
  log: Logger
}

interface Target {
  options: ReplicaOptions
  shipper: Shipper
  state: ShipperState
  /** Has been where a synchronous replica must be since its last loss. */
  armed: boolean
  /** Since when it is not there, or stands still although it is behind. */
  lostAt: number | null
  position: bigint
  held: boolean
  caughtUpAt: number
}

export class Replicas {
  readonly #options: ReplicasOptions
  readonly #targets = new Map<string, Target>()
  #watchers = new Set<() => void>()
  #mode: number = SyncMode.off
  #shipping = false
  #keepAfter: bigint | undefined
  /** captured as it was at the last ticks: who has that is as good as there. */
  #capturedBefore = 0n
  #capturedLast = 0n
  #differing = false
  readonly #verification: Verification
  /** When a comparison was begun last by the clock, for each replica. */
  readonly #scrubbedAt = new Map<string, number>()

  constructor(options: ReplicasOptions) {
    this.#options = options
    this.#verification = new Verification(options.volume, options.log)
  }

  async start(): Promise<void> {
    for (const options of this.#read()) await this.#begin(options)
    this.#settle()
  }

  get status(): ReplicaStatus[] {
    const captured = this.#options.capturedSeq()
    return [...this.#targets.values()].map(({ options, state, armed, held, caughtUpAt }) => {
      const { sent, logged, applied, baseline, problem } = state
      const upToDate = applied >= captured && state.connection === 'connected'
      const { needs, verdict } = state
      const failed = problem?.code.startsWith('REPLAY_') === true || needs > 0
      const dated = <T extends { at: number }>(fact: T | null) =>
        fact && { ...fact, at: new Date(fact.at).toISOString() }
      return {
        peer: options.peer,
        ack: options.ack,
        connection: state.connection,
        copy: baseline || failed ? 'Inconsistent' : upToDate ? 'UpToDate' : 'Consistent',
        sent: Number(sent),
        logged: Number(logged),
        applied: Number(applied),
        lag: {
          logged: Number(captured - logged),
          applied: Number(captured - applied),
          seconds: applied >= captured ? 0 : (Date.now() - caughtUpAt) / 1000,
        },
        waitedFor: options.ack !== 'async' && armed,
        bytesSent: state.bytesSent,
        connections: state.connections,
        resyncs: state.resyncs,
        problem,
        needs,
        verified: dated(verdict.verified),
        proven: dated(verdict.proven),
        held,
      }
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
    const chosen = [...this.#targets].filter(([name]) => peer === undefined || name === peer)
    if (chosen.length === 0) {
      const message = `the volume is not replicated${peer === undefined ? '' : ` to ${peer}`}`
      throw new HoldfastError('NOT_REPLICATED', message, { op: 'resync' })
    }
    for (const [, { shipper }] of chosen) shipper.resync()
  }

  /** Adds a replica, or changes how it is acknowledged. PEER_NOT_FOUND, USAGE. */
  async add(request: ReplicaRequest): Promise<void> {
    const options = ReplicaSchema.parse(request)
    await this.remove(options.peer, { quietly: true })
    await this.#begin(options)
    this.#write()
    this.#settle()
  }

  /** NOT_REPLICATED. */
  async remove(peer: string, { quietly = false } = {}): Promise<void> {
    const target = this.#targets.get(peer)
    if (target === undefined) {
      if (quietly) return
      throw new HoldfastError('NOT_REPLICATED', `the volume is not replicated to ${peer}`, {
        op: 'replicate.stop',
      })
    }
    this.#targets.delete(peer)
    await target.shipper.close()
    this.#write()
    this.#settle()
  }

  /** The journal ends at `seq` now. */
  advanced(seq: bigint): void {
    for (const { shipper } of this.#targets.values()) shipper.advanced(seq)
  }

  /** Call about once a second: losses, and what the journal keeps. */
  tick(): void {
    this.#capturedBefore = this.#capturedLast
    this.#capturedLast = this.#options.capturedSeq()
    this.#settle()
    this.#scrub()
  }

  /** Frames after this seq are kept for a replica; undefined: none is. */
  get keepAfter(): bigint | undefined {
    return this.#keepAfter
  }

  /** Gives connected replicas a moment for what was captured last. */
  async finish(waitMs: number): Promise<void> {
    const seq = this.#options.capturedSeq()
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
    const targets = [...this.#targets.values()].filter(
      (each) => peer === undefined || each.options.peer === peer,
    )
    if (targets.length === 0) {
      const message = `the volume is not replicated${peer === undefined ? '' : ` to ${peer}`}`
      throw new HoldfastError('NOT_REPLICATED', message, { op: 'replica.wait' })
    }
    const behind = () =>
      targets.filter(({ state }) => state[options.for] < seq || state.baseline).map(nameOf)
    const end = Date.now() + waitMs
    while (behind().length > 0) {
      const left = end - Date.now()
      if (left <= 0) {
        const message = `${behind().join(', ')} has not ${options.for} seq ${seq} after ${waitMs} ms`
        throw new HoldfastError('TIMEOUT', message, {
          op: 'replica.wait',
          details: { replicas: this.status },
        })
      }
      await this.#change(left)
    }
  }

  /** Idempotent. */
  async close(): Promise<void> {
    const targets = [...this.#targets.values()]
    this.#targets.clear()
    this.#options.setSync(SyncMode.off)
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

  async #begin(options: ReplicaOptions): Promise<void> {
    const { volume, log } = this.#options
    const peers = new Peers(hostDirectory())
    const identity = await hostIdentity(hostDirectory())
    peers.get(options.peer)
    this.#options.keepCodes()
    // What was never compared is so one interval from now.
    this.#scrubbedAt.set(options.peer, Date.now())
    const shipper: Shipper = new Shipper({
      volume,
      peer: options.peer,
      log,
      connect: async () => {
        // Looked up each time: its address may have changed, or it may be no peer any more.
        const { address, fingerprint, name } = peers.get(options.peer)
        if (address !== null) return connectTls({ address, identity, fingerprint })
        throw new HoldfastError('CONNECTION', `${name} has no address`, {
          op: 'replication.connect',
          hint: 'Introduce it by a token of its own.',
        })
      },
      onChange: (state) => this.#changed(options.peer, state),
    })
    this.#targets.set(options.peer, {
      options,
      shipper,
      state: shipper.state,
      armed: false,
      lostAt: null,
      position: 0n,
      held: true,
      caughtUpAt: Date.now(),
    })
  }

  #changed(peer: string, state: ShipperState): void {
    const target = this.#targets.get(peer)
    if (target === undefined) return
    target.state = state
    if (state.applied >= this.#options.capturedSeq()) target.caughtUpAt = Date.now()
    if (target.options.ack !== 'async') this.#settleSync()
    for (const watcher of [...this.#watchers]) watcher()
  }

  #settle(): void {
    const shipping = this.#targets.size > 0
    if (shipping !== this.#shipping) this.#options.ship(shipping)
    this.#shipping = shipping
    const differing = [...this.#targets.values()].some(({ state }) => !isWhole(state))
    if (differing !== this.#differing) this.#options.setDiffering(differing)
    this.#differing = differing
    this.#settleSync()
    this.#settleHold()
  }

  /** Who is waited for, up to where all of them are, and what happens to fsync meanwhile. */
  #settleSync(): void {
    const sync = [...this.#targets.values()].filter(({ options }) => options.ack !== 'async')
    let mode: number = SyncMode.off
    let acknowledged: bigint | undefined
    for (const target of sync) {
      const at = position(target)
      const there = target.state.connection === 'connected' && !target.state.baseline
      if (there) {
        const behind = at < this.#options.capturedSeq()
        if (!behind || at > target.position) target.lostAt = null
        else if (target.armed) this.#lost(target)
        target.position = at
        // Armed once it has caught up: nobody waits for the past.
        if (!target.armed && (!behind || at >= this.#capturedBefore)) {
          target.armed = true
          target.lostAt = null
          this.#options.log.info({ peer: target.options.peer }, 'fsync waits for the replica')
        }
      } else if (target.armed) this.#lost(target)
      if (target.armed) {
        if (mode === SyncMode.off) mode = SyncMode.wait
        acknowledged = acknowledged === undefined || at < acknowledged ? at : acknowledged
      }
      if (!target.armed && target.options.onLoss === 'refuse') mode = SyncMode.refuse
    }
    if (acknowledged !== undefined) this.#options.acknowledged(acknowledged)
    if (mode === this.#mode) return
    this.#mode = mode
    this.#options.setSync(mode)
  }

  #lost(target: Target): void {
    target.lostAt ??= Date.now()
    if (Date.now() - target.lostAt < target.options.lossMs) return
    target.armed = false
    const { peer, onLoss } = target.options
    this.#options.log.error(
      { peer, onLoss, problem: target.state.problem },
      onLoss === 'refuse'
        ? 'a replica is lost: fsync fails'
        : 'a replica is lost: asynchronous now',
    )
  }

  /** Compares with replicas that were not proven equal for too long, or that are in doubt. */
  #scrub(): void {
    if (this.#verification.isRunning) return
    const now = Date.now()
    const whole = ({ state }: Target) => state.connection === 'connected' && isWhole(state)
    const due = [...this.#targets.values()].filter((target) => {
      const { options, state } = target
      const { verified, doubt } = state.verdict
      const last = Math.max(verified?.at ?? 0, this.#scrubbedAt.get(options.peer) ?? 0)
      const { scrubMs } = options
      return whole(target) && (doubt || (scrubMs > 0 && now - last >= scrubMs))
    })
    if (due.length === 0) return
    const peers = due.map(nameOf)
    const doubtful = due.some(({ state }) => state.verdict.doubt)
    for (const peer of peers) this.#scrubbedAt.set(peer, now)
    this.#options.log.info({ peers, doubtful }, 'everything is compared')
    this.verify({ peers, repair: doubtful, bytesPerS: doubtful ? 0 : SCRUB_BYTES_PER_S })
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

  get #path(): string {
    return join(this.#options.stateDirectory, FILE)
  }

  #read(): ReplicaOptions[] {
    if (!existsSync(this.#path)) return []
    const parsed = FileSchema.safeParse(JSON.parse(readFileSync(this.#path, 'utf8')))
    if (parsed.success) return parsed.data.replicas
    throw new HoldfastError('UNKNOWN_FORMAT', `${this.#path} is not what this holdfast writes`, {
      op: 'replicas.read',
      hint: 'Correct it, or remove it and replicate again.',
    })
  }

  #write(): void {
    const replicas = [...this.#targets.values()].map(({ options }) => options)
    writeFileDurably(this.#path, `${JSON.stringify({ version: 1, replicas }, null, 2)}\n`)
  }
}

function position({ options, state }: Target): bigint {
  return options.ack === 'sync-apply' ? state.applied : state.logged
}

/** As far as is known, the replica's tree lacks nothing that its log has. */
function isWhole({ connections, baseline, needs }: ShipperState): boolean {
  return connections > 0 && !baseline && needs === 0
}

function nameOf({ options }: Target): string {
  return options.peer
}

/** The volume is shipped to somebody. */
export function isReplicated(stateDirectory: string): boolean {
  return existsSync(join(stateDirectory, FILE))
}

/** By what name this host introduces itself. */
export function hostName(): string {
  const plain = hostname()
    .replaceAll(/[^A-Za-z0-9._-]+/g, '-')
    .replace(/^[^A-Za-z0-9]+/, '')
  return plain.slice(0, 64) || 'host'
}
