/** The golden vectors as code: what the hex in frames.json means. */
import {
  type FieldsOf,
  OID_ZERO,
  type Oid,
  type OpName,
  type Time,
} from '../../src/record/fields.js'
import { encodeFrame, FrameView } from '../../src/record/frame.js'
import { CHAIN_START, RecordFlag } from '../../src/record/layout.js'
import { encodeDirPayload, encodeImagePayload } from '../../src/record/payload.js'
import { encodeRecord, type RecordHeader } from '../../src/record/record.js'

export const UUID = Buffer.from('00112233445566778899aabbccddeeff', 'hex')
export const EPOCH = 7
const CLOCK = 1_760_000_000_000_000_000n

export const ROOT: Oid = { ino: 2n, gen: 1n }
export const FILE: Oid = { ino: 0x1234n, gen: 0xdeadbeefn }
export const DIR: Oid = { ino: 0xffff_ffff_ffff_fffen, gen: 0x8000_0000_0000_0001n }
const TIME: Time = { seconds: 1_760_000_000n, nanoseconds: 123_456_789 }
const BEFORE_EPOCH: Time = { seconds: -2n, nanoseconds: 999_999_999 }
/** A name that is not UTF-8, with a newline in it. */
const NAME = Buffer.from([0x61, 0xff, 0x0a, 0xfe, 0x62])
const EMPTY = Buffer.alloc(0)

interface Vector {
  op: OpName
  about: string
  header: Omit<RecordHeader, 'seq' | 'clock'>
  fields: Record<string, unknown>
  payload: Buffer
}

function vector<Op extends OpName>(
  op: Op,
  about: string,
  header: Vector['header'],
  fields: FieldsOf<Op>,
  payload: Buffer = EMPTY,
): Vector {
  return { op, about, header, fields, payload }
}

const caller = { uid: 1000, gid: 1001, pid: 4242, comm: 'postgres' }
const file = { ...caller, oid: FILE, mtime: TIME, mode: 0o100644 }
const dir = { ...caller, oid: DIR, mtime: TIME, mode: 0o042755 }
const make = {
  parent: ROOT,
  pmtime: TIME,
  rdev: 0,
  requestedMode: 0o100666,
  umask: 0o027,
  uid: 1000,
  gid: 1001,
  name: NAME,
}
const plainName = Buffer.from('a file')

