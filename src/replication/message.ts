/**
 * What two hosts say to each other, and how it is put on a stream. docs/PROTOCOL.md.
 *
 * A message: length of the rest (u32 LE), length of the header (u32 LE), the header (JSON), the
 * body (bytes; only frames have one). Every header is checked against its schema: a peer that says
 * anything else is disconnected with PROTOCOL.
 */
import { z } from 'zod'
import { HoldfastError } from '../lib/errors.js'
import { APPLY_DELAY_MS_MAX, MESSAGE_BYTES_MAX, MESSAGE_HEADER_BYTES_MAX } from '../lib/limits.js'
import { VERSION } from '../lib/version.js'
import { receiveMemory } from './frame-memory.js'
import { VerdictSchema } from './verdict.js'

/** Changes when either side would misunderstand the other. */
export const PROTOCOL = 2
const PREFIX_BYTES = 8

const seq = z.int().min(0)
const text = z.string().max(256)
const place = z.strictObject({ seq, chain: z.string().regex(/^[0-9a-f]{16}$/) })

const Schema = z.discriminatedUnion('type', [
  /** First message of whoever connects. `end`: last seq of its journal. */
  z.strictObject({
    type: z.literal('hello'),
    protocol: z.int(),
    version: text,
    host: text,
    volume: z.uuid(),
    name: text,
    epoch: z.int(),
    end: seq,
  }),
  /** The replica's answer: where it is. `logged` is null when it has nothing. */
  z.strictObject({
    type: z.literal('welcome'),
    protocol: z.int(),
    version: text,
    host: text,
    logged: place.nullable(),
    applied: seq,
    baseline: z.boolean(),
    /** It has a tree: of a baseline, codes will do. */
    tree: z.boolean(),
  }),
  /** The connection ends, for this reason. */
  z.strictObject({ type: z.literal('refuse'), code: text, message: z.string().max(4096) }),
  /** Forget the log: the next frame follows this place, and a baseline is in it. */
  z.strictObject({ type: z.literal('reset'), at: place }),
  /** One frame of the journal, as its body; `unsent`: bytes of changes behind it. */
  z.strictObject({
    type: z.literal('frame'),
    end: seq,
    authorised: seq,
    unsent: seq.optional(),
  }),
  /** The log has advanced to `end`; up to `authorised` it may be applied. */
  z.strictObject({ type: z.literal('advance'), end: seq, authorised: seq }),
  /** Apply so much later than it was captured; `clockMs`: the primary's wall clock now. */
  z.strictObject({
    type: z.literal('delay'),
    applyMs: z.int().min(0).max(APPLY_DELAY_MS_MAX),
    clockMs: z.int(),
  }),
  /** Up to `logged` it is durable at the replica, up to `applied` it is in its tree. */
  z.strictObject({
    type: z.literal('ack'),
    logged: seq,
    applied: seq,
    baseline: z.boolean(),
    /** The reset that was heard on this connection: what was said before it counts no more. */
    since: seq.nullable(),
    failure: z.strictObject({ code: text, message: z.string().max(4096) }).nullable(),
    /** Objects of which its tree lacks something; what comparisons have said of it. */
    needs: z.int().min(0),
    verdict: VerdictSchema,
  }),
  /** A comparison has found this; the path in base64, for it is bytes. */
  z.strictObject({
    type: z.literal('difference'),
    seq,
    path: z.string().max(8192),
    what: text,
    from: seq,
    to: seq,
  }),
  /** What does the tree lack? */
  z.strictObject({ type: z.literal('want') }),
  /** Its body: ino, gen, from, to (u64 LE each) of what lacks. */
  z.strictObject({ type: z.literal('need') }),
  /** Its body: a range of a file as it is now; see native-bindings/src/fill.rs. */
  z.strictObject({ type: z.literal('fill') }),
  z.strictObject({ type: z.literal('ping') }),
  /** The replica lacks what comes after `logged`, and has not got it: from there again. */
  z.strictObject({ type: z.literal('again'), logged: place.nullable() }),
  /** A replica that it feeds needs a baseline that begins after this seq; null: no longer. */
  z.strictObject({ type: z.literal('baseline'), after: seq.nullable() }),
  /** First message of a replica that connects: `hello` for this volume, please. */
  z.strictObject({
    type: z.literal('follow'),
    protocol: z.int(),
    version: text,
    host: text,
    volume: text,
  }),
  /** First message of whoever coordinates a group: `ask` follows. */
  z.strictObject({ type: z.literal('coordinate'), protocol: z.int(), version: text, host: text }),
  z.strictObject({ type: z.literal('coordinated'), host: text, version: text }),
  /** A question, its particulars as the body, and what comes of it (src/group/calls.ts). */
  z.strictObject({ type: z.literal('ask'), id: seq, method: text }),
  z.strictObject({ type: z.literal('answer'), id: seq, failed: z.boolean() }),
  /** By the secret of a pasted token: makes two hosts peers. */
  z.strictObject({ type: z.literal('introduce'), secret: text, name: text }),
  z.strictObject({ type: z.literal('introduced'), name: text }),
])

export type Header = z.infer<typeof Schema>
export type HeaderOf<Type extends Header['type']> = Extract<Header, { type: Type }>
/** A place in a journal, as messages write it. */
export type WirePlace = z.infer<typeof place>

export interface Message {
  header: Header
  /** Of a frame or fill it is to be copied by whoever keeps it: its memory is used again, unless it is `own`. */
  body: Buffer
  /** The body again, where nothing else is in its memory: whoever takes it may give it away. */
  own?: Buffer<ArrayBuffer>
}

