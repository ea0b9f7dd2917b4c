/**
 * The replica host as a process: serves peers (`replication/serve.ts`), connects to those that it
 * follows, feeds further replicas, and answers on a control socket of its own.
 */
import type { Socket } from 'node:net'
import { basename, resolve } from 'node:path'
import { z } from 'zod'
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import { hostName } from '../lib/host-name.js'
import type { Logger } from '../lib/log.js'
import { VERSION } from '../lib/version.js'
import type { CopyState } from '../replication/copy-state.js'
import type { FollowState } from '../replication/follower.js'
import { hostIdentity } from '../replication/identity.js'
import { Peers } from '../replication/peers.js'
import type { Replica } from '../replication/replica.js'
import { whenOpen, whenReady } from '../replication/replica-state.js'
import { type Connected, ReplicaHost, sshIdentity } from '../replication/serve.js'
import type { Caller } from '../replication/session.js'
import { ControlServer, type Routes, readBody } from './control.js'
import { Feed } from './feed.js'
import { FollowSchema, Follows } from './follows.js'
import { GroupAgent } from './group-agent.js'
import type { HistoryStatus } from './history.js'
import { HostMetrics } from './metrics.js'
import { addPastRoutes } from './past-routes.js'
import { hostDirectory, replicaSocketPath } from './places.js'
import { ReplicaHistory, ReplicaHistorySchema } from './replica-history.js'
import type { ReplicaStatus } from './replica-status.js'
import { type RootHolder, RootLock } from './root-lock.js'

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
  /** What is kept of its past. */
  history: HistoryStatus
  /** Further replicas that this one is shipped to. */
  feeds: ReplicaStatus[]
}

export interface HostStatus {
  host: string
  version: string
  pid: number
  /** null: nobody connects by TLS. */
  address: { host: string; port: number } | null
  fingerprint: string
  root: string
  replicas: HostedReplica[]
  /** Volumes that this host connects for. */
  follows: FollowState[]
}

export interface ServedReplicas {
  readonly status: HostStatus
  readonly sessions: number
  accept(connected: Connected): void
  close(): Promise<void>
}

/** The header of a request that is a connection over ssh: whose it is. */
export const STREAM_PEER_HEADER = 'x-holdfast-peer'
export const STREAM_PATH = '/v1/stream'

const FeedSchema = z.strictObject({
  peer: z.string().min(1),
  listen: z.string().min(1).nullish(),
  holdBytes: z.int().min(0).optional(),
})

/** Serves until `close`. CONNECTION: the address cannot be had. VOLUME_RUNNING: another does. */
export async function serveReplicas(options: {
  /** HOST:PORT; null: nobody connects by TLS. */
  listen: string | null
  root: string
  way?: RootHolder['way']
  log: Logger
}): Promise<ServedReplicas> {
  const root = resolve(options.root)
  const lock = await RootLock.acquire(root, options.way ?? 'serve')
  const served = new Served(lock, { ...options, root })
  try {
    await served.start()
  } catch (error) {
    await served.close()
    throw error
  }
  return served
}

class Served implements ServedReplicas {
  readonly #lock: RootLock
  readonly #options: { listen: string | null; root: string; log: Logger }
  readonly #feeds = new Map<string, Feed>()
  readonly #histories = new Map<string, ReplicaHistory>()
  #fingerprint = ''
  #host: ReplicaHost | undefined
  #follows: Follows | undefined
  #control: ControlServer | undefined

  constructor(lock: RootLock, options: { listen: string | null; root: string; log: Logger }) {
    this.#lock = lock
    this.#options = options
  }

