/** Client of the control socket: what the command line and the library use. */
import { setTimeout as sleep } from 'node:timers/promises'
import { HoldfastError } from '../lib/errors.js'
import { CONTROL_TIMEOUT_MS, STOP_TIMEOUT_MS } from '../lib/limits.js'
import type { Acknowledge } from '../replication/ack-options.js'
import type { Member } from '../snapshot/certificate.js'
import { type CallOptions, callControl } from './call.js'
import type { CutRequest } from './cutter.js'
import type { HistoryStatus } from './history.js'
import type { HorizonOrder, HorizonReply, HorizonWait } from './horizon.js'
import { runningDaemon } from './lock.js'
import { socketPath } from './places.js'
import type { ReplicaRequest } from './replica-options.js'
import type { AcknowledgeStatus, ReplicaStatus } from './replica-status.js'
import type { Status, Stopped } from './status.js'
import type { VerifyProgress } from './verification.js'
import { type ChangedWire, changedFromWire, type ObjectVersions } from './versions.js'
import type { ViewStatus } from './view-table.js'

const GONE_POLL_MS = 10

export type { CallOptions }

export interface PruneRequest {
  toSeq?: number | undefined
  maxBytes?: number | undefined
  maxAgeMs?: number | undefined
}

export interface PruneReply {
  frames: number
  bytes: number
  horizon: number
  heldByCheckpoint: boolean
}

export interface WaitRequest {
  for: 'logged' | 'applied'
  seq?: number | undefined
  peer?: string | undefined
  waitMs?: number
}

export interface VerifyRequest {
  peers?: string[] | undefined
  repair?: boolean
  bytesPerS?: number
}

/** As in a certificate: ns as decimal strings. */
export type CutReply = Omit<Member, 'volume' | 'uuid'>

export interface MountViewRequest {
  seq: number
  path: string
  snapshot?: string | null
  ownerPid?: number | null
}

export interface WaitReply {
  seq: number
  replicas: ReplicaStatus[]
}

/** Speaks to the daemon of one volume. VOLUME_NOT_RUNNING when there is none. */
export class ControlClient {
  readonly name: string

  constructor(name: string) {
    this.name = name
  }

  status(options?: CallOptions): Promise<Status> {
    return this.#call('GET', '/v1/status', undefined, options)
  }

  /** Prometheus text. */
  metrics(options?: CallOptions): Promise<string> {
    return this.#call('GET', '/v1/metrics', undefined, options)
  }

  /** Orderly stop; BUSY unless `force`. Resolves when the daemon is gone. */
  async stop({
    force = false,
    ...options
  }: CallOptions & { force?: boolean } = {}): Promise<Stopped> {
    const request = { timeoutMs: STOP_TIMEOUT_MS, ...options }
    const stopped: Stopped = await this.#call('POST', '/v1/stop', { force }, request)
    const end = Date.now() + CONTROL_TIMEOUT_MS
    while (runningDaemon(this.name) !== undefined && Date.now() < end) await sleep(GONE_POLL_MS)
    return stopped
  }

  marker(name: string, options?: CallOptions): Promise<{ name: string; seq: number }> {
    return this.#call('POST', '/v1/marker', { name }, options)
  }

  /** Waits until everything captured now is journaled durably. */
  flush(options?: CallOptions): Promise<{ seq: number }> {
    return this.#call('POST', '/v1/flush', {}, options)
  }

  checkpoint(options?: CallOptions): Promise<{ seq: number; time: string }> {
    return this.#call('POST', '/v1/checkpoint', {}, options)
  }

  prune(request: PruneRequest, options?: CallOptions): Promise<PruneReply> {
    return this.#call('POST', '/v1/prune', request, { timeoutMs: STOP_TIMEOUT_MS, ...options })
  }

  setRetention(
    retention: { maxBytes: number | null; maxAgeMs: number | null },
    options?: CallOptions,
  ): Promise<typeof retention> {
    return this.#call('PUT', '/v1/retention', retention, options)
  }

  /** Images the whole tree; follow `status().recapture`. */
  recapture(reason: string, options?: CallOptions): Promise<Status['recapture']> {
    return this.#call('POST', '/v1/recapture', { reason }, options)
  }

  /** Ships the volume to a peer, or changes how. */
  replicate(request: ReplicaRequest, options?: CallOptions): Promise<ReplicaStatus[]> {
    return this.#call('POST', '/v1/replicas', request, options)
  }

  /** Changes when replies are held until replicas have it; answers with what holds now. */
  setAcknowledge(change: Partial<Acknowledge>, options?: CallOptions): Promise<AcknowledgeStatus> {
    return this.#call('PUT', '/v1/acknowledge', change, options)
  }

  stopReplicating(peer: string, options?: CallOptions): Promise<ReplicaStatus[]> {
    return this.#call('DELETE', `/v1/replicas/${encodeURIComponent(peer)}`, undefined, options)
  }

  /** Waits until replicas have what was captured until now, or `seq`. TIMEOUT. */
  wait(request: WaitRequest, options?: CallOptions): Promise<WaitReply> {
    const { waitMs = CONTROL_TIMEOUT_MS } = request
    const timeoutMs = waitMs + CONTROL_TIMEOUT_MS
    return this.#call('POST', '/v1/wait', { ...request, waitMs }, { timeoutMs, ...options })
  }

