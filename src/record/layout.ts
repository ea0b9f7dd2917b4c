/** The numbers of docs/FORMAT.md sections 1 and 2; nothing else knows them. */

export const FRAME_MAGIC = 'HFJF'
export const FRAME_VERSION = 1
export const FRAME_HEADER_BYTES = 80
/** Bytes of the header that the chain value covers. */
export const FRAME_CHAINED_BYTES = 72
export const FRAME_BODY_BYTES_MAX = 4 * 1024 * 1024
export const CHAIN_BYTES = 8
/** Chain value before the first frame of a journal. */
export const CHAIN_START = Buffer.alloc(CHAIN_BYTES)
export const UUID_BYTES = 16

export const RECORD_HEADER_BYTES = 96
export const RECORD_BYTES_MAX = 1024 * 1024 + 128 * 1024
export const RECORD_ALIGN = 8
export const COMM_BYTES = 16
/** Nanoseconds value of a time that is not known. */
export const TIME_UNKNOWN_NS = 0xffff_ffff

/** Record flags. */
export const RecordFlag = { KILLPRIV: 1, MAPPED: 2, RECOVERED: 4, COMPARE: 8 } as const

/** Offsets in a frame's header. */
export const FrameAt = {
  magic: 0,
  version: 4,
  flags: 5,
  headerLength: 6,
  uuid: 8,
  epoch: 24,
  records: 28,
  firstSeq: 32,
  lastSeq: 40,
  bodyLength: 48,
  bodyCrc: 52,
  clock: 56,
  previousChain: 64,
  chain: 72,
} as const

/** Offsets in a record's header. */
export const RecordAt = {
  length: 0,
  crc: 4,
  seq: 8,
  clock: 16,
  op: 24,
  flags: 25,
  fieldsLength: 26,
  payloadLength: 28,
  uid: 32,
  gid: 36,
  pid: 40,
  reserved: 44,
  comm: 48,
  oid: 64,
  mtime: 80,
  mode: 92,
} as const
