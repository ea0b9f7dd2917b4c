import { readFileSync } from 'node:fs'
import t from 'tap'
import { HoldfastError } from '../../src/lib/errors.js'
import { native } from '../../src/lib/native.js'
import { type FieldsOf, OP_NAMES, type OpName } from '../../src/record/fields.js'
import {
  chainValue,
  checkFrame,
  checkFrameFast,
  checkSuccession,
  encodeFrame,
  FrameView,
  JOURNAL_START,
} from '../../src/record/frame.js'
import { decodeDirPayload, decodeImagePayload } from '../../src/record/payload.js'
import { encodeRecord } from '../../src/record/record.js'
import { encodeFrames, encodeVectors, UUID, VECTORS } from '../vectors/frames.js'

const GOLDEN = new URL('../../../test/vectors/frames.json', import.meta.url)

function code(run: () => unknown): string {
  try {
    run()
  } catch (error) {
    return error instanceof HoldfastError ? error.code : String(error)
  }
  return 'none'
}

t.test('frame: the golden vectors are what this codec writes', async (t) => {
  const golden = JSON.parse(readFileSync(GOLDEN, 'utf8'))
  t.same(JSON.parse(JSON.stringify(encodeVectors())), golden)
})

t.test('frame: the golden vectors cover every operation', async (t) => {
  const covered = new Set(VECTORS.map(({ op }) => op))
  t.same(
    OP_NAMES.filter((name) => !covered.has(name)),
    [],
  )
})

t.test('frame: the golden vectors decode to what was encoded, in one chain', async (t) => {
  const golden = JSON.parse(readFileSync(GOLDEN, 'utf8'))
  let end = JOURNAL_START
  golden.frames.forEach(({ hex }: { hex: string }, index: number) => {
    const frame = checkFrame(Buffer.from(hex, 'hex'))
    t.ok(native.frameIsSound(frame.bytes), 'the data plane finds it good, too')
    checkSuccession(frame, UUID, end)
    end = { lastSeq: frame.lastSeq, chain: frame.chain }
    const vector = VECTORS[index]
    if (vector === undefined) return
    const [record] = [...frame.records()]
    t.ok(record)
    if (record === undefined) return
    t.equal(record.op, vector.op)
    t.same(record.fields, { op: vector.op, ...vector.fields }, vector.about)
    t.same(record.payload, vector.payload)
    t.equal(record.uid, vector.header.uid ?? 0)
    t.equal(record.comm.toString(), vector.header.comm ?? '')
    t.same(record.mtime, vector.header.mtime ?? null)
  })
})

t.test('frame: missing seqs inside the bounds are no damage', async (t) => {
  const last = encodeFrames().at(-1)
  t.ok(last)
  if (last === undefined) return
  const frame = checkFrame(last.bytes)
  t.equal(frame.recordCount, 3)
  t.equal([...frame.records()][0]?.seq, frame.firstSeq + 1n)
})

t.test('frame: an empty frame stands for missing seqs only', async (t) => {
  const bytes = encodeFrame({ uuid: UUID, epoch: 1, records: [], firstSeq: 5n, lastSeq: 6n })
  t.equal(checkFrame(bytes).recordCount, 0)
})

t.test('payload: images decode', async (t) => {
  const [image] = VECTORS.filter(({ op }) => op === 'IMAGE')
  const [dir] = VECTORS.filter(({ op }) => op === 'IMAGE_DIR')
  if (image === undefined || dir === undefined) throw new Error('no vectors')
  const { xattrs } = decodeImagePayload(image.payload)
  t.same(
    xattrs.map(({ name }) => name.toString()),
    ['user.a', 'system.posix_acl_access'],
  )
  t.equal(decodeDirPayload(dir.payload).length, 2)
  t.equal(
    code(() => decodeImagePayload(image.payload.subarray(0, 9))),
    'RECORD_FIELDS',
  )
  t.equal(
    code(() => decodeDirPayload(Buffer.concat([dir.payload, Buffer.alloc(1)]))),
    'RECORD_FIELDS',
  )
})

function sample(): Buffer {
  const fields: FieldsOf<'WRITE'> = { offset: 1n }
  const records = [1n, 2n].map((seq) =>
    encodeRecord('WRITE', { seq, clock: seq }, fields, Buffer.alloc(100, 7)),
  )
  return encodeFrame({ uuid: UUID, epoch: 1, records })
}

