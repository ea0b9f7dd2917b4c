/**
 * The side of a replica that connects by itself: to the host that has the volume, and again after
 * every break. Once the connection stands and the volume is asked for, it is as if the other side
 * had connected (`session.ts`).
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import { CONNECTION_END_MS_MAX } from '../lib/limits.js'
import type { Logger } from '../lib/log.js'
import { VERSION } from '../lib/version.js'
import type { Identity } from './identity.js'
import { PROTOCOL } from './message.js'
import { isSshPeer, type Peers, type TlsPeer } from './peers.js'
import { Reconnect } from './reconnect.js'
import type { ReplicaHost } from './serve.js'
import { connectTls } from './tls.js'

/** What a replica host follows: a volume of a peer. */
export interface Follow {
  peer: string
  volume: string
  /** HOST:PORT; null: the address that the peer was introduced with. */
  address: string | null
}

export interface FollowState extends Follow {
  connection: 'connecting' | 'connected' | 'waiting' | 'refused' | 'stopped'
  problem: { code: string; message: string } | null
}

export interface FollowerOptions {
  follow: Follow
  host: ReplicaHost
  identity: Identity
  peers: Peers
  log: Logger
}

export class Follower {
  readonly follow: Follow
  readonly #options: FollowerOptions
  readonly #stopped = new AbortController()
  readonly #ended: Promise<void>
  #connection: FollowState['connection'] = 'connecting'
  #problem: FollowState['problem'] = null
  #hangUp: () => void = () => {}

  constructor(options: FollowerOptions) {
    this.#options = options
    this.follow = options.follow
    this.#ended = this.#run()
  }

  get state(): FollowState {
    return { ...this.follow, connection: this.#connection, problem: this.#problem }
  }

  /** Idempotent. */
  async close(): Promise<void> {
    this.#stopped.abort()
    this.#hangUp()
    await Promise.race([this.#ended, sleep(CONNECTION_END_MS_MAX)])
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopped
    const reconnect = new Reconnect()
    while (!signal.aborted) {
      reconnect.begin()
      const error = await this.#connected().catch((thrown: unknown) =>
        toHoldfastError(thrown, 'replica.follow'),
      )
      this.#note(error)
      await reconnect.pause(signal)
    }
    this.#connection = 'stopped'
  }

  #note(error: HoldfastError): void {
    const { code, message } = error
    const { log } = this.#options
    if (this.#problem?.message !== message)
      log.warn({ follow: this.follow, error }, 'not connected')
    this.#problem = { code, message }
    const away = code === 'CONNECTION' || code === 'PEER_SILENT'
    this.#connection = away ? 'waiting' : 'refused'
  }

  /** One connection, to its end. */
  async #connected(): Promise<HoldfastError> {
    const { host, identity } = this.#options
    const { volume } = this.follow
    this.#connection = 'connecting'
    const { peer, address } = this.#peer()
    const { fingerprint } = peer
    const stream = await connectTls({ address, identity, fingerprint })
    this.#hangUp = () => stream.destroy()
    if (this.#stopped.signal.aborted) this.#hangUp()
    this.#connection = 'connected'
    return new Promise((resolve) => {
      host.accept({
        stream,
        identity: fingerprint,
        from: address,
        volume,
        first: { type: 'follow', protocol: PROTOCOL, version: VERSION, host: host.name, volume },
        onWelcome: () => {
          this.#problem = null
        },
        onEnd: resolve,
      })
    })
  }

  #peer(): { peer: TlsPeer; address: string } {
    const peer = this.#options.peers.get(this.follow.peer)
    return { peer: requireTls(peer.name, peer), address: followAddress(this.follow, peer) }
  }
}

/** Where to connect. USAGE: nobody has said. */
export function followAddress(follow: Follow, peer: ReturnType<Peers['get']>): string {
  const address = follow.address ?? requireTls(follow.peer, peer).address
  if (address !== null) return address
  throw new HoldfastError('USAGE', `${follow.peer} was introduced without an address`, {
    op: 'replica.follow',
    hint: 'Say where it listens: --at HOST:PORT',
  })
}

function requireTls(name: string, peer: ReturnType<Peers['get']>): TlsPeer {
  if (!isSshPeer(peer)) return peer
  throw new HoldfastError(
    'USAGE',
    `${name} is reached by ssh: only peers of a token are followed`,
    {
      op: 'replica.follow',
      hint: 'Introduce it: holdfast peer token there, holdfast peer add here.',
    },
  )
}