export const VECTORS: readonly Vector[] = [
  vector('BIND', 'the root', { oid: ROOT }, { parent: OID_ZERO, name: EMPTY }),
  vector('BIND', 'an object by name', { oid: FILE }, { parent: ROOT, name: NAME }),
  vector('MKNOD', 'a regular file', file, make),
  vector(
    'MKNOD',
    'a character device 4:70000, longest command name',
    { ...file, comm: 'sixteen-bytes-co', mode: 0o020600 },
    { ...make, rdev: 0x1111_0470, requestedMode: 0o020600, name: plainName },
  ),
  vector('MKDIR', 'a directory', dir, { ...make, requestedMode: 0o040777, name: plainName }),
  vector(
    'SYMLINK',
    'a symbolic link; the payload is its target',
    { ...file, mode: 0o120777 },
    { ...make, requestedMode: 0o120777 },
    Buffer.from('../some where'),
  ),
  vector('LINK', 'a second name', file, { parent: DIR, pmtime: TIME, name: NAME }),
  vector('UNLINK', 'one of two names', file, {
    parent: ROOT,
    pmtime: BEFORE_EPOCH,
    linksLeft: 1,
    name: NAME,
  }),
  vector('RMDIR', 'a directory', dir, {
    parent: ROOT,
    pmtime: TIME,
    linksLeft: 0,
    name: plainName,
  }),
  vector('RENAME', 'over an existing file', file, {
    oldParent: ROOT,
    oldPmtime: TIME,
    newParent: DIR,
    newPmtime: BEFORE_EPOCH,
    flags: 0,
    replaced: { ino: 99n, gen: 3n },
    replacedLinksLeft: 0,
    oldName: NAME,
    newName: plainName,
  }),
  vector('RENAME', 'exchange of two', file, {
    oldParent: ROOT,
    oldPmtime: TIME,
    newParent: ROOT,
    newPmtime: TIME,
    flags: 2,
    replaced: DIR,
    replacedLinksLeft: 2,
    oldName: plainName,
    newName: NAME,
  }),
  vector('TMPFILE', 'a file without a name', file, {
    parent: DIR,
    requestedMode: 0o100600,
    umask: 0o022,
    uid: 1000,
    gid: 1001,
  }),
  vector(
    'WRITE',
    '5 bytes at an offset above 4 GiB, set-uid cleared',
    { ...file, flags: RecordFlag.KILLPRIV },
    { offset: 0x1_0000_0003n },
    Buffer.from('hello'),
  ),
  vector(
    'WRITE',
    'a store to a mapping: writer unknown, mtime unknown',
    { oid: FILE, flags: RecordFlag.MAPPED, mtime: null },
    { offset: 4096n },
    Buffer.alloc(16, 0xa5),
  ),
  vector('SETATTR', 'everything', file, {
    valid: 63,
    mode: 0o100640,
    uid: 1,
    gid: 2,
    size: 0x1_0000_0000n,
    atime: TIME,
    mtime: BEFORE_EPOCH,
  }),
  vector('SETATTR', 'the size only', file, {
    valid: 8,
    mode: 0,
    uid: 0,
    gid: 0,
    size: 0n,
    atime: null,
    mtime: null,
  }),
  vector(
    'SETXATTR',
    'user.origin, created',
    file,
    { flags: 1, name: Buffer.from('user.origin') },
    Buffer.from([0, 1, 2, 0xff]),
  ),
  vector('REMOVEXATTR', 'user.origin', file, { name: Buffer.from('user.origin') }),
  vector('FALLOCATE', 'a hole punched', file, {
    mode: 3,
    offset: 4096n,
    length: 8192n,
    sizeAfter: 65536n,
  }),
  vector('COPY', 'a range of another file', file, {
    source: DIR,
    sourceOffset: 1n,
    offset: 2n,
    length: 0x2_0000_0000n,
  }),
  vector('SETFLAGS', 'append-only', file, { value: 0x20 }),
  vector('SETXFLAGS', 'struct fsxattr', file, {
    value: Buffer.from(Array.from({ length: 28 }, (_, index) => index)),
  }),
  vector('GONE', 'the last user closed it', { oid: FILE }, {}),
  vector(
    'MARKER',
    'a named moment',
    { ...caller, oid: OID_ZERO },
    { name: Buffer.from('before-upgrade') },
    Buffer.from('{"by":"operator"}'),
  ),
  vector('SCAN_BEGIN', 're-capture', { flags: RecordFlag.RECOVERED }, { kind: 1 }),
  vector(
    'IMAGE',
    'a file with two xattrs',
    { ...file, flags: RecordFlag.RECOVERED },
    { uid: 1000, gid: 1001, rdev: 0, links: 2, size: 1_048_576n, flags: 0x10 },
    encodeImagePayload({
      target: EMPTY,
      xattrs: [
        { name: Buffer.from('user.a'), value: Buffer.from('1') },
        { name: Buffer.from('system.posix_acl_access'), value: Buffer.from([2, 0, 0, 0]) },
      ],
    }),
  ),
  vector(
    'IMAGE',
    'a symbolic link',
    { ...file, mode: 0o120777, flags: RecordFlag.RECOVERED },
    { uid: 0, gid: 0, rdev: 0, links: 1, size: 4n, flags: 0 },
    encodeImagePayload({ target: Buffer.from('/etc'), xattrs: [] }),
  ),
  vector('IMAGE_DATA', '3 bytes', { oid: FILE, flags: 4 }, { offset: 8192n }, Buffer.from('abc')),
  vector('IMAGE_HOLE', 'a hole', { oid: FILE, flags: 4 }, { offset: 0n, length: 8192n }),
  vector(
    'IMAGE_DIR',
    'a whole directory of two',
    { ...dir, flags: RecordFlag.RECOVERED },
    { range: 3, after: EMPTY, upTo: EMPTY },
    encodeDirPayload([
      { oid: FILE, mode: 0o100000, name: NAME },
      { oid: ROOT, mode: 0o040000, name: plainName },
    ]),
  ),
  vector(
    'IMAGE_ENTRY',
    'an entry that is gone',
    { oid: OID_ZERO, flags: 4 },
    {
      parent: ROOT,
      pmtime: TIME,
      present: 0,
      name: plainName,
    },
  ),
  vector('SCAN_END', 're-capture', { flags: RecordFlag.RECOVERED }, { kind: 1 }),
  vector(
    'CODES',
    'codes of two segments, the last one short, to compare with',
    { ...file, flags: RecordFlag.RECOVERED | RecordFlag.COMPARE },
    { offset: 65_536n, length: 65_636n },
    Buffer.from([...Array(32).keys()]),
  ),
  vector('IMAGE_LATER', 'a large file', { ...file, flags: 4 }, { offset: 0n, length: 1_048_577n }),
]

