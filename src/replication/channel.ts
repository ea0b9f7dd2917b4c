/**
 * A two-way stream of messages, whatever carries it: a link (TLS), the standard streams of ssh, a loopback.
 * What a transport has to give is a Duplex; everything else is here: cutting, back-pressure, and
 * noticing that the other end is gone although the connection stands.
 */
import type { Duplex } from 'node:stream'
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import {
  LINK_INTO_BYTES_MIN,
  LINK_READ_BYTES,
  PEER_PING_MS,
  PEER_SILENCE_MS_MAX,
  SHIP_BUFFER_BYTES,
} from '../lib/limits.js'
import { sendMemory } from './frame-memory.js'
import { Link } from './link.js'
import { encodeMessage, type Header, type Message, MessageReader } from './message.js'

const NO_BYTES = Buffer.alloc(0)

export interface ChannelEvents {
  onMessage(message: Message): void
  /** Once. `error` says why, also when the other end just closed. */
  onClose(error: HoldfastError): void
}

export class Channel {
  readonly #stream: Duplex
  readonly #reader = new MessageReader()
  readonly #events: ChannelEvents
  readonly #timer: NodeJS.Timeout
  readonly #onData = (piece: Buffer) => this.#receive(piece)
  readonly #onError = (error: Error) => this.close(broken(error))
  readonly #onEnd = () => this.close(closedByPeer())
  #heardAt = Date.now()
  #saidAt = 0
  #closed = false
  #drained: Promise<void> | undefined
  /** Lets go on who waits in `pace`: one at a time. */
  #goOn: () => void = () => {}
  bytesSent = 0
  bytesReceived = 0

