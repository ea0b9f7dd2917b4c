/**
 * The replica host: listens, lets in the peers it knows, and keeps their replicas below one root.
 */
import { existsSync, mkdirSync } from 'node:fs'
import type { TLSSocket } from 'node:tls'
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import type { Logger } from '../lib/log.js'
import { NAME } from '../lib/names.js'
import type { Identity } from './identity.js'
import type { HeaderOf } from './message.js'
import type { Peer, Peers } from './peers.js'
import { Replica, requireOwner } from './replica.js'
import { createReplica, listReplicas, type ReplicaConfig } from './replica-config.js'
import { Session, type SessionHost } from './session.js'
import { listenTls, type TlsServer } from './tls.js'

/** How often the list of peers is looked at for those that are not welcome any more. */
const PEERS_POLL_MS = 1_000

export interface ReplicaHostOptions {
  /** HOST:PORT. */
  listen: string
  /** Directory of the replicas. */
  root: string
  name: string
  identity: Identity
  peers: Peers
  log: Logger
}

export class ReplicaHost {
  readonly root: string
  readonly name: string
  readonly #options: ReplicaHostOptions
  readonly #replicas = new Map<string, Replica>()
  readonly #sessions = new Map<Session, string>()
  #server: TlsServer | undefined
  #timer: NodeJS.Timeout | undefined

  private constructor(options: ReplicaHostOptions) {
    this.#options = options
    this.root = options.root
    this.name = options.name
  }

  static async start(options: ReplicaHostOptions): Promise<ReplicaHost> {
    mkdirSync(options.root, { recursive: true, mode: 0o755 })
    const host = new ReplicaHost(options)
    for (const { config, directory } of listReplicas(options.root)) {
      host.#replicas.set(config.uuid, new Replica(directory, config, options.log))
    }
    const { listen: address, identity, log } = options
    try {
      host.#server = await listenTls({
        address,
        identity,
        log,
        onConnection: (socket, fingerprint) => host.#accept(socket, fingerprint),
      })
    } catch (error) {
      await host.close()
      throw error
    }
    host.#timer = setInterval(() => host.#dropStrangers(), PEERS_POLL_MS)
    return host
  }

  get address(): { host: string; port: number } | undefined {
    return this.#server?.address
  }

  get replicas(): readonly Replica[] {
    return [...this.#replicas.values()]
  }

  /** Idempotent. */
  async close(): Promise<void> {
    clearInterval(this.#timer)
    for (const session of this.#sessions.keys()) {
      session.close(
        new HoldfastError('CONNECTION', 'the replica server stops', { op: 'replica.serve' }),
      )
    }
    await this.#server?.close()
    await Promise.all(this.replicas.map((replica) => replica.close()))
  }

  #accept(socket: TLSSocket, fingerprint: string): void {
    const { log } = this.#options
    const from = `${socket.remoteAddress}:${socket.remotePort}`
    const peer = this.#peer(fingerprint)?.name ?? null
    const session: Session = new Session({
      stream: socket,
      fingerprint,
      host: this.#sessionHost(() => session),
      log: log.child({ from, peer }),
      onEnd: () => this.#sessions.delete(session),
    })
    this.#sessions.set(session, fingerprint)
  }

  #sessionHost(session: () => Session): SessionHost {
    return {
      name: this.name,
      peer: (fingerprint) => this.#peer(fingerprint),
      introduce: (request, fingerprint) => this.#introduce(request, fingerprint),
      replica: (hello, peer) => this.#replica(hello, peer, session()),
    }
  }

  #peer(fingerprint: string): Peer | undefined {
    try {
      return this.#options.peers.byFingerprint(fingerprint)
    } catch (error) {
      this.#options.log.error({ error: toHoldfastError(error, 'peers') }, 'no peer can be let in')
      return undefined
    }
  }

  #introduce({ secret, name }: HeaderOf<'introduce'>, fingerprint: string): boolean {
    const { peers, log } = this.#options
    if (!peers.redeem(secret)) return false
    const peer = peers.add({ name, fingerprint, address: null })
    log.info({ peer: peer.name, fingerprint }, 'a new peer')
    return true
  }

  async #replica(hello: HeaderOf<'hello'>, peer: Peer, newcomer: Session): Promise<Replica> {
    const found = this.#replicas.get(hello.volume)
    if (found !== undefined) requireOwner(found.config, peer.fingerprint)
    const replica = found ?? this.#create(hello, peer)
    // The old connection of a primary that lost it without a word.
    for (const session of this.#sessions.keys()) {
      if (session === newcomer || session.replica !== replica) continue
      session.close(
        new HoldfastError('CONNECTION', 'a newer connection takes over', { op: 'replica.serve' }),
      )
    }
    while (!replica.isReady) {
      await new Promise<void>((resolve) => {
        const end = replica.watch(() => {
          end()
          resolve()
        })
      })
    }
    return replica
  }

  #create(hello: HeaderOf<'hello'>, peer: Peer): Replica {
    const { root, log } = this.#options
    if (!NAME.test(hello.name) || !existsSync(root)) {
      const what = existsSync(root) ? `a volume named ${JSON.stringify(hello.name)}` : root
      throw new HoldfastError('PEER_REFUSED', `cannot keep a replica of ${what}`, {
        op: 'replica.create',
      })
    }
    const config: ReplicaConfig = {
      version: 1,
      uuid: hello.volume,
      name: hello.name,
      owner: peer.fingerprint,
      ownerName: peer.name,
      created: new Date().toISOString(),
      applyDelayMs: 0,
      clockAheadMs: 0,
    }
    const directory = createReplica(root, config)
    log.info({ volume: hello.name, peer: peer.name, directory }, 'a new replica')
    const replica = new Replica(directory, config, log)
    this.#replicas.set(config.uuid, replica)
    return replica
  }

  /** Whoever was removed from the list has to go. */
  #dropStrangers(): void {
    for (const [session, fingerprint] of this.#sessions) {
      if (session.replica === undefined || this.#peer(fingerprint) !== undefined) continue
      session.close(
        new HoldfastError('PEER_UNKNOWN', 'this host does not know you any more', {
          op: 'replica.serve',
        }),
      )
    }
  }
}
