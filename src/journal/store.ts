/**
 * The journal on disk: an LMDB environment of frames.
 *
 * Invariants: one writer at a time (the drain's worker, or a command under the volume's lock). A
 * returned `append` outlives the process; it outlives the machine after `flush` or `sync`. How that
 * is done without a flush of the disk for every commit, and undone after power loss, is in
 * `snapshot.ts` and `flush-log.ts`.
 *
 * Neighbours: `capture/drain-worker.ts` appends, `verify.ts` and `prune.ts` read and trim.
 */
import { existsSync, mkdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { errnoOf, HoldfastError } from '../lib/errors.js'
import { FLUSH_LOG_BATCH_BYTES_MAX, LOG_SPARE_BYTES, READ_BEHIND_BYTES } from '../lib/limits.js'
import { native } from '../lib/native.js'
import { FrameView, formatUuid, JOURNAL_START, type JournalEnd } from '../record/frame.js'
import {
  type Environment,
  fullError,
  openEnvironment,
  type PageStats,
  pageCount,
  requireSpace,
  type Table,
  text,
  writeError,
} from './environment.js'
import { FlushLog } from './flush-log.js'
import { decodeMeta, encodeMeta, freshMeta, type JournalMeta } from './meta.js'
import type { FrameBytes, FrameRange, JournalOptions, JournalStat } from './shapes.js'
import { restoreSnapshot, Snapshots } from './snapshot.js'

export type { FrameBytes, FrameRange, JournalOptions, JournalStat } from './shapes.js'

const FILE = 'data.mdb'
const META_KEY = Buffer.from('state')
/** Frames read under one read transaction: a long reader would stop the reuse of pages. */
const FRAMES_PER_READ = 16

/** 8 bytes big-endian: LMDB's byte order of keys is the order of seqs. */
export function seqKey(seq: bigint): Buffer {
  const key = Buffer.alloc(8)
  key.writeBigUInt64BE(seq)
  return key
}

export class Journal {
  readonly path: string
  readonly readOnly: boolean
  readonly #env: Environment
  readonly #frames: Table
  readonly #metaDb: Table
  readonly #writer: Writer | undefined
  /** Frames appended since the last `flush` or `sync`: first seqs, and their bytes together. */
  #unflushed: bigint[] = []
  #unflushedBytes = 0
  /** First seq of the last frame that the flush log got before LMDB did. */
  #ahead = 0n
  #closed = false
  /** Bytes of frames read by `passing` since what was read was last forgotten. */
  #passed = 0

  private constructor(path: string, readOnly: boolean, env: Environment) {
    this.path = path
    this.readOnly = readOnly
    this.#env = env
    const binary = { keyEncoding: 'binary', encoding: 'binary', cache: false } as const
    this.#frames = env.openDB<Buffer, Buffer>({ name: 'frames', ...binary })
    this.#metaDb = env.openDB<Buffer, Buffer>({ name: 'meta', ...binary })
    if (readOnly) return
    const { pageSize } = env.getStats() as PageStats
    this.#writer = {
      snapshots: new Snapshots(path, pageSize),
      log: new FlushLog(path),
      pin: undefined,
    }
  }

  /**
   * Opens a journal. JOURNAL_MISSING, FOREIGN_JOURNAL (another volume's), UNKNOWN_FORMAT, or
   * JOURNAL_UNREADABLE when LMDB refuses the file.
   */
  static open(options: JournalOptions): Journal {
    const { path, uuid, create = false, readOnly = false, afterPowerLoss = false } = options
    const present = existsSync(join(path, FILE))
    if (!present && (!create || readOnly || uuid === undefined)) {
      throw new HoldfastError('JOURNAL_MISSING', `no journal at ${path}`, { op: 'journal.open' })
    }
    mkdirSync(path, { recursive: true, mode: 0o700 })
    let journal: Journal
    try {
      if (afterPowerLoss && !readOnly) restoreSnapshot(path)
      journal = new Journal(path, readOnly, openEnvironment(path, readOnly))
    } catch (cause) {
      if (errnoOf(cause) === 'ENOSPC') throw fullError(path, cause)
      throw new HoldfastError('JOURNAL_UNREADABLE', `cannot read ${path}: ${text(cause)}`, {
        op: 'journal.open',
        cause,
        hint: 'Run `holdfast journal verify` on a copy, or resync from a replica.',
      })
    }
    try {
      journal.#identify(path, uuid)
      if (!readOnly) journal.#begin()
    } catch (error) {
      void journal.close()
      throw error
    }
    return journal
  }

  #identify(path: string, uuid: Buffer | undefined): void {
    if (this.#metaDb.get(META_KEY) === undefined) {
      if (uuid === undefined || this.readOnly) {
        const message = `${path} holds an LMDB environment that is no journal`
        throw new HoldfastError('FOREIGN_JOURNAL', message, { op: 'journal.open' })
      }
      this.setMeta(freshMeta(uuid))
    }
    const found = this.meta().uuid
    if (uuid !== undefined && !found.equals(uuid)) {
      const message = `${path} is the journal of volume ${formatUuid(found)}, not of ${formatUuid(uuid)}`
      throw new HoldfastError('FOREIGN_JOURNAL', message, {
        op: 'journal.open',
        hint: 'Give another state directory with --state, or move this journal away.',
      })
    }
  }

  /**
   * Takes over what only the flush log has, after the death of the machine or of the process. Then
   * the first commit starts from a pinned, durable snapshot.
   */
  #begin(): void {
    const frames = [...(this.#writer?.log.framesAfter(this.end()) ?? [])]
    const bytes = frames.reduce((sum, frame) => sum + frame.bytes.length, 0)
    if (bytes > 0) {
      requireSpace(this.path, { bytes, spare: LOG_SPARE_BYTES })
      this.append(frames)
    }
    this.sync()
  }

  /** LMDB's file. */
  get file(): string {
    return join(this.path, FILE)
  }

  meta(): JournalMeta {
    const bytes = this.#metaDb.get(META_KEY)
    if (bytes === undefined) throw new Error('the journal lost its meta record')
    return decodeMeta(bytes)
  }

  /** Replaces the meta record, durably. */
  setMeta(meta: JournalMeta): void {
    this.#commit(() => {
      this.#metaDb.put(META_KEY, encodeMeta(meta))
    })
    this.sync()
  }

  /** Changes part of the meta record, durably. */
  updateMeta(change: Partial<JournalMeta>): JournalMeta {
    const meta = { ...this.meta(), ...change }
    this.setMeta(meta)
    return meta
  }

  /**
   * Appends frames in one transaction; when it returns they outlive the process. JOURNAL_FULL
   * (nothing was stored, try again later) or JOURNAL_WRITE.
   */
  append(frames: readonly FrameBytes[]): void {
    this.#commit(() => {
      for (const { firstSeq, bytes } of frames) this.#frames.put(seqKey(firstSeq), bytes)
    })
    for (const { firstSeq, bytes } of frames) {
      if (firstSeq <= this.#ahead) continue
      this.#unflushed.push(firstSeq)
      this.#unflushedBytes += bytes.length
    }
  }

  /** Bytes of frames that would not outlive the machine yet. */
  get unflushedBytes(): number {
    return this.#unflushedBytes
  }

  /** Makes all appended frames outlive the machine. JOURNAL_FULL or JOURNAL_WRITE. */
  flush(): void {
    if (this.#unflushed.length > 0 && !this.flushAhead([])) this.sync()
  }

  /**
   * Makes frames outlive the machine, with all before them, by one write to the flush log: sooner
   * than LMDB could. The caller appends them next. False: they are too many for the log, which is
   * unchanged; append, then `sync`. JOURNAL_FULL or JOURNAL_WRITE.
   */
  flushAhead(frames: readonly FrameBytes[]): boolean {
    const writer = this.#writer
    const bytes = frames.reduce((sum, { bytes }) => sum + bytes.length, this.#unflushedBytes)
    if (writer === undefined || bytes > FLUSH_LOG_BATCH_BYTES_MAX || !writer.log.fits(bytes)) {
      return false
    }
    const before = this.#unflushed.map((seq) => this.#frames.get(seqKey(seq)))
    if (before.includes(undefined)) return false // pruned already
    try {
      writer.log.append([...(before as Buffer[]), ...frames.map(({ bytes }) => bytes)])
    } catch (cause) {
      throw writeError(this.path, cause)
    }
    this.#ahead = frames.at(-1)?.firstSeq ?? this.#ahead
    this.#unflushed = []
    this.#unflushedBytes = 0
    return true
  }

  /** Makes everything outlive the machine: a durable snapshot of the whole file. */
  sync(): void {
    const writer = this.#writer
    if (writer === undefined) return
    // Pinned before the old pin goes: the pages of one snapshot or the other stay.
    const pin = this.#env.useReadTransaction()
    try {
      writer.snapshots.take()
    } catch (cause) {
      pin.done()
      throw writeError(this.path, cause)
    }
    writer.pin?.done()
    writer.pin = pin
    // What the log has and LMDB has not stays; a reader passes over what is older.
    if (this.#lastKey() >= this.#ahead) writer.log.reset()
    this.#unflushed = []
    this.#unflushedBytes = 0
  }

  /** Where the journal ends: what the next frame must follow. */
  end(): JournalEnd {
    const last = this.lastFrame()
    if (last !== undefined) return { lastSeq: last.lastSeq, chain: Buffer.from(last.chain) }
    return this.meta().horizon ?? JOURNAL_START
  }

  firstFrame(): FrameView | undefined {
    return this.#next(seqKey(0n), false)
  }

  lastFrame(): FrameView | undefined {
    return this.#next(undefined, true)
  }

  /** The frame that holds `seq`, or the first one after it; undefined beyond the end. */
  frameAt(seq: bigint): FrameView | undefined {
    const before = this.#next(seqKey(seq), true)
    if (before !== undefined && before.lastSeq >= seq) return before
    return this.#next(seqKey(seq), false)
  }

  /**
   * Frames in order. Read transactions are short, so that a slow consumer never stops the writer
   * from reusing pages; frames pruned meanwhile are skipped.
   */
  *frames({ from = 0n, to, reverse = false }: FrameRange = {}): Generator<FrameView> {
    let frame = reverse
      ? this.#next(to === undefined ? undefined : seqKey(to), true)
      : this.frameAt(from)
    for (let read = 1; frame !== undefined; read += 1) {
      if (reverse ? frame.lastSeq < from : to !== undefined && frame.firstSeq > to) return
      const { firstSeq } = frame
      yield frame
      if (read % FRAMES_PER_READ === 0) this.refresh()
      if (reverse && firstSeq === 0n) return
      frame = reverse
        ? this.#next(seqKey(firstSeq - 1n), true)
        : this.#next(seqKey(firstSeq + 1n), false)
    }
  }

  /**
   * Frames in order, all in the same memory: each is valid until the next one, or until anything else
   * is read. For those who copy it at once.
   */
  *passing(from: bigint): Generator<FrameView> {
    // Not by `frameAt` first: a search copies the frames around it as well.
    let frame = this.#borrow(from) ?? this.frameAt(from)
    for (let read = 1; frame !== undefined; read += 1) {
      const { firstSeq, lastSeq } = frame
      this.#passed += frame.bytes.length
      yield frame
      if (this.#passed >= READ_BEHIND_BYTES) {
        this.#passed = 0
        native.forgetRead(this.file)
      }
      if (read % FRAMES_PER_READ === 0) this.refresh()
      frame = this.#borrow(lastSeq + 1n) ?? this.#next(seqKey(firstSeq + 1n), false)
    }
  }

  /** Raw values in key order, not even recognised as frames: for verification. */
  *rawFrames(from = 0n): Generator<{ key: Buffer; bytes: Buffer }> {
    let start = seqKey(from)
    for (let read = 1; ; read += 1) {
      const [entry] = [...this.#frames.getRange({ start, limit: 1 })]
      if (entry === undefined) return
      yield { key: Buffer.from(entry.key), bytes: entry.value }
      if (read % FRAMES_PER_READ === 0) this.refresh()
      start = Buffer.concat([entry.key, Buffer.of(0)])
    }
  }

  /** Forgets all frames; the next one follows `horizon`. */
  startOver(horizon: JournalEnd): void {
    const meta = { ...this.meta(), horizon, checkpoint: null }
    this.#commit(() => {
      this.#frames.clearSync()
      this.#metaDb.put(META_KEY, encodeMeta(meta))
    })
    this.#ahead = 0n
    this.sync()
  }

  /** Deletes frames by their first seq and records the new horizon, in one transaction. */
  removeFrames(firstSeqs: readonly bigint[], horizon: JournalEnd): void {
    const meta = { ...this.meta(), horizon }
    this.#commit(() => {
      for (const seq of firstSeqs) this.#frames.remove(seqKey(seq))
      this.#metaDb.put(META_KEY, encodeMeta(meta))
    })
  }

  stat(): JournalStat {
    this.refresh()
    const pages = this.#frames.getStats() as PageStats
    const root = this.#env.getStats() as PageStats & { free?: PageStats }
    const used = pageCount(pages) * pages.pageSize
    const fileBytes = statSync(this.file).size
    const overhead = (pageCount(root) + 2) * pages.pageSize
    const first = this.firstFrame()
    const last = this.lastFrame()
    return {
      frames: pages.entryCount,
      usedBytes: used,
      freeBytes: Math.max(0, fileBytes - used - overhead),
      fileBytes,
      firstSeq: first?.firstSeq ?? 0n,
      lastSeq: last?.lastSeq ?? this.end().lastSeq,
      firstClock: first?.clock ?? 0n,
      lastClock: last?.clock ?? 0n,
    }
  }

  /** Bytes of the pages that hold frames. */
  usedBytes(): number {
    const pages = this.#frames.getStats() as PageStats
    return pageCount(pages) * pages.pageSize
  }

  /** Ends the current read transaction: later reads see what other processes committed. */
  refresh(): void {
    this.#env.resetReadTxn()
  }

  /** A writer leaves a durable snapshot of all it did, if the file system lets it. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    try {
      this.sync()
    } catch {
      // What was committed stays in the file all the same; a full disk was reported when it mattered.
    }
    this.#writer?.pin?.done()
    this.#writer?.snapshots.close()
    this.#writer?.log.close()
    await this.#env.close()
  }

  /** First seq of the last frame, without reading the frame; 0: there is none. */
  #lastKey(): bigint {
    const [key] = [...this.#frames.getKeys({ reverse: true, limit: 1 })]
    return key === undefined ? 0n : Buffer.from(key).readBigUInt64BE()
  }

  /** The frame that begins at `seq`, in memory that the next read takes. */
  #borrow(seq: bigint): FrameView | undefined {
    const bytes = this.#frames.getBinaryFast(seqKey(seq))
    // Its `length` is that of the value, whatever the memory has.
    return bytes && new FrameView(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length))
  }

  #next(bound: Buffer | undefined, reverse: boolean): FrameView | undefined {
    const start = bound ?? (reverse ? seqKey(0xffff_ffff_ffff_ffffn) : seqKey(0n))
    const [entry] = [...this.#frames.getRange({ start, reverse, limit: 1 })]
    return entry === undefined ? undefined : new FrameView(entry.value)
  }

  /** One transaction, not flushed. The callback returns nothing: a returned promise would defer it. */
  #commit(write: () => void): void {
    try {
      this.#env.transactionSync(() => {
        write()
      })
    } catch (cause) {
      throw writeError(this.path, cause)
    }
  }
}

/** What only the writer has. */
interface Writer {
  snapshots: Snapshots
  log: FlushLog
  /** Keeps the pages of the last snapshot from being used again. */
  pin: { done(): void } | undefined
}
