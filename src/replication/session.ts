/**
 * One connection to the replica server, from its first message to its end: who it is, what it may
 * reach, and then the frames of one volume.
 */
import type { Duplex } from 'node:stream'
import { type Service, serveAsk } from '../group/calls.js'
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import {
  FIRST_MESSAGE_BYTES_MAX,
  FIRST_MESSAGE_MS_MAX,
  MESSAGE_BYTES_MAX,
  PEER_PING_MS,
  WANT_MS,
} from '../lib/limits.js'
import type { Logger } from '../lib/log.js'
import { VERSION } from '../lib/version.js'
import { Channel } from './channel.js'
import {
  type Header,
  type HeaderOf,
  type Message,
  PROTOCOL,
  versionMismatch,
  type WirePlace,
} from './message.js'
import { outOfTurn, refusal, unknownPeer } from './refusals.js'
import type { Replica } from './replica.js'
import { hasTree } from './replica-config.js'
import type { LogPlace } from './replica-messages.js'

/** Who is at the other end: proven by TLS (a fingerprint) or by ssh (`ssh:NAME`). */
export interface Caller {
  name: string
  identity: string
}

export interface SessionHost {
  readonly name: string
  /** The peer with this identity; undefined for a stranger. */
  caller(identity: string): Caller | undefined
  /** Makes a stranger a peer. TOKEN. */
  introduce(request: HeaderOf<'introduce'>, identity: string): void
  /** The replica of this volume, made when there is none. PEER_UNKNOWN: it is another peer's. */
  replica(hello: HeaderOf<'hello'>, caller: Caller): Promise<Replica>
  /** This connection has the replica now: any other of its primary was lost without a word. */
  enter(replica: Replica): void
  /** Answers a coordinator of groups. */
  coordinate(caller: Caller): Service
}

/** Bytes in WANT_MS that are more than signs of life. */
const IDLE_BYTES_MAX = 1024
const RECEIVING = { op: 'replication.receive' }

export class Session {
  readonly #channel: Channel
  readonly #host: SessionHost
  readonly #identity: string
  readonly #log: Logger
  readonly #timer: NodeJS.Timeout
  readonly #onEnd: (error: HoldfastError) => void
  readonly #refused: (about: Record<string, unknown>) => void
  #replica: Replica | undefined
  #unwatch: () => void = () => {}
  #service: Service | undefined
  #opening = false
  #since: number | null = null
  #said = ''
  #speaking = false
  /** The primary has said how it goes on. */
  #met = false
  /** Frames come: the place that was welcomed was gone on from. */
  #flowing = false
  #asked = false
  #wished: bigint | undefined
  #watch: NodeJS.Timeout | undefined
  #heard = { at: Date.now(), bytes: 0 }

