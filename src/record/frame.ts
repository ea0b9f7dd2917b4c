/**
 * Frames: runs of records, the unit of journaling and shipping. docs/FORMAT.md section 1.
 *
 * A frame is checked in two steps: alone (`checkFrame`: everything its own bytes can prove) and as
 * the successor of another (`checkSuccession`: volume, gap, fork). Each violation has a code.
 */
import { createHash } from 'node:crypto'
import { crc32c } from '../lib/crc32c.js'
import { type ErrorCode, HoldfastError } from '../lib/errors.js'
import { native } from '../lib/native.js'
import {
  FrameAt as At,
  CHAIN_BYTES,
  CHAIN_START,
  FRAME_BODY_BYTES_MAX,
  FRAME_CHAINED_BYTES,
  FRAME_HEADER_BYTES,
  FRAME_MAGIC,
  FRAME_VERSION,
  UUID_BYTES,
} from './layout.js'
import { hex32, type RecordView, recordAt } from './record.js'

/** A frame read in place. */
export class FrameView {
  readonly bytes: Buffer

  /** Throws FRAME_TRUNCATED, FRAME_MAGIC, FRAME_VERSION, FRAME_FLAGS or FRAME_HEADER. */
  constructor(bytes: Buffer) {
    this.bytes = bytes
    if (bytes.length < FRAME_HEADER_BYTES) {
      throw frameError('FRAME_TRUNCATED', `${bytes.length} bytes, a header has 80`, bytes.length)
    }
    const magic = bytes.toString('latin1', At.magic, At.magic + 4)
    if (magic !== FRAME_MAGIC) {
      throw frameError('FRAME_MAGIC', `magic is ${JSON.stringify(magic)}, not HFJF`, At.magic)
    }
    const version = bytes.readUInt8(At.version)
    if (version !== FRAME_VERSION) {
      const message = `frame version ${version}; this holdfast reads ${FRAME_VERSION}`
      throw frameError('FRAME_VERSION', message, At.version)
    }
    const flags = bytes.readUInt8(At.flags)
    if (flags !== 0) throw frameError('FRAME_FLAGS', `unknown frame flags ${flags}`, At.flags)
    const headerLength = bytes.readUInt16LE(At.headerLength)
    if (headerLength !== FRAME_HEADER_BYTES) {
      throw frameError('FRAME_HEADER', `header length ${headerLength}, not 80`, At.headerLength)
    }
  }

  get uuid(): Buffer {
    return this.bytes.subarray(At.uuid, At.uuid + UUID_BYTES)
  }

  get epoch(): number {
    return this.bytes.readUInt32LE(At.epoch)
  }

  get recordCount(): number {
    return this.bytes.readUInt32LE(At.records)
  }

  get firstSeq(): bigint {
    return this.bytes.readBigUInt64LE(At.firstSeq)
  }

  get lastSeq(): bigint {
    return this.bytes.readBigUInt64LE(At.lastSeq)
  }

  get bodyLength(): number {
    return this.bytes.readUInt32LE(At.bodyLength)
  }

  get bodyCrc(): number {
    return this.bytes.readUInt32LE(At.bodyCrc)
  }

  /** Clock of the last record, ns since the epoch. */
  get clock(): bigint {
    return this.bytes.readBigUInt64LE(At.clock)
  }

  get previousChain(): Buffer {
    return this.bytes.subarray(At.previousChain, At.previousChain + CHAIN_BYTES)
  }

  get chain(): Buffer {
    return this.bytes.subarray(At.chain, At.chain + CHAIN_BYTES)
  }

  get body(): Buffer {
    return this.bytes.subarray(FRAME_HEADER_BYTES, FRAME_HEADER_BYTES + this.bodyLength)
  }

  /** The records in order; RECORD_* when the body cannot be cut into records. */
  *records(): Generator<RecordView> {
    const { body } = this
    for (let at = 0; at < body.length; ) {
      const record = recordAt(body, at)
      yield record
      at += record.bytes.length
    }
  }

  /** The records from the last to the first. */
  recordsReversed(): RecordView[] {
    return [...this.records()].reverse()
  }
}

/** First 8 bytes of SHA-256 over the chained part of a header. */
export function chainValue(header: Buffer): Buffer {
  const hash = createHash('sha256').update(header.subarray(0, FRAME_CHAINED_BYTES)).digest()
  return hash.subarray(0, CHAIN_BYTES)
}

/**
 * Checks everything a frame's own bytes can prove; returns the view. Throws FRAME_* or RECORD_*
 * with `details.byte`, the offset in the frame of what is wrong.
 */
export function checkFrame(bytes: Buffer): FrameView {
  const frame = new FrameView(bytes)
  if (!chainValue(bytes).equals(frame.chain)) {
    throw frameError('FRAME_CHAIN', 'the header does not match its chain value', At.chain)
  }
  const length = FRAME_HEADER_BYTES + frame.bodyLength
  if (frame.bodyLength > FRAME_BODY_BYTES_MAX || bytes.length > length) {
    const message = `${bytes.length} bytes, the header says ${length}`
    throw frameError('FRAME_HEADER', message, At.bodyLength)
  }
  if (bytes.length < length) {
    throw frameError('FRAME_TRUNCATED', `${bytes.length} bytes of ${length}`, bytes.length)
  }
  const crc = crc32c(frame.body)
  const records = checkRecords(frame)
  if (crc !== frame.bodyCrc) {
    const message = `body checksum ${hex32(crc)}, stored is ${hex32(frame.bodyCrc)}`
    throw frameError('FRAME_BODY_CRC', message, At.bodyCrc)
  }
  if (records !== frame.recordCount) {
    const message = `${records} records, the header says ${frame.recordCount}`
    throw frameError('FRAME_RECORDS', message, At.records)
  }
  return frame
}

