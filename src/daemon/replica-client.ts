/** Client of the replica server's control socket. */

import { HoldfastError } from '../lib/errors.js'
import type { FollowState } from '../replication/follower.js'
import { callControl } from './call.js'
import type { MountViewRequest } from './client.js'
import type { FeedRequest } from './feed.js'
import type { HistoryStatus } from './history.js'
import { replicaSocketPath } from './places.js'
import type { ReplicaHistoryChange, ReplicaPoint } from './replica-history.js'
import type { HostStatus } from './replica-host.js'
import type { ReplicaStatus } from './replica-status.js'
import type { ObjectVersions } from './versions.js'
import type { ViewStatus } from './view-table.js'

/** What the replica server of this host says; VOLUME_NOT_RUNNING when none runs. */
export function replicaHostStatus(): Promise<HostStatus> {
  return call('GET', '/v1/replicas')
}

/** Ships a replica of this host to a further peer. NOT_FOUND, PEER_NOT_FOUND, CONNECTION. */
export function feedReplica(name: string, request: FeedRequest): Promise<ReplicaStatus[]> {
  return call('POST', `/v1/replicas/${encodeURIComponent(name)}/feeds`, request)
}

/** NOT_FOUND, NOT_REPLICATED. */
export function stopFeeding(name: string, peer: string): Promise<ReplicaStatus[]> {
  const [replica, to] = [name, peer].map(encodeURIComponent)
  return call('DELETE', `/v1/replicas/${replica}/feeds/${to}`)
}

export interface FollowRequest {
  peer: string
  volume: string
  /** HOST:PORT; default: the peer's address. */
  address?: string | undefined
}

/** Connects to a peer for one of its volumes from now on. PEER_NOT_FOUND, USAGE. */
export function followVolume(request: FollowRequest): Promise<FollowState[]> {
  return call('POST', '/v1/follows', request)
}

/** NOT_REPLICATED. */
export function stopFollowing({ peer, volume }: FollowRequest): Promise<FollowState[]> {
  const [of, what] = [peer, volume].map(encodeURIComponent)
  return call('DELETE', `/v1/follows/${of}/${what}`)
}

/** What a replica of this host keeps of its past. NOT_FOUND, HISTORY_OFF, HISTORY_RANGE. */
export class ReplicaPastClient {
  readonly name: string

  constructor(name: string) {
    this.name = name
  }

  history(): Promise<HistoryStatus> {
    return this.#call('GET', '/history')
  }

  /** Markers of its primary that can be looked at, oldest first. HISTORY_OFF. */
  async points(): Promise<ReplicaPoint[]> {
    return (await this.#call<{ points: ReplicaPoint[] }>('GET', '/history/points')).points
  }

  /** The seq of a snapshot of its primary. SNAPSHOT_NOT_FOUND, HISTORY_OFF. */
  async snapshotSeq(name: string): Promise<bigint> {
    // Tried again, a snapshot may have left several: the last one is it.
    const found = (await this.points()).findLast((each) => each.name === name)
    if (found !== undefined) return BigInt(found.seq)
    const message = `the replica ${this.name} keeps no snapshot ${name} of its primary`
    throw new HoldfastError('SNAPSHOT_NOT_FOUND', message, {
      op: 'history.mount',
      hint: `See what there is: holdfast snapshot list ${this.name} --replica`,
    })
  }

  /** BUSY while a view is mounted. */
  change(change: ReplicaHistoryChange): Promise<HistoryStatus> {
    return this.#call('PUT', '/history', change)
  }

  /** The last seq at a time of the primary. */
  async seqAt(timeMs: number): Promise<bigint> {
    return BigInt((await this.#call<{ seq: number }>('POST', '/history/at', { timeMs })).seq)
  }

  async historyOf(path: Buffer, seq?: bigint): Promise<ObjectVersions[]> {
    type Reply = { objects: ObjectVersions[] }
    const body = { path: path.toString('base64'), seq: seq === undefined ? undefined : Number(seq) }
    return (await this.#call<Reply>('POST', '/history/of', body)).objects
  }

  mountView(request: MountViewRequest): Promise<ViewStatus> {
    return this.#call('POST', '/views', request)
  }

  async unmountView(id: number, lazy: boolean): Promise<void> {
    await this.#call('POST', `/views/${id}/unmount`, { lazy })
  }

  #call<T>(method: string, path: string, body?: unknown): Promise<T> {
    return call(method, `/v1/replicas/${encodeURIComponent(this.name)}${path}`, body)
  }
}

function call<T>(method: string, path: string, body?: unknown): Promise<T> {
  return callControl<T>({
    socket: replicaSocketPath(),
    method,
    path,
    body,
    options: {},
    daemon: 'the replica server',
    absent: () =>
      new HoldfastError('VOLUME_NOT_RUNNING', 'no replica server runs on this host', {
        op: 'replica.list',
        hint: 'Start it: holdfast replica serve --help',
      }),
  })
}
