/**
 * The tail of a volume's journal as two files that grow: `journal.tail` (text) and `journal.jsonl`.
 * They begin with the last changes and are continued whenever somebody looks; what has been read
 * stays where it is, so `tail -f` works. Beyond a size a file begins anew, as a log that is rotated.
 */
import { setImmediate as turn } from 'node:timers/promises'
import { stripVTControlCharacters } from 'node:util'
import { openJournal } from '../cli/open-journal.js'
import { jsonText } from '../cli/output.js'
import { changeJson, changeLine } from '../cli/render-change.js'
import { type Change, describeChange } from '../journal/change.js'
import { NameTable, namesFrom } from '../journal/names.js'
import type { Journal } from '../journal/store.js'
import { nthLast } from '../journal/tail.js'
import {
  BROWSE_TAIL_BYTES_MAX,
  BROWSE_TAIL_CHANGES,
  BROWSE_TAIL_IDLE_MS,
  BROWSE_TAIL_LOOK_MS,
} from '../lib/limits.js'
import type { FrameView } from '../record/frame.js'
import type { RecordView } from '../record/record.js'
import { type FileNode, fileAttributes, openBytes } from './node.js'

const NEWLINE = 0x0a
/** Frames read before other requests get their turn. */
const FRAMES_PER_TURN = 8
const REMOVING = new Set(['unlink', 'rmdir', 'rename'])

/** Where the tail has got to in the journal. */
interface Reading {
  journal: Journal
  names: NameTable
  first: bigint
  next: bigint
}

export class JournalTail {
  readonly #volume: string
  readonly #text = new Growing()
  readonly #json = new Growing()
  /** Paths that were taken from something, latin1, oldest first. */
  readonly #removed = new Map<string, Buffer>()
  #reading: Reading | undefined
  /** Everything before has been told. */
  #told: bigint | undefined
  #looking: Promise<void> | undefined
  #lookedAtMs = 0

  constructor(volume: string) {
    this.#volume = volume
  }

  get text(): FileNode {
    return this.#file(this.#text)
  }

  get json(): FileNode {
    return this.#file(this.#json)
  }

  /** Names in a directory that were removed or renamed lately. */
  async removedFrom(directory: Buffer): Promise<Buffer[]> {
    await this.#look()
    return [...this.#removed.values()]
      .map((path) => ({ path, at: path.lastIndexOf(0x2f) }))
      .filter(({ path, at }) => directory.equals(path.subarray(0, Math.max(at, 0))))
      .map(({ path, at }) => path.subarray(at + 1))
  }

  #file(growing: Growing): FileNode {
    const bytes = () => growing.bytes
    return {
      kind: 'file',
      attributes: async () => {
        await this.#look()
        return fileAttributes(growing.bytes.length, growing.changedMs)
      },
      open: async () => {
        await this.#look()
        return openBytes(bytes)
      },
    }
  }

  #look(): Promise<void> {
    if (Date.now() - this.#lookedAtMs < BROWSE_TAIL_LOOK_MS)
      return this.#looking ?? Promise.resolve()
    this.#looking ??= this.#read().finally(() => {
      this.#looking = undefined
      this.#lookedAtMs = Date.now()
    })
    return this.#looking
  }

  async #read(): Promise<void> {
    this.#reading ??= await this.#begin()
    const reading = this.#reading
    reading.journal.refresh()
    let frames = 0
    for (const frame of reading.journal.frames({ from: reading.next })) {
      this.#readFrame(frame, reading)
      frames += 1
      if (frames % FRAMES_PER_TURN === 0) await turn()
    }
  }

  async #begin(): Promise<Reading> {
    const { journal } = await openJournal(this.#volume)
    const first = this.#told ?? nthLast(journal, BROWSE_TAIL_CHANGES, isTold)
    return { journal, names: new NameTable(), first, next: namesFrom(journal, first) }
  }

  #readFrame(frame: FrameView, reading: Reading): void {
    const changes: Change[] = []
    for (const record of frame.records()) {
      if (record.seq < reading.first) {
        reading.names.apply(record)
        continue
      }
      const change = describeChange(record, reading.names)
      if (!isTold(record)) continue
      changes.push(change)
      if (REMOVING.has(change.verb)) this.#remove(change.path)
    }
    reading.next = frame.lastSeq + 1n
    if (reading.next > reading.first) this.#told = reading.next
    this.#text.append(changes.map((each) => stripVTControlCharacters(changeLine(each))))
    this.#json.append(changes.map((each) => jsonText(changeJson(each), { line: true })))
  }

  #remove(path: Buffer): void {
    const key = path.toString('latin1')
    this.#removed.delete(key)
    this.#removed.set(key, Buffer.from(path))
    const [oldest] = this.#removed.keys()
    if (this.#removed.size > BROWSE_TAIL_CHANGES && oldest !== undefined)
      this.#removed.delete(oldest)
  }

  /** Lets go of the journal, and of the names of all that is in it, while nobody looks. */
  async rest(): Promise<void> {
    if (Date.now() - this.#lookedAtMs < BROWSE_TAIL_IDLE_MS) return
    await this.close()
  }

  /** Idempotent. */
  async close(): Promise<void> {
    await this.#looking?.catch(() => {})
    const reading = this.#reading
    this.#reading = undefined
    await reading?.journal.close()
  }
}

function isTold({ op }: RecordView): boolean {
  return op !== 'BIND' && op !== 'GONE'
}

/** Lines that are added at the end. */
class Growing {
  bytes: Buffer = Buffer.alloc(0)
  changedMs = Date.now()

  append(lines: readonly string[]): void {
    if (lines.length === 0) return
    this.bytes = Buffer.concat([this.bytes, Buffer.from(`${lines.join('\n')}\n`)])
    this.changedMs = Date.now()
    if (this.bytes.length > BROWSE_TAIL_BYTES_MAX) this.bytes = lastLines(this.bytes)
  }
}

/** The last lines, with which a file begins anew. */
function lastLines(bytes: Buffer): Buffer {
  let at = bytes.length - 1
  for (let lines = 0; lines < BROWSE_TAIL_CHANGES && at > 0; lines += 1) {
    at = bytes.lastIndexOf(NEWLINE, at - 1)
  }
  return Buffer.from(bytes.subarray(Math.max(at + 1, bytes.length - BROWSE_TAIL_BYTES_MAX / 2)))
}