/** The last frame: three records, a missing seq at its start, inside and at its end. */
function severalRecords(firstSeq: bigint, previousChain: Buffer): Buffer {
  const seqs = [firstSeq + 1n, firstSeq + 2n, firstSeq + 4n]
  const records = seqs.map((seq) =>
    encodeRecord('WRITE', { ...file, seq, clock: CLOCK + seq }, { offset: seq }, Buffer.of(1)),
  )
  const lastSeq = firstSeq + 5n
  return encodeFrame({ uuid: UUID, epoch: EPOCH, records, previousChain, firstSeq, lastSeq })
}

/** All frames of the vectors, in one chain. */
export function encodeFrames(): { about: string; op: OpName | null; bytes: Buffer }[] {
  const frames: { about: string; op: OpName | null; bytes: Buffer }[] = []
  let previousChain: Buffer = CHAIN_START
  let seq = 1n
  for (const { op, about, header, fields, payload } of VECTORS) {
    const full = { ...header, seq, clock: CLOCK + seq }
    const record = encodeRecord(op, full, fields as FieldsOf<typeof op>, payload)
    const bytes = encodeFrame({ uuid: UUID, epoch: EPOCH, records: [record], previousChain })
    frames.push({ about, op, bytes })
    previousChain = new FrameView(bytes).chain
    seq += 1n
  }
  const bytes = severalRecords(seq, previousChain)
  frames.push({ about: 'three records; the seqs at +0, +3 and +5 are missing', op: null, bytes })
  return frames
}

/** The content of frames.json. */
export function encodeVectors() {
  return {
    about:
      'Golden vectors of docs/FORMAT.md, frame version 1 and record version 1. Made by npm run vectors. The frames are one journal: each continues the one before.',
    uuid: UUID.toString('hex'),
    epoch: EPOCH,
    frames: encodeFrames().map(({ about, op, bytes }, index) => {
      const vector = VECTORS[index]
      return {
        op,
        about,
        ...(vector === undefined
          ? {}
          : {
              header: describe(vector.header),
              fields: describe(vector.fields),
              payload: vector.payload.toString('hex'),
            }),
        hex: bytes.toString('hex'),
      }
    }),
  }
}

/** JSON that says everything: integers above 2^53 as strings, bytes as hex. */
function describe(value: unknown): unknown {
  if (typeof value === 'bigint') return value.toString()
  if (Buffer.isBuffer(value)) return value.toString('hex')
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([name, entry]) => [name, describe(entry)]))
}