/**
 * As `checkFrame`, by the data plane: many times faster for many small records. What it does not find
 * good is looked at here, which names what is wrong.
 */
export function checkFrameFast(bytes: Buffer): FrameView {
  return native.frameIsSound(bytes) ? new FrameView(bytes) : checkFrame(bytes)
}

/**
 * Records first: their own checksums name the place more narrowly than the body's. A frame may
 * begin or end with a missing seq (an operation that a crash interrupted), so its first and last
 * seq only bound those of its records.
 */
function checkRecords(frame: FrameView): number {
  const { body } = frame
  let at = 0
  let count = 0
  let seq = frame.firstSeq - 1n
  try {
    while (at < body.length) {
      const record = recordAt(body, at)
      record.check()
      if (record.seq <= seq || record.seq > frame.lastSeq) {
        const message = `seq ${record.seq} after ${seq} in a frame up to ${frame.lastSeq}`
        throw new HoldfastError('RECORD_ORDER', message, { op: 'frame.check' })
      }
      seq = record.seq
      at += record.bytes.length
      count += 1
    }
  } catch (error) {
    if (!(error instanceof HoldfastError)) throw error
    const message = `record ${count + 1} of the frame: ${error.message}`
    throw frameError(error.code, message, FRAME_HEADER_BYTES + at, error)
  }
  return count
}

/** Where a journal stands: what the next frame must follow. */
export interface JournalEnd {
  readonly lastSeq: bigint
  readonly chain: Buffer
}

export const JOURNAL_START: JournalEnd = { lastSeq: 0n, chain: CHAIN_START }

/** Checks that `frame` is of volume `uuid` and follows `end`: FRAME_VOLUME, FRAME_GAP, FRAME_FORK. */
export function checkSuccession(frame: FrameView, uuid: Buffer, end: JournalEnd): void {
  if (!frame.uuid.equals(uuid)) {
    const message = `frame of volume ${formatUuid(frame.uuid)}, not of ${formatUuid(uuid)}`
    throw frameError('FRAME_VOLUME', message, At.uuid)
  }
  if (frame.firstSeq !== end.lastSeq + 1n) {
    const message =
      frame.firstSeq > end.lastSeq
        ? `seqs ${end.lastSeq + 1n} to ${frame.firstSeq - 1n} are missing`
        : `seq ${frame.firstSeq} comes again after ${end.lastSeq}`
    throw frameError('FRAME_GAP', message, At.firstSeq)
  }
  if (!frame.previousChain.equals(end.chain)) {
    const message = 'the frame does not continue the frame before it'
    throw frameError('FRAME_FORK', message, At.previousChain)
  }
}

export interface FrameParts {
  uuid: Buffer
  epoch: number
  /** Encoded records, in seq order. */
  records: readonly Buffer[]
  previousChain?: Buffer
  /** Bounds where they are not those of the records; needed when there are none. */
  firstSeq?: bigint
  lastSeq?: bigint
}

/** Encodes a frame from encoded records. Used by tests and tools. */
export function encodeFrame(parts: FrameParts): Buffer {
  const { uuid, epoch, records, previousChain = CHAIN_START } = parts
  const body = Buffer.concat(records)
  const views = records.map((record) => recordAt(record, 0))
  const last = views[views.length - 1]
  const bytes = Buffer.alloc(FRAME_HEADER_BYTES + body.length)
  bytes.write(FRAME_MAGIC, At.magic, 'latin1')
  bytes.writeUInt8(FRAME_VERSION, At.version)
  bytes.writeUInt16LE(FRAME_HEADER_BYTES, At.headerLength)
  uuid.copy(bytes, At.uuid, 0, UUID_BYTES)
  bytes.writeUInt32LE(epoch, At.epoch)
  bytes.writeUInt32LE(records.length, At.records)
  bytes.writeBigUInt64LE(parts.firstSeq ?? views[0]?.seq ?? 0n, At.firstSeq)
  bytes.writeBigUInt64LE(parts.lastSeq ?? last?.seq ?? 0n, At.lastSeq)
  bytes.writeUInt32LE(body.length, At.bodyLength)
  bytes.writeUInt32LE(crc32c(body), At.bodyCrc)
  bytes.writeBigUInt64LE(last?.clock ?? 0n, At.clock)
  previousChain.copy(bytes, At.previousChain, 0, CHAIN_BYTES)
  body.copy(bytes, FRAME_HEADER_BYTES)
  chainValue(bytes).copy(bytes, At.chain)
  return bytes
}

/** 16 bytes as `8-4-4-4-12`. */
export function formatUuid(uuid: Buffer): string {
  const hex = uuid.toString('hex')
  const parts = [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20)]
  return [...parts, hex.slice(20)].join('-')
}

/** The 16 bytes of a printed UUID; undefined when it is none. */
export function parseUuid(text: string): Buffer | undefined {
  const hex = text.replaceAll('-', '')
  return /^[0-9a-f]{32}$/i.test(hex) ? Buffer.from(hex, 'hex') : undefined
}

function frameError(
  code: ErrorCode,
  message: string,
  byte: number,
  cause?: unknown,
): HoldfastError {
  return new HoldfastError(code, message, { op: 'frame.check', cause, details: { byte } })
}
