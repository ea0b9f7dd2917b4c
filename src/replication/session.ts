/**
 * One connection to the replica server, from its first message to its end: who it is, what it may
 * reach, and then the frames of one volume.
 */
import type { Duplex } from 'node:stream'
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import { FIRST_MESSAGE_MS_MAX } from '../lib/limits.js'
import type { Logger } from '../lib/log.js'
import { VERSION } from '../lib/version.js'
import { Channel } from './channel.js'
import { type HeaderOf, type Message, PROTOCOL, versionMismatch } from './message.js'
import type { Peer } from './peers.js'
import type { Replica } from './replica.js'

export interface SessionHost {
  readonly name: string
  /** The peer with this fingerprint; undefined for a stranger. */
  peer(fingerprint: string): Peer | undefined
  /** Makes a stranger a peer; false when the secret is not good. */
  introduce(request: HeaderOf<'introduce'>, fingerprint: string): boolean
  /** The replica of this volume, made when there is none. PEER_UNKNOWN: it is another peer's. */
  replica(hello: HeaderOf<'hello'>, peer: Peer): Promise<Replica>
}

export class Session {
  readonly #channel: Channel
  readonly #host: SessionHost
  readonly #fingerprint: string
  readonly #log: Logger
  readonly #timer: NodeJS.Timeout
  readonly #onEnd: () => void
  #replica: Replica | undefined
  #unwatch: () => void = () => {}
  #opening = false
  #said = ''
  #speaking = false

  constructor(options: {
    stream: Duplex
    fingerprint: string
    host: SessionHost
    log: Logger
    onEnd(): void
  }) {
    this.#host = options.host
    this.#fingerprint = options.fingerprint
    this.#log = options.log
    this.#onEnd = options.onEnd
    this.#channel = new Channel(options.stream, {
      onMessage: (message) => this.#receive(message),
      onClose: (error) => this.#ended(error),
    })
    this.#timer = setTimeout(() => {
      const what = `no first message in ${FIRST_MESSAGE_MS_MAX / 1000} s`
      this.#channel.refuse(new HoldfastError('PROTOCOL', what, { op: 'replication.accept' }))
    }, FIRST_MESSAGE_MS_MAX)
  }

  get replica(): Replica | undefined {
    return this.#replica
  }

  close(error: HoldfastError): void {
    this.#channel.refuse(error)
  }

  #receive(message: Message): void {
    try {
      this.#take(message)
    } catch (error) {
      this.#refuse(error)
    }
  }

  #take({ header, body }: Message): void {
    switch (header.type) {
      case 'introduce':
        this.#introduce(header)
        return
      case 'hello':
        this.#hello(header)
        return
    }
    const replica = this.#replica
    if (replica === undefined) throw outOfTurn(header.type)
    switch (header.type) {
      case 'reset':
        replica.reset(header.at)
        return
      case 'frame':
        replica.frame(body)
        replica.advance(header)
        if (replica.isFull) this.#channel.pause()
        return
      case 'advance':
        replica.advance(header)
        // The first one says that the primary goes on from here: it hears how the tree is.
        this.#news()
        return
      case 'want':
        void replica.needs().then((words) => {
          const body = Buffer.from(words.buffer, words.byteOffset, words.byteLength)
          this.#channel.send({ type: 'need' }, body)
        })
        return
      case 'delay':
        replica.delay(header)
        return
      default:
        throw outOfTurn(header.type)
    }
  }

  #introduce(header: HeaderOf<'introduce'>): void {
    clearTimeout(this.#timer)
    if (!this.#host.introduce(header, this.#fingerprint)) {
      throw new HoldfastError('TOKEN', 'the token was used already, or is too old', {
        op: 'replication.introduce',
      })
    }
    this.#channel.send({ type: 'introduced', name: this.#host.name })
  }

  #hello(header: HeaderOf<'hello'>): void {
    clearTimeout(this.#timer)
    if (this.#replica !== undefined || this.#opening) throw outOfTurn(header.type)
    if (header.protocol !== PROTOCOL) throw versionMismatch(header)
    const peer = this.#host.peer(this.#fingerprint)
    if (peer === undefined) {
      throw new HoldfastError('PEER_UNKNOWN', 'this host does not know you', {
        op: 'replication.accept',
        hint: 'Introduce the hosts: holdfast peer token, holdfast peer add.',
      })
    }
    this.#opening = true
    this.#host
      .replica(header, peer)
      .then((replica) => this.#welcome(replica, header))
      .catch((error: unknown) => this.#refuse(error))
  }

  #welcome(replica: Replica, hello: HeaderOf<'hello'>): void {
    if (!this.#channel.isOpen) return
    replica.retry()
    this.#replica = replica
    replica.connected = true
    this.#unwatch = replica.watch(() => this.#news())
    replica.advance({ end: hello.end, authorised: 0 })
    const { logged, applied, baseline, failure } = replica.state
    // A tree that cannot be continued starts over.
    const lost = failure?.code.startsWith('REPLAY_') || failure?.code === 'PRUNED'
    this.#channel.send({
      type: 'welcome',
      protocol: PROTOCOL,
      version: VERSION,
      host: this.#host.name,
      logged:
        logged === null || lost
          ? null
          : { seq: Number(logged.seq), chain: Buffer.from(logged.chain).toString('hex') },
      applied: Number(applied),
      baseline,
      tree: replica.hasTree,
    })
    this.#log.info({ volume: hello.name, logged: `${logged?.seq}`, end: hello.end }, 'following')
  }

  /** Acknowledgements: one for all that happens in one turn of the event loop. */
  #news(): void {
    const replica = this.#replica
    if (replica === undefined) return
    if (!replica.isFull) this.#channel.resume()
    if (this.#speaking) return
    this.#speaking = true
    setImmediate(() => {
      this.#speaking = false
      this.#ack(replica)
    })
  }

  #ack(replica: Replica): void {
    for (const difference of replica.takeDifferences()) {
      this.#channel.send({ type: 'difference', ...difference })
    }
    const { logged, applied, baseline, failure, needs, verdict } = replica.state
    if (logged === null) {
      if (failure !== null) this.#refuse(HoldfastError.from(failure))
      return
    }
    const header: HeaderOf<'ack'> = {
      type: 'ack',
      logged: Number(logged.seq),
      applied: Number(applied),
      baseline,
      needs,
      verdict,
      failure: failure && { code: failure.code, message: failure.message.slice(0, 4000) },
    }
    const text = JSON.stringify(header)
    if (text === this.#said) return
    this.#said = text
    this.#channel.send(header)
    // What is lost on the way must come again from where the log stands: over a new connection.
    if (failure !== null) this.#refuse(HoldfastError.from(failure))
  }

  #refuse(error: unknown): void {
    const known = toHoldfastError(error, 'replication.accept')
    this.#log.warn({ error: known, peer: this.#fingerprint }, 'refused')
    this.#channel.refuse(known)
  }

  #ended(error: HoldfastError): void {
    clearTimeout(this.#timer)
    this.#unwatch()
    if (this.#replica !== undefined) this.#replica.connected = false
    this.#log.info({ reason: error.message }, 'a connection ended')
    this.#onEnd()
  }
}

function outOfTurn(type: string): HoldfastError {
  return new HoldfastError('PROTOCOL', `the peer sent ${type} out of turn`, {
    op: 'replication.receive',
  })
}