  /** Begins to compare everything with the replicas; follow it by `verified`. */
  verify(request: VerifyRequest, options?: CallOptions): Promise<VerifyProgress> {
    return this.#call('POST', '/v1/verify', request, options)
  }

  /** The comparison under way, or the last one since the daemon started. */
  async verified(options?: CallOptions): Promise<VerifyProgress | null> {
    type Reply = { verify: VerifyProgress | null }
    return (await this.#call<Reply>('GET', '/v1/verify', undefined, options)).verify
  }

  /** Begins to bring a replica, or all, back by codes; follow it by `status`. */
  resync(peer?: string, options?: CallOptions): Promise<ReplicaStatus[]> {
    return this.#call('POST', '/v1/resync', { peer }, options)
  }

  /** Holds I/O for at most `maxMs`; `startNs` is CLOCK_MONOTONIC as a decimal string; `hold` ends it. */
  hold(
    maxMs: number,
    options?: CallOptions,
  ): Promise<{ seq: number; startNs: string; hold: number }> {
    return this.#call('POST', '/v1/hold', { maxMs }, options)
  }

  /** Takes the volume's part in a cut. */
  cut(request: CutRequest, options?: CallOptions): Promise<CutReply> {
    const timeoutMs = request.gatherMs + request.maxHoldMs + CONTROL_TIMEOUT_MS
    return this.#call('POST', '/v1/cut', request, { timeoutMs, ...options })
  }

  /** What the coordinator of its group says, and how the volume stands. GROUP_OTHER, GROUP_STALE. */
  horizon(
    request: { order: HorizonOrder | null; wait?: HorizonWait | null },
    options?: CallOptions,
  ): Promise<HorizonReply> {
    return this.#call('PUT', '/v1/horizon', request, options)
  }

  /** Whether it had a horizon. GROUP_OTHER. */
  async leaveHorizon(group?: string, options?: CallOptions): Promise<boolean> {
    type Reply = { left: boolean }
    return (await this.#call<Reply>('POST', '/v1/horizon/leave', { group }, options)).left
  }

  history(options?: CallOptions): Promise<HistoryStatus> {
    return this.#call('GET', '/v1/history', undefined, options)
  }

  /** The snapshots have changed: what has to be kept follows. */
  refreshHistory(options?: CallOptions): Promise<HistoryStatus> {
    return this.#call('POST', '/v1/history/refresh', {}, options)
  }

  /** The last seq at a time. HISTORY_RANGE, HISTORY_OFF. */
  async seqAt(timeMs: number, options?: CallOptions): Promise<bigint> {
    type Reply = { seq: number }
    return BigInt((await this.#call<Reply>('POST', '/v1/history/at', { timeMs }, options)).seq)
  }

  /** What a path (relative to the root) led to, newest first; its directory is looked for as of `seq`. */
  async historyOf(path: Buffer, seq?: bigint, options?: CallOptions): Promise<ObjectVersions[]> {
    type Reply = { objects: ObjectVersions[] }
    const body = { path: path.toString('base64'), seq: seq === undefined ? undefined : Number(seq) }
    return (await this.#call<Reply>('POST', '/v1/history/of', body, options)).objects
  }

  /** What can differ between two moments (undefined: now); undefined where that cannot be told. */
  async changed(after: bigint, upTo: bigint | undefined, options?: CallOptions) {
    const body = { after: Number(after), upTo: upTo === undefined ? null : Number(upTo) }
    type Reply = ChangedWire
    return changedFromWire(await this.#call<Reply>('POST', '/v1/history/changed', body, options))
  }

  mountView(request: MountViewRequest, options?: CallOptions): Promise<ViewStatus> {
    return this.#call('POST', '/v1/views', request, options)
  }

  async unmountView(id: number, lazy: boolean, options?: CallOptions): Promise<void> {
    await this.#call('POST', `/v1/views/${id}/unmount`, { lazy }, options)
  }

  /** Ends a hold; HOLD_EXPIRED when its deadline had passed. */
  release(hold: number, options?: CallOptions): Promise<{ heldNs: number }> {
    return this.#call('POST', '/v1/release', { hold }, options)
  }

  #call<T>(method: string, path: string, body: unknown, options: CallOptions = {}): Promise<T> {
    const { name } = this
    return callControl<T>({
      socket: socketPath(name),
      method,
      path,
      body,
      options,
      daemon: `the daemon of ${name}`,
      absent: () =>
        new HoldfastError('VOLUME_NOT_RUNNING', `volume ${name} is not mounted`, {
          op: `control ${path.slice('/v1/'.length)}`,
          hint: `Start it: holdfast mount ${name}`,
        }),
    })
  }
}

/** What the daemon of a volume answers; undefined when there is none. */
export async function ifRunning<T>(call: Promise<T>): Promise<T | undefined> {
  try {
    return await call
  } catch (error) {
    if (error instanceof HoldfastError && error.code === 'VOLUME_NOT_RUNNING') return undefined
    throw error
  }
}
