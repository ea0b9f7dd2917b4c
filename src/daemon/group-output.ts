/**
 * Output of a command that waits for its coordinator, which takes it piece by piece: at most
 * GROUP_OUTPUT_BYTES_MAX are kept, beyond that the command waits.
 */
import type { Readable } from 'node:stream'
import { GROUP_LINE_BYTES_MAX, GROUP_OUTPUT_BYTES_MAX } from '../lib/limits.js'

const NEW_LINE = 0x0a

export class Output {
  #pieces: Buffer[] = []
  #bytes = 0
  #stream: Readable | undefined
  #dropped = false

  get isEmpty(): boolean {
    return this.#bytes === 0
  }

  /** `onMore` is called for each piece. */
  follow(stream: Readable, onMore: () => void): void {
    this.#stream = stream
    stream.on('error', () => {})
    stream.on('data', (piece: Buffer) => {
      if (this.#dropped) return
      this.#pieces.push(piece)
      this.#bytes += piece.length
      if (this.#bytes >= GROUP_OUTPUT_BYTES_MAX) stream.pause()
      onMore()
    })
  }

  /** Nobody takes it any more: what comes is thrown away, and the command does not wait. */
  drop(): void {
    this.#dropped = true
    this.#pieces = []
    this.#bytes = 0
    this.#stream?.resume()
  }

  /** All of it, in base64. */
  take(): string {
    const all = Buffer.concat(this.#pieces)
    this.#pieces = []
    this.#bytes = 0
    this.#stream?.resume()
    return all.toString('base64')
  }
}

/** Bytes of several sources that share one output: whole lines, each with the name of its source. */
export class PrefixedLines {
  readonly #prefix: Buffer
  readonly #write: (line: Buffer) => unknown
  #rest: Buffer = Buffer.alloc(0)

  constructor(name: string, write: (line: Buffer) => unknown) {
    this.#prefix = Buffer.from(`${name}: `)
    this.#write = write
  }

  push(piece: Buffer): void {
    let bytes = Buffer.concat([this.#rest, piece])
    for (let at = bytes.indexOf(NEW_LINE); at >= 0; at = bytes.indexOf(NEW_LINE)) {
      this.#write(Buffer.concat([this.#prefix, bytes.subarray(0, at + 1)]))
      bytes = bytes.subarray(at + 1)
    }
    this.#rest = bytes
    if (bytes.length >= GROUP_LINE_BYTES_MAX) this.end()
  }

  /** A last line without an end gets one. */
  end(): void {
    if (this.#rest.length === 0) return
    this.#write(Buffer.concat([this.#prefix, this.#rest, Buffer.from([NEW_LINE])]))
    this.#rest = Buffer.alloc(0)
  }
}
