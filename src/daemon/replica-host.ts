/**
 * The replica host as a process: serves peers (`replication/serve.ts`) and, on a control socket of
 * its own, whoever asks this host how its replicas are doing.
 */
import { resolve } from 'node:path'
import type { Logger } from '../lib/log.js'
import { VERSION } from '../lib/version.js'
import { hostIdentity } from '../replication/identity.js'
import { Peers } from '../replication/peers.js'
import type { CopyState } from '../replication/replica.js'
import { ReplicaHost } from '../replication/serve.js'
import { ControlServer } from './control.js'
import { HostMetrics } from './metrics.js'
import { hostDirectory, replicaSocketPath } from './places.js'
import { hostName } from './replicas.js'

/** What `holdfast replica list` and GET /v1/replicas tell of one replica. */
export interface HostedReplica {
  name: string
  uuid: string
  /** The peer it belongs to. */
  primary: string
  connected: boolean
  copy: CopyState
  /** Last seq of the primary's journal that was heard of, and how far the replica is. */
  end: number
  logged: number
  applied: number
  /**
   * What the primary has, as far as it was heard of, and the tree has not; `bytes` without what
   * waited in the log when this server started.
   */
  lag: { records: number; bytes: number; seconds: number }
  /** Received and not yet in the log. */
  queuedBytes: number
  /** Times it could not go on, since this server started. */
  failures: number
  baseline: boolean
  problem: { code: string; message: string } | null
  tree: string
  /** How late it is applied on purpose. */
  applyDelayMs: number
}

export interface HostStatus {
  host: string
  version: string
  pid: number
  address: { host: string; port: number } | null
  fingerprint: string
  root: string
  replicas: HostedReplica[]
}

export interface ServedReplicas {
  readonly status: HostStatus
  close(): Promise<void>
}

/** Serves until `close`. CONNECTION: the address cannot be had. */
export async function serveReplicas(options: {
  listen: string
  root: string
  log: Logger
}): Promise<ServedReplicas> {
  const identity = await hostIdentity(hostDirectory())
  const peers = new Peers(hostDirectory())
  const root = resolve(options.root)
  const name = hostName()
  const { listen, log } = options
  const host = await ReplicaHost.start({ listen, root, name, identity, peers, log })
  const status = (): HostStatus => ({
    host: name,
    version: VERSION,
    pid: process.pid,
    address: host.address ?? null,
    fingerprint: identity.fingerprint,
    root,
    replicas: host.replicas.map((replica) => {
      const { state, config, place } = replica
      return {
        name: config.name,
        uuid: config.uuid,
        primary: config.ownerName,
        connected: replica.connected,
        copy: state.copy,
        end: Number(state.end),
        logged: Number(state.logged?.seq ?? 0n),
        applied: Number(state.applied),
        lag: replica.lag,
        queuedBytes: state.queuedBytes,
        failures: replica.failures,
        baseline: state.baseline,
        problem: state.failure && { code: state.failure.code, message: state.failure.message },
        tree: place.tree,
        applyDelayMs: config.applyDelayMs,
      }
    }),
  })
  const metrics = new HostMetrics(name)
  const control = await ControlServer.listen({
    socket: replicaSocketPath(),
    addRoutes: (app) => {
      app.get('/v1/replicas', async () => status())
      app.get('/v1/metrics', async (_request, reply) => {
        reply.type(metrics.contentType)
        return metrics.render(status())
      })
    },
  })
  return {
    get status() {
      return status()
    },
    close: async () => {
      await control.close()
      await host.close()
    },
  }
}
