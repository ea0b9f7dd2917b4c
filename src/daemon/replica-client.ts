/** Client of the replica server's control socket. */

import { HoldfastError } from '../lib/errors.js'
import type { FollowState } from '../replication/follower.js'
import { callControl } from './call.js'
import type { FeedRequest } from './feed.js'
import { replicaSocketPath } from './places.js'
import type { HostStatus } from './replica-host.js'
import type { ReplicaStatus } from './replica-status.js'

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