  async start(): Promise<void> {
    const { listen, root, log } = this.#options
    const identity = await hostIdentity(hostDirectory())
    const peers = new Peers(hostDirectory())
    const name = hostName()
    this.#fingerprint = identity.fingerprint
    const onReplica = (replica: Replica) => this.#take(replica)
    const coordinate = ({ name: caller, identity: proven }: Caller) => {
      const rights = peers.rights(proven)
      return new GroupAgent({ caller, rights, log: log.child({ coordinator: caller }) })
    }
    const host = await ReplicaHost.start({
      listen,
      root,
      name,
      identity,
      peers,
      log,
      onReplica,
      coordinate,
    })
    this.#host = host
    for (const replica of host.replicas) this.#take(replica)
    this.#follows = new Follows({ host, identity, peers, log })
    this.#control = await ControlServer.listen({
      socket: replicaSocketPath(),
      addRoutes: (app) => this.#addRoutes(app),
    })
  }

  get status(): HostStatus {
    return {
      host: hostName(),
      version: VERSION,
      pid: process.pid,
      address: this.#host?.address ?? null,
      fingerprint: this.#fingerprint,
      root: this.#options.root,
      replicas: (this.#host?.replicas ?? []).map((replica) => ({
        ...hosted(replica),
        history: this.#history(replica).status,
        feeds: this.#feeds.get(replica.config.uuid)?.status ?? [],
      })),
      follows: this.#follows?.status ?? [],
    }
  }

  get sessions(): number {
    return this.#host?.sessions ?? 0
  }

  accept(connected: Connected): void {
    this.#host?.accept(connected)
  }

  /** Idempotent. */
  async close(): Promise<void> {
    await this.#follows?.close()
    await Promise.all([...this.#feeds.values()].map((feed) => feed.close()))
    await Promise.all([...this.#histories.values()].map((history) => history.close()))
    // Connections first: the control socket waits for those that came through it.
    await this.#host?.close()
    await this.#control?.close()
    this.#lock.release()
  }

  #take(replica: Replica): void {
    this.#history(replica)
    void this.#feed(replica)
  }

  #history(replica: Replica): ReplicaHistory {
    const { uuid } = replica.config
    const found = this.#histories.get(uuid) ?? new ReplicaHistory(replica, this.#options.log)
    this.#histories.set(uuid, found)
    return found
  }

  /** Once the replica has a log: ships it to whom it was shipped to before. */
  async #feed(replica: Replica): Promise<void> {
    const { log } = this.#options
    try {
      await whenReady(replica)
      this.#feeds.set(replica.config.uuid, await Feed.start(replica, log))
    } catch (error) {
      const known = toHoldfastError(error, 'replica.feed')
      log.error({ error: known, replica: replica.config.name }, 'it feeds nobody')
    }
  }

  #addRoutes(app: Routes): void {
    const metrics = new HostMetrics(hostName())
    app.get('/v1/replicas', async () => this.status)
    app.get('/v1/metrics', async (_request, reply) => {
      reply.type(metrics.contentType)
      return metrics.render(this.status)
    })
    app.post<{ Params: { name: string } }>('/v1/replicas/:name/feeds', async (request) => {
      const feed = this.#feedOf(request.params.name)
      await feed.add(readBody(request.body, FeedSchema, 'feed'))
      return feed.status
    })
    app.delete<{ Params: { name: string; peer: string } }>(
      '/v1/replicas/:name/feeds/:peer',
      async (request) => {
        const feed = this.#feedOf(request.params.name)
        await feed.remove(request.params.peer)
        return feed.status
      },
    )
    const past = (name: string) => this.#history(this.#find(name))
    app.addHook<{ Params: { name?: string } }>('preHandler', async ({ params }) => {
      if (params?.name !== undefined) await whenOpen(this.#find(params.name))
    })
    addPastRoutes(app, '/v1/replicas/:name', ({ name = '' }) => past(name))
    app.get<{ Params: { name: string } }>('/v1/replicas/:name/history/points', async (request) => {
      return { points: past(request.params.name).points }
    })
    app.put<{ Params: { name: string } }>('/v1/replicas/:name/history', async (request) => {
      const change = readBody(request.body, ReplicaHistorySchema, 'history')
      return past(request.params.name).change(change)
    })
    app.post('/v1/follows', async (request) => {
      await this.#follows?.add(readBody(request.body, FollowSchema, 'follow'))
      return this.status.follows
    })
    app.delete<{ Params: { peer: string; volume: string } }>(
      '/v1/follows/:peer/:volume',
      async (request) => {
        await this.#follows?.remove(request.params)
        return this.status.follows
      },
    )
    app.server.on('upgrade', (request, socket, head) => {
      const peer = request.headers[STREAM_PEER_HEADER]
      if (request.url !== STREAM_PATH || typeof peer !== 'string') return void socket.destroy()
      socket.write(
        'HTTP/1.1 101 Switching Protocols\r\nUpgrade: holdfast\r\nConnection: Upgrade\r\n\r\n',
      )
      if (head.length > 0) socket.unshift(head)
      this.accept({ stream: socket as Socket, identity: sshIdentity(peer), from: 'ssh' })
    })
  }

  #feedOf(name: string): Feed {
    const feed = this.#feeds.get(this.#find(name).config.uuid)
    if (feed !== undefined) return feed
    throw new HoldfastError('NOT_FOUND', `the replica ${name} has no log yet`, {
      op: 'replica.find',
    })
  }

  /** By its name, the name of its directory, or the UUID of its volume. NOT_FOUND. */
  #find(name: string): Replica {
    const replicas = this.#host?.replicas ?? []
    const found =
      replicas.find(({ place }) => basename(place.directory) === name) ??
      replicas.find(({ config }) => config.uuid === name || config.name === name)
    if (found !== undefined) return found
    throw new HoldfastError('NOT_FOUND', `this host has no replica ${name}`, {
      op: 'replica.find',
      hint: 'See what there is: holdfast replica list',
    })
  }
}

function hosted(replica: Replica): Omit<HostedReplica, 'feeds' | 'history'> {
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
    applyDelayMs: config.applyDelayMs,
    baseline: state.baseline,
    problem: state.failure && { code: state.failure.code, message: state.failure.message },
    tree: place.tree,
  }
}
