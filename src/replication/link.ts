/**
 * The stream of a connection by TLS: the data plane encrypts and decrypts, in threads of its own. A
 * socket that is connected goes over to it; what remains here is the order of events.
 *
 * Invariant: memory that the data plane has is referred to from here until it is answered for, or the
 * link is closed.
 */
import type { Socket } from 'node:net'
import { Duplex } from 'node:stream'
import { LINK_READ_BYTES } from '../lib/limits.js'
import { native } from '../lib/native.js'
import { LinkEvent, type NativeLink } from '../lib/native-link.js'
import type { Identity } from './identity.js'

type Done = (error?: Error | null) => void

export interface LinkOptions {
  /** Connected, and not read from. */
  socket: Socket
  identity: Identity
  /** This side was connected to. */
  server: boolean
  handshakeMs: number
}

export class Link extends Duplex {
  readonly remoteAddress: string | undefined
  readonly remotePort: number | undefined
  /** Resolves with the peer's fingerprint; rejects when there is no handshake. */
  readonly secured: Promise<string>
  /**
   * Where the next bytes may go. Given with `data`, the memory may be asked for again: whoever sets this
   * copies of a piece what it keeps.
   */
  memory: (() => Buffer) | undefined
  readonly #native: NativeLink
  #secured = false
  /** Memory that is being filled. */
  #filling: Buffer | undefined
  #writing: { pieces: Buffer[]; done: Done } | undefined
  #destroyed: (() => void) | undefined
  #settle: { resolve(fingerprint: string): void; reject(error: Error): void } = unsettled()

  /** The socket is used up by it, also when this throws. */
  constructor({ socket, identity, server, handshakeMs }: LinkOptions) {
    super({ allowHalfOpen: false })
    this.remoteAddress = socket.remoteAddress
    this.remotePort = socket.remotePort
    this.secured = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject }
    })
    // Whoever destroys it need not ask.
    this.secured.catch(() => {})
    const { certificate, key } = identity
    try {
      const options = { fd: descriptorOf(socket), server, certificate, key, handshakeMs }
      this.#native = new native.Link(options, (...event) => this.#on(...event))
    } finally {
      socket.destroy()
    }
  }

  override _read(): void {
    if (this.#filling !== undefined) return
    // What waits here may lie in that memory.
    const own = this.readableLength === 0 ? this.memory?.() : undefined
    this.#filling = own ?? Buffer.allocUnsafeSlow(LINK_READ_BYTES)
    this.#native.read(this.#filling)
  }

  override _write(piece: Buffer, _encoding: string, done: Done): void {
    this.#send([piece], done)
  }

  override _final(done: Done): void {
    if (this.#secured) this.#send([], done, { end: true })
    else done()
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#destroyed = () => done(error)
    this.#settle.reject(error ?? new Error('the connection was closed'))
    this.#native.close()
  }

  #send(pieces: Buffer[], done: Done, { end = false } = {}): void {
    try {
      if (this.#native.write(pieces, end)) done()
      else this.#writing = { pieces, done }
    } catch (error) {
      done(error as Error)
    }
  }

  #on(event: number, bytes: number, text: string): void {
    switch (event) {
      case LinkEvent.secured:
        this.#secured = true
        this.#settle.resolve(text)
        break
      case LinkEvent.read:
        this.#filled(bytes)
        break
      case LinkEvent.written:
        this.#written()
        break
      case LinkEvent.ended:
        this.#filling = undefined
        this.push(null)
        break
      case LinkEvent.failed:
        this.#failed(new Error(text))
        break
      case LinkEvent.closed:
        this.#closed()
        break
    }
  }

  #filled(bytes: number): void {
    const memory = this.#filling
    this.#filling = undefined
    if (memory !== undefined && !this.destroyed) this.push(memory.subarray(0, bytes))
  }

  #written(): void {
    const { done } = this.#writing ?? {}
    this.#writing = undefined
    done?.()
  }

  #failed(error: Error): void {
    // Of a handshake only who waits for it is told.
    this.#settle.reject(error)
    this.destroy(this.#secured ? error : undefined)
  }

  #closed(): void {
    this.#native.join()
    this.#filling = undefined
    this.#writing = undefined
    this.#destroyed?.()
  }
}

function unsettled() {
  return { resolve: () => {}, reject: () => {} }
}

/** The kernel's number of a socket, which Node does not give away by a public name. */
function descriptorOf(socket: Socket): number {
  const { _handle: handle } = socket as { _handle?: { fd?: number } | null }
  const fd = handle?.fd ?? -1
  if (fd < 0) throw new Error('the connection was closed')
  return fd
}
