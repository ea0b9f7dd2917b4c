/**
 * The flush log: makes frames durable with one write and one fdatasync.
 *
 * An fsync of an application waits for the journal. A durable LMDB commit costs two flushes of the
 * disk, one after the other (pages, then the meta page); this log costs one, of a file whose blocks
 * exist already. It holds the frames since the last durable snapshot of LMDB (`snapshot.ts`), in
 * order, from its start, and gets them before LMDB does. The next start appends what LMDB lacks.
 *
 * Invariant: frames in the log continue the snapshot without a gap; what lies behind them is of an
 * earlier round and does not continue the chain, so a reader stops there.
 */
import {
  closeSync,
  existsSync,
  fdatasyncSync,
  fsyncSync,
  openSync,
  readSync,
  writeSync,
  writevSync,
} from 'node:fs'
import { join } from 'node:path'
import { FLUSH_LOG_BYTES } from '../lib/limits.js'
import { checkFrame, type FrameView, type JournalEnd } from '../record/frame.js'
import { FRAME_HEADER_BYTES } from '../record/layout.js'

const NAME = 'flush.log'
const ZEROES = Buffer.alloc(1024 * 1024)
/** Buffers of one writev(2), IOV_MAX. */
const BUFFERS_MAX = 1024

export class FlushLog {
  readonly #fd: number
  #at = 0

  /** Opens the log of the journal at `path`; makes it, with all its blocks, when there is none. */
  constructor(path: string) {
    const file = join(path, NAME)
    const made = !existsSync(file)
    this.#fd = openSync(file, made ? 'w+' : 'r+', 0o600)
    if (!made) return
    for (let at = 0; at < FLUSH_LOG_BYTES; at += ZEROES.length) writeSync(this.#fd, ZEROES)
    fsyncSync(this.#fd)
  }

  /** Whether `bytes` more still fit. */
  fits(bytes: number): boolean {
    return this.#at + bytes <= FLUSH_LOG_BYTES
  }

  /** Adds frames that follow those in the log; durable when it returns. Throws the system's error. */
  append(frames: readonly Buffer[]): void {
    let at = this.#at
    for (let first = 0; first < frames.length; first += BUFFERS_MAX) {
      const part = frames.slice(first, first + BUFFERS_MAX)
      const length = part.reduce((sum, { length }) => sum + length, 0)
      const written =
        part.length === 1 ? writeOne(this.#fd, part, at) : writevSync(this.#fd, part, at)
      if (written !== length) throw new Error(`short write to the flush log: ${written}`)
      at += length
    }
    fdatasyncSync(this.#fd)
    this.#at = at
  }

  /** Everything in the log is in a durable snapshot: it starts anew. */
  reset(): void {
    this.#at = 0
  }

  close(): void {
    closeSync(this.#fd)
  }

  /** Frames of the log that continue `end`, in order; reading stops at the first that does not. */
  *framesAfter(end: JournalEnd): Generator<FrameView> {
    let { lastSeq, chain } = end
    for (let at = 0; ; ) {
      const bytes = this.#frameBytes(at)
      if (bytes === undefined) return
      at += bytes.length
      let frame: FrameView
      try {
        frame = checkFrame(bytes)
      } catch {
        return
      }
      if (frame.lastSeq <= lastSeq) continue
      if (frame.firstSeq !== lastSeq + 1n || !frame.previousChain.equals(chain)) return
      yield frame
      lastSeq = frame.lastSeq
      chain = Buffer.from(frame.chain)
    }
  }

  #frameBytes(at: number): Buffer | undefined {
    const header = Buffer.alloc(FRAME_HEADER_BYTES)
    if (readSync(this.#fd, header, 0, header.length, at) < header.length) return undefined
    if (header.toString('latin1', 0, 4) !== 'HFJF') return undefined
    const length = FRAME_HEADER_BYTES + header.readUInt32LE(48)
    if (at + length > FLUSH_LOG_BYTES) return undefined
    const bytes = Buffer.alloc(length)
    return readSync(this.#fd, bytes, 0, length, at) === length ? bytes : undefined
  }
}

function writeOne(fd: number, [only]: readonly Buffer[], at: number): number {
  return only === undefined ? 0 : writeSync(fd, only, 0, only.length, at)
}