/** Changes a frame and makes its header consistent again. */
function resealed(change: (bytes: Buffer) => void): Buffer {
  const bytes = sample()
  change(bytes)
  chainValue(bytes).copy(bytes, 72)
  return bytes
}

t.test('frame: every violation has its code and its place', async (t) => {
  const cases: [string, Buffer][] = [
    ['FRAME_TRUNCATED', sample().subarray(0, 40)],
    ['FRAME_TRUNCATED', sample().subarray(0, 200)],
    ['FRAME_MAGIC', resealed((bytes) => bytes.write('XXXX', 0))],
    ['FRAME_VERSION', resealed((bytes) => bytes.writeUInt8(2, 4))],
    ['FRAME_FLAGS', resealed((bytes) => bytes.writeUInt8(1, 5))],
    ['FRAME_HEADER', resealed((bytes) => bytes.writeUInt16LE(81, 6))],
    ['FRAME_HEADER', resealed((bytes) => bytes.writeUInt32LE(8, 48))],
    ['FRAME_HEADER', resealed((bytes) => bytes.writeUInt32LE(5 << 20, 48))],
    ['FRAME_BODY_CRC', resealed((bytes) => bytes.writeUInt32LE(1, 52))],
    ['FRAME_RECORDS', resealed((bytes) => bytes.writeUInt32LE(3, 28))],
    ['RECORD_ORDER', resealed((bytes) => bytes.writeBigUInt64LE(1n, 40))],
    ['RECORD_ORDER', resealed((bytes) => bytes.writeBigUInt64LE(2n, 32))],
    ['RECORD_LENGTH', resealed((bytes) => bytes.writeUInt32LE(3, 80))],
    ['RECORD_TRUNCATED', resealed((bytes) => bytes.writeUInt32LE(4096, 80))],
  ]
  for (const [expected, bytes] of cases) {
    t.equal(
      code(() => checkFrame(bytes)),
      expected,
    )
    t.equal(
      code(() => checkFrameFast(bytes)),
      expected,
      'the data plane finds no good in it either',
    )
  }
})

t.test('frame: no flipped bit goes unseen', async (t) => {
  const bytes = sample()
  let unseen = 0
  for (let bit = 0; bit < bytes.length * 8; bit += 1) {
    const flipped = Buffer.from(bytes)
    const at = bit >> 3
    flipped.writeUInt8(flipped.readUInt8(at) ^ (1 << (bit & 7)), at)
    if (code(() => checkFrame(flipped)) === 'none') unseen += 1
    if (code(() => checkFrameFast(flipped)) === 'none') unseen += 1
  }
  t.equal(unseen, 0)
})

t.test('frame: succession tells a foreign volume, a gap and a fork apart', async (t) => {
  const frame = checkFrame(sample())
  const end = JOURNAL_START
  t.equal(
    code(() => checkSuccession(frame, Buffer.alloc(16, 1), end)),
    'FRAME_VOLUME',
  )
  t.equal(
    code(() => checkSuccession(frame, UUID, { ...end, lastSeq: 5n })),
    'FRAME_GAP',
  )
  t.equal(
    code(() => checkSuccession(frame, UUID, { ...end, chain: Buffer.alloc(8, 1) })),
    'FRAME_FORK',
  )
})

t.test('record: an unknown operation and bad fields are named', async (t) => {
  const bytes = encodeRecord('SCAN_END', { seq: 1n, clock: 1n }, { kind: 0 })
  const unknown = encodeFrame({ uuid: UUID, epoch: 1, records: [bytes] })
  unknown.writeUInt8(200, 80 + 24)
  t.equal(
    code(() => [...new FrameView(unknown).records()][0]?.op),
    'RECORD_OP',
  )
  const short = encodeFrame({ uuid: UUID, epoch: 1, records: [bytes] })
  short.writeUInt8(1, 80 + 24)
  t.equal(
    code(() => [...new FrameView(short).records()][0]?.fields),
    'RECORD_FIELDS',
  )
  const op: OpName = 'SCAN_END'
  t.equal(
    op,
    [...new FrameView(encodeFrame({ uuid: UUID, epoch: 1, records: [bytes] })).records()][0]?.op,
  )
})
