/**
 * The fields of every operation, as one table: docs/FORMAT.md section 2, "Operations". Decoding,
 * encoding and the TypeScript types all come from it.
 */
import { HoldfastError } from '../lib/errors.js'
import { TIME_UNKNOWN_NS } from './layout.js'

/** Identity of a backing object for as long as it exists. */
export interface Oid {
  readonly ino: bigint
  readonly gen: bigint
}

export const OID_ZERO: Oid = { ino: 0n, gen: 0n }
export const OID_BYTES = 16

/** Seconds and nanoseconds since the epoch; null where the time is not known. */
export type Time = { readonly seconds: bigint; readonly nanoseconds: number } | null
export const TIME_BYTES = 12

interface FieldTypes {
  oid: Oid
  time: Time
  u8: number
  u32: number
  u64: bigint
  name: Buffer
  fsxattr: Buffer
}

type FieldType = keyof FieldTypes
type Spec = readonly (readonly [string, FieldType])[]

const FSXATTR_BYTES = 28

const MAKE = [
  ['parent', 'oid'],
  ['pmtime', 'time'],
  ['rdev', 'u32'],
  ['requestedMode', 'u32'],
  ['umask', 'u32'],
  ['uid', 'u32'],
  ['gid', 'u32'],
  ['name', 'name'],
] as const

const REMOVE = [
  ['parent', 'oid'],
  ['pmtime', 'time'],
  ['linksLeft', 'u32'],
  ['name', 'name'],
] as const

const RANGE = [
  ['offset', 'u64'],
  ['length', 'u64'],
] as const

/** op name → [op code, fields in order] */
export const OPERATIONS = {
  BIND: [
    1,
    [
      ['parent', 'oid'],
      ['name', 'name'],
    ],
  ],
  MKNOD: [2, MAKE],
  MKDIR: [3, MAKE],
  SYMLINK: [4, MAKE],
  LINK: [
    5,
    [
      ['parent', 'oid'],
      ['pmtime', 'time'],
      ['name', 'name'],
    ],
  ],
  UNLINK: [6, REMOVE],
  RMDIR: [7, REMOVE],
  RENAME: [
    8,
    [
      ['oldParent', 'oid'],
      ['oldPmtime', 'time'],
      ['newParent', 'oid'],
      ['newPmtime', 'time'],
      ['flags', 'u32'],
      ['replaced', 'oid'],
      ['replacedLinksLeft', 'u32'],
      ['oldName', 'name'],
      ['newName', 'name'],
    ],
  ],
  TMPFILE: [
    9,
    [
      ['parent', 'oid'],
      ['requestedMode', 'u32'],
      ['umask', 'u32'],
      ['uid', 'u32'],
      ['gid', 'u32'],
    ],
  ],
  WRITE: [10, [['offset', 'u64']]],
  SETATTR: [
    11,
    [
      ['valid', 'u32'],
      ['mode', 'u32'],
      ['uid', 'u32'],
      ['gid', 'u32'],
      ['size', 'u64'],
      ['atime', 'time'],
      ['mtime', 'time'],
    ],
  ],
  SETXATTR: [
    12,
    [
      ['flags', 'u32'],
      ['name', 'name'],
    ],
  ],
  REMOVEXATTR: [13, [['name', 'name']]],
  FALLOCATE: [14, [['mode', 'u32'], ...RANGE, ['sizeAfter', 'u64']]],
  COPY: [15, [['source', 'oid'], ['sourceOffset', 'u64'], ...RANGE]],
  SETFLAGS: [16, [['value', 'u32']]],
  SETXFLAGS: [17, [['value', 'fsxattr']]],
  GONE: [18, []],
  MARKER: [19, [['name', 'name']]],
  IMAGE: [
    32,
    [
      ['uid', 'u32'],
      ['gid', 'u32'],
      ['rdev', 'u32'],
      ['links', 'u32'],
      ['size', 'u64'],
      ['flags', 'u32'],
    ],
  ],
  IMAGE_DATA: [33, [['offset', 'u64']]],
  IMAGE_HOLE: [34, RANGE],
  IMAGE_DIR: [
    35,
    [
      ['range', 'u8'],
      ['after', 'name'],
      ['upTo', 'name'],
    ],
  ],
  IMAGE_ENTRY: [
    36,
    [
      ['parent', 'oid'],
      ['pmtime', 'time'],
      ['present', 'u8'],
      ['name', 'name'],
    ],
  ],
  SCAN_BEGIN: [37, [['kind', 'u8']]],
  SCAN_END: [38, [['kind', 'u8']]],
  CODES: [39, RANGE],
  IMAGE_LATER: [40, RANGE],
} as const satisfies Record<string, readonly [number, Spec]>

export type OpName = keyof typeof OPERATIONS

/** SETATTR `valid` bits. */
export const SetattrValid = { mode: 1, uid: 2, gid: 4, size: 8, atime: 16, mtime: 32 } as const

type SpecOf<Op extends OpName> = (typeof OPERATIONS)[Op][1][number]
/** The decoded fields of one operation. */
export type FieldsOf<Op extends OpName> = {
  readonly [F in SpecOf<Op> as F[0]]: FieldTypes[F[1]]
}
/** The fields of any record, told apart by `op`. */
export type Fields = { [Op in OpName]: { readonly op: Op } & FieldsOf<Op> }[OpName]

