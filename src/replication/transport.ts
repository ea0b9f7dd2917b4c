/**
 * How a sender comes by a connection to a replica: it connects by TLS, it has the system's ssh run
 * the other end, or it waits for the replica to come. Whichever it is, a transport gives a stream
 * of bytes to a host that has proven who it is; `channel.ts` does the rest.
 */
import type { Duplex } from 'node:stream'
import { HoldfastError } from '../lib/errors.js'
import type { Logger } from '../lib/log.js'
import type { Identity } from './identity.js'
import { type Expected, Listener } from './listener.js'
import { isSshPeer, type Peer, type Peers } from './peers.js'
import { connectSsh } from './ssh.js'
import { connectTls } from './tls.js'

export interface Transport {
  /** The other side connects: `connect` resolves when it has come. */
  readonly listens: boolean
  /** One connection. CONNECTION, PEER_UNKNOWN, PEER_NOT_FOUND, PROTOCOL_VERSION; ABORTED by `signal`. */
  connect(signal: AbortSignal): Promise<Duplex>
  /** Nobody is waited for any more. Idempotent. */
  close(): Promise<void>
}

/** Who makes the connection. */
export interface Direction {
  /** HOST:PORT where the peer comes to; null: this side connects. */
  listen: string | null
}

export interface TransportsOptions {
  /** Name of the volume: what peers that connect ask for. */
  volume: string
  /** How this host introduces itself. */
  self: string
  identity: Identity
  peers: Peers
  log: Logger
}

/** The transports of one volume; those that listen on the same address share a listener. */
export class Transports {
  readonly #options: TransportsOptions
  readonly #listeners = new Map<string, Promise<Listener>>()

  constructor(options: TransportsOptions) {
    this.#options = options
  }

  /** Refuses what cannot work: PEER_NOT_FOUND, USAGE, CONNECTION (the address cannot be had). */
  async check(peer: string, { listen }: Direction): Promise<void> {
    const found = this.#options.peers.get(peer)
    if (listen === null) return
    requireTls(found)
    await this.#listener(listen)
  }

  to(peer: string, { listen }: Direction): Transport {
    return listen === null ? this.#connecting(peer) : this.#listening(peer, listen)
  }

  #listening(name: string, address: string): Transport {
    let expected: Expected | undefined
    return {
      listens: true,
      connect: async (signal) => {
        requireTls(this.#options.peers.get(name))
        const listener = await this.#listener(address)
        expected ??= listener.expect(name)
        return expected.connect(signal)
      },
      close: async () => {
        expected?.close()
        const listener = await this.#listeners.get(address)
        if (listener === undefined || !listener.isIdle) return
        this.#listeners.delete(address)
        await listener.close()
      },
    }
  }

  #connecting(name: string): Transport {
    const { peers, identity, log } = this.#options
    return {
      listens: false,
      connect: async (signal) => {
        // Looked up each time: its address may have changed, or it may be no peer any more.
        const peer = peers.get(name)
        if (isSshPeer(peer))
          return connectSsh({ ...peer.ssh, signal, log: log.child({ peer: name }) })
        const { address, fingerprint } = peer
        if (address !== null) return connectTls({ address, identity, fingerprint })
        throw new HoldfastError('CONNECTION', `${name} has no address`, {
          op: 'replication.connect',
          hint: 'Let it connect (--listen), or introduce it by a token of its own.',
        })
      },
      close: async () => {},
    }
  }

  /** The one of this address. CONNECTION. */
  #listener(address: string): Promise<Listener> {
    const { volume, self, identity, peers, log } = this.#options
    const found = this.#listeners.get(address)
    if (found !== undefined) return found
    const opening = Listener.open({ address, volume, self, identity, peers, log })
    this.#listeners.set(address, opening)
    opening.catch(() => this.#listeners.delete(address))
    return opening
  }
}

function requireTls(peer: Peer): void {
  if (!isSshPeer(peer)) return
  throw new HoldfastError('USAGE', `${peer.name} is reached by ssh: it is not listened for`, {
    op: 'replication.listen',
    hint: 'Introduce it by a token (holdfast peer token), or leave out --listen.',
  })
}
