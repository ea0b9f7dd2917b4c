/** Two one-way streams as one two-way stream: the standard streams of this process, or of ssh. */
import { Duplex, type Readable, type Writable } from 'node:stream'

export interface JoinedParts {
  /** What is read from. */
  input: Readable
  /** What is written to. */
  output: Writable
  /** Called once `input` has ended: the error that explains it, or undefined for an orderly end. */
  explain?(): Promise<Error | undefined>
  /** Ends what is behind the streams. */
  onDestroy?(): void
}

export class JoinedStream extends Duplex {
  readonly #parts: JoinedParts

  constructor(parts: JoinedParts) {
    super()
    this.#parts = parts
    const { input, output } = parts
    input.on('data', (piece: Buffer) => {
      if (!this.push(piece)) input.pause()
    })
    input.once('end', () => void this.#ended())
    for (const each of [input, output]) each.on('error', (error) => void this.#ended(error))
  }

  /** `cause`: one of the streams has failed. Whoever is behind them knows better why. */
  async #ended(cause?: Error): Promise<void> {
    const error = (await this.#parts.explain?.()) ?? cause
    if (error === undefined) this.push(null)
    else this.destroy(error)
  }

  override _read(): void {
    this.#parts.input.resume()
  }

  override _write(piece: Buffer, _encoding: string, done: (error?: Error | null) => void): void {
    this.#parts.output.write(piece, done)
  }

  override _writev(pieces: { chunk: Buffer }[], done: (error?: Error | null) => void): void {
    const { output } = this.#parts
    output.cork()
    pieces.forEach(({ chunk }, at) => {
      if (at < pieces.length - 1) output.write(chunk)
      else output.write(chunk, done)
    })
    output.uncork()
  }

  override _final(done: () => void): void {
    this.#parts.output.end(() => done())
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    const { input, output, onDestroy } = this.#parts
    input.destroy()
    output.destroy()
    onDestroy?.()
    done(error)
  }
}
