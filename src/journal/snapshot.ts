/**
 * Durable snapshots of the LMDB file, so that its commits need no flush of their own.
 *
 * Commits of the journal are not flushed one by one (LMDB's NOSYNC): they survive the death of the
 * process, since the kernel has the pages, but not that of the machine, after which LMDB's two meta
 * pages may point to pages that never reached the disk. So now and then, and when an fsync cannot
 * be served by the flush log: the file is flushed, and a copy of the two meta pages, which describe
 * a state that is wholly on disk, is kept beside it, in turn in one of two slots. A read transaction
 * pins that state: LMDB uses none of its pages again until the next snapshot replaces it. After
 * power loss the copy is written back, and LMDB is exactly at the snapshot.
 *
 * (lmdb-js offers `overlappingSync`, which is as safe, but flushes after every commit.)
 */
import { createHash } from 'node:crypto'
import {
  closeSync,
  existsSync,
  fdatasyncSync,
  fsyncSync,
  openSync,
  readSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { HoldfastError } from '../lib/errors.js'

const NAME = 'snapshot.pages'
const VERSION = 1
const MAGIC = 'HFDP'
/** magic, version u32, round u64, length u32, padding, SHA-256 of the pages. */
const HEADER_BYTES = 64
const SLOT_BYTES = 256 * 1024

interface Slot {
  round: bigint
  pages: Buffer
}

export class Snapshots {
  readonly #data: number
  readonly #file: number
  readonly #metaBytes: number
  #round: bigint

  /** `pageBytes`: LMDB's page size. The LMDB file must exist. */
  constructor(path: string, pageBytes: number) {
    this.#data = openSync(join(path, 'data.mdb'), 'r')
    this.#file = openSlots(path)
    this.#metaBytes = 2 * pageBytes
    this.#round = newest(this.#file)?.round ?? 0n
  }

  /** Makes the file as it is now the durable snapshot. No commit may run meanwhile. */
  take(): void {
    const pages = Buffer.alloc(this.#metaBytes)
    readSync(this.#data, pages, 0, pages.length, 0)
    fdatasyncSync(this.#data)
    const round = this.#round + 1n
    const slot = Buffer.alloc(HEADER_BYTES + pages.length)
    slot.write(MAGIC, 0, 'latin1')
    slot.writeUInt32LE(VERSION, 4)
    slot.writeBigUInt64LE(round, 8)
    slot.writeUInt32LE(pages.length, 16)
    createHash('sha256').update(pages).digest().copy(slot, 32)
    pages.copy(slot, HEADER_BYTES)
    writeSync(this.#file, slot, 0, slot.length, Number(round % 2n) * SLOT_BYTES)
    fdatasyncSync(this.#file)
    this.#round = round
  }

  close(): void {
    closeSync(this.#data)
    closeSync(this.#file)
  }
}

/**
 * After the machine died: puts the LMDB file at `path` back to its last durable snapshot. Nothing
 * may have it open. Does nothing when no snapshot was ever taken.
 */
export function restoreSnapshot(path: string): void {
  if (!existsSync(join(path, NAME)) || !existsSync(join(path, 'data.mdb'))) return
  const file = openSlots(path)
  const data = openSync(join(path, 'data.mdb'), 'r+')
  try {
    const slot = newest(file)
    if (slot === undefined) return
    writeSync(data, slot.pages, 0, slot.pages.length, 0)
    fsyncSync(data)
  } finally {
    closeSync(file)
    closeSync(data)
  }
}

/** Whether the LMDB file at `path` is its last durable snapshot; so too when it never had one. */
export function isAtSnapshot(path: string): boolean {
  if (!existsSync(join(path, NAME)) || !existsSync(join(path, 'data.mdb'))) return true
  const file = openSync(join(path, NAME), 'r')
  const data = openSync(join(path, 'data.mdb'), 'r')
  try {
    const slot = newest(file)
    if (slot === undefined) return true
    const pages = Buffer.alloc(slot.pages.length)
    readSync(data, pages, 0, pages.length, 0)
    return pages.equals(slot.pages)
  } finally {
    closeSync(file)
    closeSync(data)
  }
}

function openSlots(path: string): number {
  const file = join(path, NAME)
  if (existsSync(file)) return openSync(file, 'r+')
  const fd = openSync(file, 'w+', 0o600)
  writeSync(fd, Buffer.alloc(2 * SLOT_BYTES))
  fsyncSync(fd)
  return fd
}

function newest(file: number): Slot | undefined {
  const slots = [0, 1].map((i) => readSlot(file, i * SLOT_BYTES)).filter((s) => s !== undefined)
  return slots.sort((a, b) => (a.round < b.round ? 1 : -1))[0]
}

/** The slot at `at`, or undefined when it is empty or was torn by a crash. */
function readSlot(file: number, at: number): Slot | undefined {
  const slot = Buffer.alloc(SLOT_BYTES)
  readSync(file, slot, 0, slot.length, at)
  if (slot.toString('latin1', 0, 4) !== MAGIC) return undefined
  const version = slot.readUInt32LE(4)
  if (version !== VERSION) {
    const message = `journal snapshot version ${version}; this holdfast reads ${VERSION}`
    throw new HoldfastError('UNKNOWN_FORMAT', message, { op: 'journal.open' })
  }
  const length = slot.readUInt32LE(16)
  if (length === 0 || length > SLOT_BYTES - HEADER_BYTES) return undefined
  const pages = slot.subarray(HEADER_BYTES, HEADER_BYTES + length)
  const digest = createHash('sha256').update(pages).digest()
  return digest.equals(slot.subarray(32, 64))
    ? { round: slot.readBigUInt64LE(8), pages: Buffer.from(pages) }
    : undefined
}
