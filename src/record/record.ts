/**
 * One record, read in place: a view over the bytes of a frame that decodes what is asked for.
 * docs/FORMAT.md section 2. Neighbours: `frame.ts` cuts a body into records, `fields.ts` knows the
 * operations.
 */
import { crc32c } from '../lib/crc32c.js'
import { HoldfastError } from '../lib/errors.js'
import {
  decodeFields,
  encodeFields,
  type Fields,
  type FieldsOf,
  OID_ZERO,
  type Oid,
  type OpName,
  opCode,
  opName,
  readOid,
  readTime,
  type Time,
  writeOid,
  writeTime,
} from './fields.js'
import {
  RecordAt as At,
  COMM_BYTES,
  RECORD_ALIGN,
  RECORD_BYTES_MAX,
  RECORD_HEADER_BYTES,
} from './layout.js'

export class RecordView {
  /** The whole record with padding; shares memory with the frame. */
  readonly bytes: Buffer

  constructor(bytes: Buffer) {
    this.bytes = bytes
  }

  get length(): number {
    return this.bytes.readUInt32LE(At.length)
  }

  get seq(): bigint {
    return this.bytes.readBigUInt64LE(At.seq)
  }

  /** Hybrid logical clock, ns since the Unix epoch. */
  get clock(): bigint {
    return this.bytes.readBigUInt64LE(At.clock)
  }

  get code(): number {
    return this.bytes.readUInt8(At.op)
  }

  /** Name of the operation; RECORD_OP when this version does not know it. */
  get op(): OpName {
    const name = opName(this.code)
    if (name === undefined) {
      throw new HoldfastError('RECORD_OP', `unknown operation ${this.code} at seq ${this.seq}`, {
        op: 'record.decode',
        hint: 'The journal was written by a newer holdfast: use that one.',
      })
    }
    return name
  }

  get flags(): number {
    return this.bytes.readUInt8(At.flags)
  }

  get uid(): number {
    return this.bytes.readUInt32LE(At.uid)
  }

  get gid(): number {
    return this.bytes.readUInt32LE(At.gid)
  }

  /** 0: the kernel (write-back of a mapping). */
  get pid(): number {
    return this.bytes.readUInt32LE(At.pid)
  }

  /** Command name of the caller, bytes before the padding. */
  get comm(): Buffer {
    const comm = this.bytes.subarray(At.comm, At.comm + COMM_BYTES)
    const end = comm.indexOf(0)
    return end < 0 ? comm : comm.subarray(0, end)
  }

  get oid(): Oid {
    return readOid(this.bytes, At.oid)
  }

  /** The object's mtime after the effect; null: not known. */
  get mtime(): Time {
    return readTime(this.bytes, At.mtime)
  }

  /** The object's st_mode after the effect; 0: not known. */
  get mode(): number {
    return this.bytes.readUInt32LE(At.mode)
  }

  get payload(): Buffer {
    const start = RECORD_HEADER_BYTES + this.fieldsLength
    return this.bytes.subarray(start, start + this.payloadLength)
  }

  get payloadLength(): number {
    return this.bytes.readUInt32LE(At.payloadLength)
  }

  /** The fields of the operation, told apart by `op`. */
  get fields(): Fields {
    const { op } = this
    return { op, ...decodeFields(op, this.fieldBytes) } as Fields
  }

  private get fieldsLength(): number {
    return this.bytes.readUInt16LE(At.fieldsLength)
  }

  private get fieldBytes(): Buffer {
    return this.bytes.subarray(RECORD_HEADER_BYTES, RECORD_HEADER_BYTES + this.fieldsLength)
  }

  /** Checks lengths, checksum, operation and fields; throws RECORD_* naming the violation. */
  check(): void {
    const { bytes } = this
    const needed = RECORD_HEADER_BYTES + this.fieldsLength + this.payloadLength
    const padding = bytes.length - needed
    if (padding < 0 || padding >= RECORD_ALIGN) {
      throw recordError('RECORD_LENGTH', `${bytes.length} bytes for ${needed} of content`)
    }
    const crc = crc32c(bytes.subarray(At.seq))
    const stored = bytes.readUInt32LE(At.crc)
    if (crc !== stored) {
      throw recordError('RECORD_CRC', `checksum ${hex32(crc)}, stored is ${hex32(stored)}`)
    }
    decodeFields(this.op, this.fieldBytes)
  }
}

/** The record at `at` of a frame's body; RECORD_TRUNCATED or RECORD_LENGTH when there is none. */
export function recordAt(body: Buffer, at: number): RecordView {
  const left = body.length - at
  if (left < RECORD_HEADER_BYTES) {
    throw recordError('RECORD_TRUNCATED', `${left} bytes left, a header has ${RECORD_HEADER_BYTES}`)
  }
  const length = body.readUInt32LE(at + At.length)
  if (length < RECORD_HEADER_BYTES || length > RECORD_BYTES_MAX || length % RECORD_ALIGN !== 0) {
    throw recordError('RECORD_LENGTH', `a record cannot have ${length} bytes`)
  }
  if (length > left) {
    throw recordError('RECORD_TRUNCATED', `${left} bytes left of a record of ${length}`)
  }
  return new RecordView(body.subarray(at, at + length))
}

/** Everything of a record's header that is not computed. */
export interface RecordHeader {
  seq: bigint
  clock: bigint
  flags?: number
  uid?: number
  gid?: number
  pid?: number
  comm?: string | Buffer
  oid?: Oid
  mtime?: Time
  mode?: number
}

/** Encodes one record. Used by tests, tools and later by records made in TypeScript. */
export function encodeRecord<Op extends OpName>(
  op: Op,
  header: RecordHeader,
  fields: FieldsOf<Op>,
  payload: Buffer = Buffer.alloc(0),
): Buffer {
  const encoded = encodeFields(op, fields)
  const content = RECORD_HEADER_BYTES + encoded.length + payload.length
  const bytes = Buffer.alloc(Math.ceil(content / RECORD_ALIGN) * RECORD_ALIGN)
  bytes.writeUInt32LE(bytes.length, At.length)
  bytes.writeBigUInt64LE(header.seq, At.seq)
  bytes.writeBigUInt64LE(header.clock, At.clock)
  bytes.writeUInt8(opCode(op), At.op)
  bytes.writeUInt8(header.flags ?? 0, At.flags)
  bytes.writeUInt16LE(encoded.length, At.fieldsLength)
  bytes.writeUInt32LE(payload.length, At.payloadLength)
  bytes.writeUInt32LE(header.uid ?? 0, At.uid)
  bytes.writeUInt32LE(header.gid ?? 0, At.gid)
  bytes.writeUInt32LE(header.pid ?? 0, At.pid)
  Buffer.from(header.comm ?? '').copy(bytes, At.comm, 0, COMM_BYTES)
  writeOid(bytes, At.oid, header.oid ?? OID_ZERO)
  writeTime(bytes, At.mtime, header.mtime ?? null)
  bytes.writeUInt32LE(header.mode ?? 0, At.mode)
  encoded.copy(bytes, RECORD_HEADER_BYTES)
  payload.copy(bytes, RECORD_HEADER_BYTES + encoded.length)
  bytes.writeUInt32LE(crc32c(bytes.subarray(At.seq)), At.crc)
  return bytes
}

type RecordErrorCode = 'RECORD_TRUNCATED' | 'RECORD_LENGTH' | 'RECORD_CRC'

function recordError(code: RecordErrorCode, message: string): HoldfastError {
  return new HoldfastError(code, message, { op: 'record.decode' })
}

export function hex32(value: number): string {
  return `0x${value.toString(16).padStart(8, '0')}`
}