const WITH_BODY: ReadonlySet<Header['type']> = new Set(['frame', 'need', 'fill', 'ask', 'answer'])
const NO_BODY: Buffer = Buffer.alloc(0)

/** The pieces to write, in order; the body is not copied. */
export function encodeMessage(header: Header, body: Buffer = NO_BODY): Buffer[] {
  const head = encodeHead(header, body.length)
  return body.length === 0 ? [head] : [head, body]
}

/** What stands in front of a body of so many bytes; as long in front of any. */
export function encodeHead(header: Header, bodyBytes: number): Buffer {
  const json = Buffer.from(JSON.stringify(header))
  const head = Buffer.allocUnsafe(PREFIX_BYTES + json.length)
  head.writeUInt32LE(4 + json.length + bodyBytes, 0)
  head.writeUInt32LE(json.length, 4)
  json.copy(head, PREFIX_BYTES)
  return head
}

/**
 * Cuts a stream into messages; holds at most one that is not whole yet, of at most `bytesMax`, in
 * little more memory than it is long, in however small pieces it comes.
 */
export class MessageReader {
  bytesMax: number
  /** The beginning of a prefix. */
  #short = NO_BODY
  #partial: { bytes: Buffer<ArrayBuffer>; filled: number; header: number } | undefined
  /** What follows the message that was given last, until the next is asked for. */
  #left: Buffer = NO_BODY

  constructor({ bytesMax = MESSAGE_BYTES_MAX } = {}) {
    this.bytesMax = bytesMax
  }

  /** Messages that are complete with `piece`. PROTOCOL. */
  *push(piece: Buffer): Generator<Message> {
    let rest = piece
    if (this.#partial !== undefined) {
      const { bytes, filled, header } = this.#partial
      const taken = isAt(bytes, filled, rest) ? rest.length : rest.copy(bytes, filled)
      this.#partial.filled += taken
      if (this.#partial.filled < bytes.length) return
      this.#partial = undefined
      rest = rest.subarray(taken)
      this.#left = rest
      const message = decode(bytes, header)
      yield { ...message, own: bytes.subarray(bytes.length - message.body.length) }
      this.#left = NO_BODY
    }
    if (this.#short.length > 0) rest = Buffer.concat([this.#short, rest])
    this.#short = NO_BODY
    while (rest.length >= PREFIX_BYTES) {
      const { total, header } = this.#sizes(rest)
      if (rest.length < total) {
        const bytes = receiveMemory.take(total)
        this.#partial = { bytes, filled: rest.copy(bytes), header }
        return
      }
      const message = decode(rest.subarray(0, total), header)
      rest = rest.subarray(total)
      this.#left = rest
      yield message
      this.#left = NO_BODY
    }
    this.#short = Buffer.from(rest)
  }

  /** Where the rest of a message is to lie that has begun: what is pushed from there is not copied. */
  get wanted(): Buffer | undefined {
    return this.#partial?.bytes.subarray(this.#partial.filled)
  }

  /** After the first message of a `push` was taken and the others were not: what is left of it. */
  rest(): Buffer {
    const { bytes, filled } = this.#partial ?? { bytes: NO_BODY, filled: 0 }
    return Buffer.concat([this.#left, bytes.subarray(0, filled), this.#short])
  }

  #sizes(head: Buffer): { total: number; header: number } {
    const total = 4 + head.readUInt32LE(0)
    const header = head.readUInt32LE(4)
    if (total > this.bytesMax || header > MESSAGE_HEADER_BYTES_MAX) {
      throw protocolError(`a message of ${total} bytes with a header of ${header}`)
    }
    if (PREFIX_BYTES + header > total) throw protocolError('a header longer than its message')
    return { total, header }
  }
}

/** `piece` lies in `bytes` already, from `offset` on. */
function isAt(bytes: Buffer, offset: number, piece: Buffer): boolean {
  return piece.buffer === bytes.buffer && piece.byteOffset === bytes.byteOffset + offset
}

function decode(bytes: Buffer, headerBytes: number): Message {
  let json: unknown
  try {
    json = JSON.parse(bytes.toString('utf8', PREFIX_BYTES, PREFIX_BYTES + headerBytes))
  } catch (cause) {
    throw protocolError('a header that is no JSON', cause)
  }
  const parsed = Schema.safeParse(json)
  if (!parsed.success) {
    const [issue] = parsed.error.issues
    throw protocolError(
      `a header that is not understood: ${issue?.path.join('.')} ${issue?.message}`,
    )
  }
  const { type } = parsed.data
  const body = bytes.subarray(PREFIX_BYTES + headerBytes)
  if (body.length > 0 && !WITH_BODY.has(type)) throw protocolError(`${type} with a body`)
  // Others are small, and may wait for their turn.
  const passes = type === 'frame' || type === 'fill'
  return { header: parsed.data, body: passes ? body : Buffer.from(body) }
}

function protocolError(what: string, cause?: unknown): HoldfastError {
  return new HoldfastError('PROTOCOL', `the peer sent ${what}`, {
    op: 'replication.receive',
    cause,
    hint: 'Is that a holdfast of a version that fits? See `holdfast version` on both hosts.',
  })
}

/** PROTOCOL_VERSION, with both versions named. */
export function versionMismatch(other: { protocol: number; version: string }): HoldfastError {
  const message =
    `protocol ${other.protocol} of holdfast ${other.version} there, ` +
    `protocol ${PROTOCOL} of holdfast ${VERSION} here`
  return new HoldfastError('PROTOCOL_VERSION', message, {
    op: 'replication.handshake',
    hint: 'Install versions that speak the same protocol on both hosts.',
  })
}
