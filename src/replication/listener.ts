/**
 * Where replicas that connect by themselves arrive, at the side that has the volume. Each asks for
 * a volume by name; it gets that volume only if it was given to it. Then the roles are as if this
 * side had connected: the stream goes to the peer's shipper.
 */
import type { Duplex } from 'node:stream'
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import { FIRST_MESSAGE_BYTES_MAX, FIRST_MESSAGE_MS_MAX, PEERS_POLL_MS } from '../lib/limits.js'
import type { Logger } from '../lib/log.js'
import { Channel } from './channel.js'
import { Doorway } from './doorway.js'
import type { Identity } from './identity.js'
import { admit } from './introduce.js'
import type { Link } from './link.js'
import { type HeaderOf, type Message, PROTOCOL, versionMismatch } from './message.js'
import type { Peers } from './peers.js'
import { outOfTurn, unknownPeer } from './refusals.js'
import { listenTls, type TlsServer } from './tls.js'

export interface ListenerOptions {
  /** HOST:PORT. */
  address: string
  /** Name of the volume that can be asked for here. */
  volume: string
  /** How this host introduces itself. */
  self: string
  identity: Identity
  peers: Peers
  log: Logger
}

export class Listener {
  readonly #options: ListenerOptions
  readonly #expected = new Map<string, Expected>()
  readonly #arriving = new Set<Channel>()
  readonly #doorway: Doorway
  #server: TlsServer | undefined
  #timer: NodeJS.Timeout | undefined

  private constructor(options: ListenerOptions) {
    this.#options = options
    this.#doorway = new Doorway(options.log)
  }

  /** CONNECTION when the address cannot be had, USAGE. */
  static async open(options: ListenerOptions): Promise<Listener> {
    const listener = new Listener(options)
    const { address, identity, log } = options
    listener.#server = await listenTls({
      address,
      identity,
      doorway: listener.#doorway,
      onConnection: (link, fingerprint) => listener.#accept(link, fingerprint),
    })
    listener.#timer = setInterval(() => listener.#dropStrangers(), PEERS_POLL_MS)
    log.info({ address }, 'replicas may connect')
    return listener
  }

  /** Nobody is expected any more. */
  get isIdle(): boolean {
    return this.#expected.size === 0
  }

  /** The peer with this name may connect and gets the volume. */
  expect(peer: string): Expected {
    this.#expected.get(peer)?.close()
    const expected = new Expected(() => {
      if (this.#expected.get(peer) === expected) this.#expected.delete(peer)
    })
    this.#expected.set(peer, expected)
    return expected
  }

  /** Idempotent. */
  async close(): Promise<void> {
    clearInterval(this.#timer)
    for (const each of [...this.#expected.values()]) each.close()
    const error = new HoldfastError('CONNECTION', 'the volume stops', { op: 'replication.listen' })
    for (const channel of this.#arriving) channel.refuse(error)
    await this.#server?.close()
  }

  #accept(link: Link, fingerprint: string): void {
    const from = `${link.remoteAddress}:${link.remotePort}`
    const log = this.#options.log.child({ from })
    const refuse = (error: unknown) => {
      const known = toHoldfastError(error, 'replication.listen')
      this.#doorway.refused({ from, error: known, fingerprint })
      channel.refuse(known)
    }
    const over = () => {
      clearTimeout(timer)
      this.#arriving.delete(channel)
    }
    const channel: Channel = new Channel(link, {
      onMessage: (message) => {
        try {
          if (!this.#first(message, fingerprint, channel, log)) return
          this.#doorway.pass(link)
          over()
        } catch (error) {
          refuse(error)
        }
      },
      onClose: over,
    })
    channel.bytesMax = FIRST_MESSAGE_BYTES_MAX
    const timer = setTimeout(() => {
      const what = `no first message in ${FIRST_MESSAGE_MS_MAX / 1000} s`
      refuse(new HoldfastError('PROTOCOL', what, { op: 'replication.listen' }))
    }, FIRST_MESSAGE_MS_MAX)
    this.#arriving.add(channel)
  }

  /** True: the stream has gone to its shipper. */
  #first({ header }: Message, fingerprint: string, channel: Channel, log: Logger): boolean {
    const { peers, self } = this.#options
    switch (header.type) {
      case 'introduce':
        admit({ request: header, fingerprint, peers, log })
        channel.send({ type: 'introduced', name: self })
        return false
      case 'follow': {
        const expected = this.#requested(header, fingerprint)
        log.info({ host: header.host }, 'a replica has connected')
        expected.arrived(channel.release(), fingerprint)
        return true
      }
      default:
        throw outOfTurn(header, {
          op: 'replication.listen',
          hint: 'This address is for replicas that connect: holdfast replica follow.',
        })
    }
  }

  #requested(header: HeaderOf<'follow'>, fingerprint: string): Expected {
    if (header.protocol !== PROTOCOL) throw versionMismatch(header)
    const { peers, volume } = this.#options
    const op = 'replication.listen'
    const peer = peers.byFingerprint(fingerprint)
    if (peer === undefined) throw unknownPeer(op)
    const expected = this.#expected.get(peer.name)
    if (header.volume === volume && expected !== undefined) return expected
    // The same words whether there is such a volume or not.
    throw new HoldfastError('PEER_UNKNOWN', `no volume ${header.volume} for you here`, {
      op,
      hint: 'On that host: holdfast replicate VOLUME --to PEER --listen HOST:PORT',
    })
  }

  /** Whoever was removed from the list has to go. */
  #dropStrangers(): void {
    for (const expected of this.#expected.values()) {
      const { fingerprint } = expected
      if (fingerprint === undefined) continue
      try {
        if (this.#options.peers.byFingerprint(fingerprint) === undefined) expected.drop()
      } catch (error) {
        this.#options.log.error({ error: toHoldfastError(error, 'peers') }, 'no peer can be let in')
      }
    }
  }
}

/** One peer that may come, and comes again after every break. */
export class Expected {
  readonly #onClose: () => void
  #stream: Duplex | undefined
  #taken = false
  #waiting: ((stream: Duplex) => void) | undefined
  #closed = false
  /** Of whoever has come last. */
  fingerprint: string | undefined

  constructor(onClose: () => void) {
    this.#onClose = onClose
  }

  /** A newer connection takes over: the old one may be lost without a word. */
  arrived(stream: Duplex, fingerprint: string): void {
    this.drop()
    if (this.#closed) return void stream.destroy()
    this.fingerprint = fingerprint
    this.#stream = stream
    this.#taken = false
    const waiting = this.#waiting
    this.#waiting = undefined
    waiting?.(this.#take(stream))
  }

  /** The next connection. ABORTED. */
  connect(signal: AbortSignal): Promise<Duplex> {
    const stream = this.#stream
    if (stream !== undefined && !this.#taken && !stream.destroyed) {
      return Promise.resolve(this.#take(stream))
    }
    return new Promise((resolve, reject) => {
      const stopped = () => {
        this.#waiting = undefined
        reject(new HoldfastError('ABORTED', 'nobody is waited for any more', { op: 'replication' }))
      }
      if (signal.aborted || this.#closed) return stopped()
      signal.addEventListener('abort', stopped, { once: true })
      this.#waiting = (arrived) => {
        signal.removeEventListener('abort', stopped)
        resolve(arrived)
      }
    })
  }

  drop(): void {
    this.#stream?.destroy()
    this.#stream = undefined
    this.fingerprint = undefined
  }

  /** Idempotent. */
  close(): void {
    this.#closed = true
    this.drop()
    this.#onClose()
  }

  #take(stream: Duplex): Duplex {
    this.#taken = true
    return stream
  }
}