  constructor(stream: Duplex, events: ChannelEvents) {
    this.#stream = stream
    this.#events = events
    if (stream instanceof Link) this.#readInto(stream)
    writeOneByOne(stream)
    stream.on('data', this.#onData)
    stream.once('error', this.#onError)
    stream.once('end', this.#onEnd)
    stream.once('close', this.#onEnd)
    // One that another channel gave back is paused.
    stream.resume()
    this.#timer = setInterval(() => this.#beat(), PEER_PING_MS)
  }

  /** A link fills the message that has begun; what is small lies in the same memory each time. */
  #readInto(link: Link): void {
    let small: Buffer | undefined
    link.memory = () => {
      const { wanted } = this.#reader
      if (wanted !== undefined && wanted.length >= LINK_INTO_BYTES_MIN) return wanted
      small ??= Buffer.allocUnsafeSlow(LINK_READ_BYTES)
      return small
    }
  }

  /** Longest message that is taken from now on. */
  set bytesMax(bytes: number) {
    this.#reader.bytesMax = bytes
  }

  get isOpen(): boolean {
    return !this.#closed
  }

  /** Bytes that the stream has taken and the kernel has not. */
  get bufferedBytes(): number {
    return this.#stream.writableLength
  }

  /** Sends a copy, or keeps it until the stream takes more; false: wait for `drained` before the next. */
  send(header: Header, body?: Buffer): boolean {
    if (this.#closed) return false
    this.#saidAt = Date.now()
    const [head = NO_BYTES, rest] = encodeMessage(header, body)
    if (rest === undefined) return this.#write(head)
    // In one piece, and a copy: what is sent may lie in memory of the journal that is used again.
    const whole = sendMemory.take(head.length + rest.length)
    head.copy(whole)
    rest.copy(whole, head.length)
    return this.sendWhole(whole)
  }

  /** Sends a message that is encoded, in memory of the pool: that is given back when it is sent. */
  sendWhole(whole: Buffer<ArrayBuffer>): boolean {
    if (this.#closed) return false
    this.#saidAt = Date.now()
    return this.#write(whole, (error) => {
      // What failed may still be in use below.
      if (!error) sendMemory.give(whole.buffer)
      if (this.bufferedBytes < SHIP_BUFFER_BYTES / 2) this.#goOn()
    })
  }

  #write(bytes: Buffer, done?: (error: Error | null | undefined) => void): boolean {
    this.bytesSent += bytes.length
    return this.#stream.write(bytes, done)
  }

  /** Holds up whoever sends much while too much waits for the kernel, until half of it has gone. */
  pace(): Promise<void> {
    if (this.#closed || this.bufferedBytes < SHIP_BUFFER_BYTES) return Promise.resolve()
    return new Promise((resolve) => {
      this.#goOn = resolve
    })
  }

  /** Resolves when the stream takes more, or is closed. */
  drained(): Promise<void> {
    if (this.#closed || !this.#stream.writableNeedDrain) return Promise.resolve()
    this.#drained ??= new Promise((resolve) => {
      const done = () => {
        this.#drained = undefined
        this.#stream.off('drain', done)
        this.#stream.off('close', done)
        resolve()
      }
      this.#stream.on('drain', done)
      this.#stream.on('close', done)
    })
    return this.#drained
  }

  /** Stops reading until `resume`: the sender is held by its own window and by TCP. */
  pause(): void {
    this.#stream.pause()
  }

  resume(): void {
    this.#stream.resume()
  }

  /** Gives the stream back, paused, with what was read of it and not used: for another channel. */
  release(): Duplex {
    const stream = this.#stream
    this.#closed = true
    clearInterval(this.#timer)
    stream.pause()
    stream.off('data', this.#onData)
    stream.off('error', this.#onError)
    stream.off('end', this.#onEnd)
    stream.off('close', this.#onEnd)
    if (stream instanceof Link) stream.memory = undefined
    // Nobody listens until the next channel does; it finds the stream closed then.
    stream.on('error', () => {})
    const rest = this.#reader.rest()
    if (rest.length > 0) stream.unshift(rest)
    return stream
  }

  /** Tells the peer why, then closes. */
  refuse(error: HoldfastError): void {
    this.send({ type: 'refuse', code: error.code, message: error.message.slice(0, 4000) })
    this.close(error)
  }

  /** Idempotent. */
  close(error: HoldfastError): void {
    if (this.#closed) return
    this.#closed = true
    clearInterval(this.#timer)
    this.#goOn()
    this.#stream.end()
    // What was said last may still go out; a peer that does not read it is cut off.
    setTimeout(() => this.#stream.destroy(), 1_000).unref()
    this.#stream.on('error', () => {})
    this.#stream.resume()
    this.#events.onClose(error)
  }

  #receive(piece: Buffer): void {
    this.#heardAt = Date.now()
    this.bytesReceived += piece.length
    if (this.#closed) return
    try {
      for (const message of this.#reader.push(piece)) {
        if (message.header.type !== 'ping') this.#events.onMessage(message)
        if (this.#closed) return
      }
    } catch (error) {
      this.refuse(toHoldfastError(error, 'replication.receive'))
    }
  }

  #beat(): void {
    const now = Date.now()
    if (this.#stream.isPaused()) this.#heardAt = now
    if (now - this.#heardAt > PEER_SILENCE_MS_MAX) {
      const message = `nothing was heard of the peer for ${PEER_SILENCE_MS_MAX / 1000} s`
      this.close(new HoldfastError('PEER_SILENT', message, { op: 'replication.connection' }))
      this.#stream.destroy()
    } else if (now - this.#saidAt >= PEER_PING_MS) this.send({ type: 'ping' })
  }
}

/**
 * What waits in the stream goes out piece by piece: joined, all of it, up to SHIP_BUFFER_BYTES, would be
 * copied to new memory first, which costs a collection of the whole heap each few times.
 */
function writeOneByOne(stream: Duplex): void {
  Object.defineProperty(stream, '_writev', { value: null, configurable: true, writable: true })
}

/** Whatever a stream fails with: the connection is lost. */
function broken(cause: Error): HoldfastError {
  if (cause instanceof HoldfastError) return cause
  const op = 'replication.connection'
  return new HoldfastError('CONNECTION', `the connection broke: ${cause.message}`, { op, cause })
}

function closedByPeer(): HoldfastError {
  return new HoldfastError('CONNECTION', 'the peer closed the connection', {
    op: 'replication.connection',
  })
}