const NAMES = new Map<number, OpName>(
  (Object.keys(OPERATIONS) as OpName[]).map((name) => [OPERATIONS[name][0], name]),
)

export const OP_NAMES: readonly OpName[] = [...NAMES.values()]

/** The name of op code `code`, undefined for one that this version does not know. */
export function opName(code: number): OpName | undefined {
  return NAMES.get(code)
}

export function opCode(name: OpName): number {
  return OPERATIONS[name][0]
}

export function oidEquals(a: Oid, b: Oid): boolean {
  return a.ino === b.ino && a.gen === b.gen
}

export function oidIsZero(oid: Oid): boolean {
  return oid.ino === 0n && oid.gen === 0n
}

/** A key for maps, and the printed form: `ino:gen`, both hexadecimal. */
export function oidKey(oid: Oid): string {
  return `${oid.ino.toString(16)}:${oid.gen.toString(16)}`
}

export function readOid(bytes: Buffer, at: number): Oid {
  return { ino: bytes.readBigUInt64LE(at), gen: bytes.readBigUInt64LE(at + 8) }
}

export function writeOid(bytes: Buffer, at: number, oid: Oid): void {
  bytes.writeBigUInt64LE(oid.ino, at)
  bytes.writeBigUInt64LE(oid.gen, at + 8)
}

export function readTime(bytes: Buffer, at: number): Time {
  const nanoseconds = bytes.readUInt32LE(at + 8)
  if (nanoseconds === TIME_UNKNOWN_NS) return null
  return { seconds: bytes.readBigInt64LE(at), nanoseconds }
}

export function writeTime(bytes: Buffer, at: number, time: Time): void {
  bytes.writeBigInt64LE(time?.seconds ?? 0n, at)
  bytes.writeUInt32LE(time?.nanoseconds ?? TIME_UNKNOWN_NS, at + 8)
}

/** Decodes the fields of `op` from `bytes`; RECORD_FIELDS when they are too short or too long. */
export function decodeFields<Op extends OpName>(op: Op, bytes: Buffer): FieldsOf<Op> {
  const fields: Record<string, unknown> = {}
  let at = 0
  try {
    for (const [name, type] of OPERATIONS[op][1] as Spec) {
      const [value, length] = READ[type](bytes, at)
      fields[name] = value
      at += length
    }
  } catch (cause) {
    throw fieldsError(op, `fields end after ${bytes.length} bytes`, cause)
  }
  if (at !== bytes.length)
    throw fieldsError(op, `fields have ${bytes.length} bytes, ${at} expected`)
  return fields as FieldsOf<Op>
}

/** Encodes the fields of `op`: the inverse of `decodeFields`. */
export function encodeFields<Op extends OpName>(op: Op, fields: FieldsOf<Op>): Buffer {
  const values = fields as Record<string, unknown>
  return Buffer.concat(
    (OPERATIONS[op][1] as Spec).map(([name, type]) =>
      (WRITE[type] as (value: unknown) => Buffer)(values[name]),
    ),
  )
}

type Reader<T> = (bytes: Buffer, at: number) => [value: T, length: number]

const READ: { [T in FieldType]: Reader<FieldTypes[T]> } = {
  oid: (bytes, at) => [readOid(bytes, at), OID_BYTES],
  time: (bytes, at) => [readTime(bytes, at), TIME_BYTES],
  u8: (bytes, at) => [bytes.readUInt8(at), 1],
  u32: (bytes, at) => [bytes.readUInt32LE(at), 4],
  u64: (bytes, at) => [bytes.readBigUInt64LE(at), 8],
  name: (bytes, at) => {
    const name = slice(bytes, at + 2, bytes.readUInt16LE(at))
    return [name, 2 + name.length]
  },
  fsxattr: (bytes, at) => [slice(bytes, at, FSXATTR_BYTES), FSXATTR_BYTES],
}

const WRITE: { [T in FieldType]: (value: FieldTypes[T]) => Buffer } = {
  oid: (oid) => filled(OID_BYTES, (bytes) => writeOid(bytes, 0, oid)),
  time: (time) => filled(TIME_BYTES, (bytes) => writeTime(bytes, 0, time)),
  u8: (value) => Buffer.of(value),
  u32: (value) => filled(4, (bytes) => bytes.writeUInt32LE(value)),
  u64: (value) => filled(8, (bytes) => bytes.writeBigUInt64LE(value)),
  name: (name) => Buffer.concat([filled(2, (bytes) => bytes.writeUInt16LE(name.length)), name]),
  fsxattr: (value) => slice(value, 0, FSXATTR_BYTES),
}

/** `length` bytes from `at`, or a RangeError: a plain subarray would silently be shorter. */
export function slice(bytes: Buffer, at: number, length: number): Buffer {
  if (at + length > bytes.length)
    throw new RangeError(`${length} bytes at ${at} of ${bytes.length}`)
  return bytes.subarray(at, at + length)
}

function filled(length: number, fill: (bytes: Buffer) => unknown): Buffer {
  const bytes = Buffer.alloc(length)
  fill(bytes)
  return bytes
}

export function fieldsError(op: OpName, message: string, cause?: unknown): HoldfastError {
  return new HoldfastError('RECORD_FIELDS', `${op}: ${message}`, { op: 'record.decode', cause })
}
