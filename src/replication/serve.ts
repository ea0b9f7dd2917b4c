/**
 * The replica host: lets in the peers it knows, whichever way they come, and keeps their replicas
 * below one root.
 */
import { existsSync, mkdirSync } from 'node:fs'
import type { Duplex } from 'node:stream'
import type { Service } from '../group/calls.js'
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import { PEERS_POLL_MS } from '../lib/limits.js'
import type { Logger } from '../lib/log.js'
import { NAME } from '../lib/names.js'
import { Doorway } from './doorway.js'
import type { Identity } from './identity.js'
import { admit } from './introduce.js'
import type { Header, HeaderOf } from './message.js'
import type { Peers } from './peers.js'
import { Replica } from './replica.js'
import { createReplica, listReplicas, type ReplicaConfig, requireOwner } from './replica-config.js'
import { whenReady } from './replica-state.js'
import { type Caller, Session, type SessionHost } from './session.js'
import { listenTls, type TlsServer } from './tls.js'

/** What the identities begin with that ssh has proven: the rest is a name. */
const BY_SSH = 'ssh:'

export interface ReplicaHostOptions {
  /** HOST:PORT; null: nobody connects by TLS. */
  listen: string | null
  /** Directory of the replicas. */
  root: string
  name: string
  identity: Identity
  peers: Peers
  log: Logger
  /** A replica was made. */
  onReplica?(replica: Replica): void
  /** Answers a coordinator of groups. */
  coordinate?(caller: Caller): Service
}

/** A connection that is there already. */
export interface Connected {
  stream: Duplex
  identity: string
  /** Where it comes from, for the log. */
  from: string
  /** What this side says first, when it has connected. */
  first?: Header
  /** The only volume that is expected on it. */
  volume?: string
  /** A replica of this host follows on it now. */
  onWelcome?(): void
  onEnd?(error: HoldfastError): void
}

export class ReplicaHost {
  readonly root: string
  readonly name: string
  readonly #options: ReplicaHostOptions
  readonly #replicas = new Map<string, Replica>()
  readonly #sessions = new Map<Session, string>()
  readonly #closed = new AbortController()
  readonly #doorway: Doorway
  #server: TlsServer | undefined
  #timer: NodeJS.Timeout | undefined

  private constructor(options: ReplicaHostOptions) {
    this.#options = options
    this.#doorway = new Doorway(options.log)
    this.root = options.root
    this.name = options.name
  }

  static async start(options: ReplicaHostOptions): Promise<ReplicaHost> {
    mkdirSync(options.root, { recursive: true, mode: 0o755 })
    const host = new ReplicaHost(options)
    for (const { config, directory } of listReplicas(options.root)) {
      host.#replicas.set(config.uuid, new Replica(directory, config, options.log))
    }
    const { listen: address, identity } = options
    try {
      if (address !== null) {
        host.#server = await listenTls({
          address,
          identity,
          doorway: host.#doorway,
          onConnection: (stream, fingerprint) => {
            const from = `${stream.remoteAddress}:${stream.remotePort}`
            if (host.#caller(fingerprint) !== undefined) host.#doorway.pass(stream)
            host.accept({ stream, identity: fingerprint, from })
          },
        })
      }
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

  /** Of connections that are there. */
  get sessions(): number {
    return this.#sessions.size
  }

  /** Idempotent. */
  async close(): Promise<void> {
    this.#closed.abort()
    clearInterval(this.#timer)
    for (const session of this.#sessions.keys()) {
      session.close(stopping())
    }
    await this.#server?.close()
    await Promise.all(this.replicas.map((replica) => replica.close()))
  }

  /** Serves a connection whose other end has proven to be `identity`. */
  accept({ stream, identity, from, first, volume, onWelcome, onEnd }: Connected): void {
    const log = this.#options.log.child({ from, peer: this.#caller(identity)?.name ?? null })
    const session: Session = new Session({
      stream,
      identity,
      host: this.#sessionHost(() => session, volume, onWelcome),
      log,
      ...(first === undefined ? {} : { first }),
      refused: (about) => this.#doorway.refused({ from, ...about }),
      onEnd: (error) => {
        this.#sessions.delete(session)
        onEnd?.(error)
      },
    })
    this.#sessions.set(session, identity)
    if (this.#closed.signal.aborted) session.close(stopping())
  }

  #sessionHost(
    session: () => Session,
    volume: string | undefined,
    onWelcome: (() => void) | undefined,
  ): SessionHost {
    const { peers, log } = this.#options
    return {
      name: this.name,
      caller: (identity) => this.#caller(identity),
      introduce: (request, fingerprint) => void admit({ request, fingerprint, peers, log }),
      replica: async (hello, caller) => {
        if (volume === undefined || hello.name === volume) {
          const replica = await this.#replica(hello, caller, session())
          onWelcome?.()
          return replica
        }
        throw new HoldfastError('PEER_REFUSED', `${volume} was asked for, not ${hello.name}`, {
          op: 'replica.follow',
        })
      },
      enter: (replica) => this.#takeOver(replica, session()),
      coordinate: (caller) => {
        const service = this.#options.coordinate?.(caller)
        if (service !== undefined) return service
        throw new HoldfastError('PEER_REFUSED', 'no groups are coordinated here', {
          op: 'replica.coordinate',
        })
      },
    }
  }

  #caller(identity: string): Caller | undefined {
    if (identity.startsWith(BY_SSH)) return { name: identity.slice(BY_SSH.length), identity }
    try {
      const peer = this.#options.peers.byFingerprint(identity)
      return peer && { name: peer.name, identity }
    } catch (error) {
      this.#options.log.error({ error: toHoldfastError(error, 'peers') }, 'no peer can be let in')
      return undefined
    }
  }

  async #replica(hello: HeaderOf<'hello'>, caller: Caller, newcomer: Session): Promise<Replica> {
    const found = this.#replicas.get(hello.volume)
    if (found !== undefined) requireOwner(found.config, caller.identity)
    const replica = found ?? this.#create(hello, caller)
    this.#takeOver(replica, newcomer)
    replica.begin(hello.end)
    await whenReady(replica)
    return replica
  }

  /** The old connection of a primary that lost it without a word. */
  #takeOver(replica: Replica, newcomer: Session): void {
    for (const session of this.#sessions.keys()) {
      if (session === newcomer || session.replica !== replica) continue
      session.close(
        new HoldfastError('CONNECTION', 'a newer connection takes over', { op: 'replica.serve' }),
      )
    }
  }

  #create(hello: HeaderOf<'hello'>, caller: Caller): Replica {
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
      owner: caller.identity,
      ownerName: caller.name,
      created: new Date().toISOString(),
      applyDelayMs: 0,
      clockAheadMs: 0,
    }
    const directory = createReplica(root, config)
    log.info({ volume: hello.name, peer: caller.name, directory }, 'a new replica')
    const replica = new Replica(directory, config, log)
    this.#replicas.set(config.uuid, replica)
    this.#options.onReplica?.(replica)
    return replica
  }

  /** Whoever was removed from the list has to go. */
  #dropStrangers(): void {
    for (const [session, identity] of this.#sessions) {
      if (session.replica === undefined || this.#caller(identity) !== undefined) continue
      session.close(
        new HoldfastError('PEER_UNKNOWN', 'this host does not know you any more', {
          op: 'replica.serve',
        }),
      )
    }
  }
}

/** The identity of whoever came by ssh. */
export function sshIdentity(name: string): string {
  return `${BY_SSH}${name}`
}

function stopping(): HoldfastError {
  return new HoldfastError('CONNECTION', 'the replica server stops', { op: 'replica.serve' })
}