  constructor(options: {
    stream: Duplex
    identity: string
    host: SessionHost
    log: Logger
    /** What this side says first, when it is the one that has connected. */
    first?: Header
    /** Tells of a refusal. */
    refused(about: Record<string, unknown>): void
    onEnd(error: HoldfastError): void
  }) {
    this.#host = options.host
    this.#identity = options.identity
    this.#log = options.log
    this.#refused = options.refused
    this.#onEnd = options.onEnd
    this.#channel = new Channel(options.stream, {
      onMessage: (message) => this.#receive(message),
      onClose: (error) => this.#ended(error),
    })
    // Until it is known who speaks; neither `hello` nor `introduce` has a body.
    this.#channel.bytesMax = FIRST_MESSAGE_BYTES_MAX
    this.#timer = setTimeout(() => {
      const what = `no first message in ${FIRST_MESSAGE_MS_MAX / 1000} s`
      this.#channel.refuse(new HoldfastError('PROTOCOL', what, { op: 'replication.accept' }))
    }, FIRST_MESSAGE_MS_MAX)
    if (options.first !== undefined) this.#channel.send(options.first)
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

  #take({ header, body, own }: Message): void {
    switch (header.type) {
      case 'introduce':
        this.#introduce(header)
        return
      case 'hello':
        this.#hello(header)
        return
      case 'coordinate':
        this.#coordinate(header)
        return
      case 'refuse':
        this.#channel.close(refusal(header, { who: 'peer', op: 'replication.accept' }))
        return
    }
    if (this.#service !== undefined) {
      if (header.type !== 'ask') throw outOfTurn(header, RECEIVING)
      serveAsk(this.#channel, this.#service, { header, body })
      return
    }
    const replica = this.#replica
    if (replica === undefined) throw outOfTurn(header, RECEIVING)
    switch (header.type) {
      case 'reset':
        this.#since = header.at.seq
        replica.reset(header.at)
        return
      case 'frame':
        this.#flowing = true
        replica.frame(body, own)
        replica.advance(header)
        if (replica.isFull) this.#channel.pause()
        return
      case 'fill':
        replica.fill(body, own)
        if (replica.isFull) this.#channel.pause()
        return
      case 'advance':
        replica.advance(header)
        // The first one says that the primary goes on from here: it hears how the tree is, again.
        if (!this.#met) this.#said = ''
        this.#met = true
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
        throw outOfTurn(header, RECEIVING)
    }
  }

  #introduce(header: HeaderOf<'introduce'>): void {
    clearTimeout(this.#timer)
    this.#host.introduce(header, this.#identity)
    this.#channel.send({ type: 'introduced', name: this.#host.name })
  }

  #hello(header: HeaderOf<'hello'>): void {
    this.#requireNew(header)
    if (header.protocol !== PROTOCOL) throw versionMismatch(header)
    const caller = this.#caller()
    this.#opening = true
    this.#host
      .replica(header, caller)
      .then((replica) => this.#welcome(replica, header))
      .catch((error: unknown) => this.#refuse(error))
  }

  /** From now on only questions come. */
  #coordinate(header: HeaderOf<'coordinate'>): void {
    this.#requireNew(header)
    if (header.protocol !== PROTOCOL) throw versionMismatch(header)
    this.#service = this.#host.coordinate(this.#caller())
    this.#channel.bytesMax = MESSAGE_BYTES_MAX
    this.#channel.send({ type: 'coordinated', host: this.#host.name, version: VERSION })
  }

  /** A connection is for one thing only: what it was for before would be left behind. */
  #requireNew(header: HeaderOf<'hello' | 'coordinate'>): void {
    clearTimeout(this.#timer)
    const isUsed = this.#replica !== undefined || this.#opening || this.#service !== undefined
    if (isUsed) throw outOfTurn(header, RECEIVING)
  }

  #caller(): Caller {
    const caller = this.#host.caller(this.#identity)
    if (caller !== undefined) return caller
    throw unknownPeer('replication.accept')
  }

  #welcome(replica: Replica, hello: HeaderOf<'hello'>): void {
    if (!this.#channel.isOpen) return
    const { logged, applied, baseline, failure, logFailed, lost } = replica.state
    if (logFailed && failure !== null) throw HoldfastError.from(failure)
    this.#host.enter(replica)
    this.#replica = replica
    this.#channel.bytesMax = MESSAGE_BYTES_MAX
    replica.connected = true
    this.#unwatch = replica.watch(() => this.#news())
    this.#channel.send({
      type: 'welcome',
      protocol: PROTOCOL,
      version: VERSION,
      host: this.#host.name,
      // A tree that cannot be continued starts over.
      logged: lost ? null : wirePlace(logged),
      applied: Number(applied),
      baseline,
      // A baseline by codes moves only what differs from it.
      tree: hasTree(replica.place),
    })
    this.#log.info({ volume: hello.name, logged: `${logged?.seq}`, end: hello.end }, 'following')
    this.#watch = setInterval(() => this.#lookForStandstill(replica), PEER_PING_MS)
    this.#news()
  }

  /** There is more than has come, and nothing comes: asks for it. */
  #lookForStandstill(replica: Replica): void {
    const { logged, end, queuedBytes } = replica.state
    const { bytesReceived } = this.#channel
    const now = Date.now()
    const still = bytesReceived - this.#heard.bytes < IDLE_BYTES_MAX
    if (!still || queuedBytes > 0 || (logged?.seq ?? 0n) >= end) {
      this.#heard = { at: now, bytes: bytesReceived }
    } else if (this.#flowing && now - this.#heard.at >= WANT_MS) {
      this.#heard = { at: now, bytes: bytesReceived }
      this.#ask(replica)
    }
  }

  #ask(replica: Replica): void {
    const { logged } = replica.state
    const at = wirePlace(logged)
    this.#log.debug({ after: at?.seq ?? null }, 'something is missing: asking for it')
    this.#channel.send({ type: 'again', logged: at })
  }

  /** What is asked of the primary: frames that were lost, and a baseline for a further replica. */
  #askFor(replica: Replica): void {
    const { gap } = replica.state
    if (gap && !this.#asked) this.#ask(replica)
    this.#asked = gap
    const { wish } = replica
    if (wish === this.#wished) return
    this.#wished = wish
    const after = wish === undefined ? null : Number(wish)
    this.#channel.send({ type: 'baseline', after })
  }

  /** Acknowledgements: one for all that happens in one turn of the event loop. */
  #news(): void {
    const replica = this.#replica
    if (replica === undefined) return
    if (!replica.isFull) this.#channel.resume()
    if (this.#speaking) return
    this.#speaking = true
    // Of a primary that does not listen, one waits; it is as news as any when its turn comes.
    this.#channel.drained().then(() => {
      setImmediate(() => {
        this.#speaking = false
        this.#ack(replica)
        if (this.#channel.isOpen) this.#askFor(replica)
      })
    })
  }

  #ack(replica: Replica): void {
    for (const difference of replica.takeDifferences()) {
      this.#channel.send({ type: 'difference', ...difference })
    }
    const { logged, applied, baseline, failure, needs, verdict, logFailed, lost } = replica.state
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
      since: this.#since,
      failure: failure && { code: failure.code, message: failure.message.slice(0, 4000) },
    }
    const text = JSON.stringify(header)
    if (text === this.#said) return
    this.#said = text
    this.#channel.send(header)
    // What is lost on the way must come again from where the log stands: over a new connection.
    if (failure !== null && (logFailed || lost)) this.#refuse(HoldfastError.from(failure))
  }

  #refuse(error: unknown): void {
    const known = toHoldfastError(error, 'replication.accept')
    this.#refused({ error: known, peer: this.#identity })
    this.#channel.refuse(known)
  }

  #ended(error: HoldfastError): void {
    clearTimeout(this.#timer)
    clearInterval(this.#watch)
    this.#unwatch()
    this.#service?.close()
    if (this.#replica !== undefined) this.#replica.connected = false
    // Of those who were not let in it is told why, within bounds; that is enough.
    const { message: reason } = error
    if (this.#replica === undefined) this.#log.debug({ reason }, 'a connection ended')
    else this.#log.info({ reason }, 'a connection ended')
    this.#onEnd(error)
  }
}

function wirePlace(at: LogPlace | null): WirePlace | null {
  return at && { seq: Number(at.seq), chain: Buffer.from(at.chain).toString('hex') }
}
