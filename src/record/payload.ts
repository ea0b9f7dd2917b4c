/** The two payloads with a structure of their own: IMAGE and IMAGE_DIR (docs/FORMAT.md). */
import { fieldsError, OID_BYTES, type Oid, readOid, slice, writeOid } from './fields.js'

export interface Xattr {
  readonly name: Buffer
  readonly value: Buffer
}

export interface ImagePayload {
  /** Target of a symbolic link; empty for anything else. */
  readonly target: Buffer
  readonly xattrs: readonly Xattr[]
}

export interface DirEntry {
  readonly oid: Oid
  /** st_mode; only the type is meaningful. */
  readonly mode: number
  readonly name: Buffer
}

/** Reads an IMAGE payload; RECORD_FIELDS when it does not add up. */
export function decodeImagePayload(bytes: Buffer): ImagePayload {
  try {
    const target = slice(bytes, 4, bytes.readUInt32LE(0))
    let at = 4 + target.length
    const xattrs: Xattr[] = []
    const count = bytes.readUInt16LE(at)
    at += 2
    for (let index = 0; index < count; index += 1) {
      const name = slice(bytes, at + 2, bytes.readUInt16LE(at))
      at += 2 + name.length
      const value = slice(bytes, at + 4, bytes.readUInt32LE(at))
      at += 4 + value.length
      xattrs.push({ name, value })
    }
    if (at !== bytes.length) throw new RangeError(`${bytes.length - at} bytes too many`)
    return { target, xattrs }
  } catch (cause) {
    throw fieldsError('IMAGE', 'the payload does not add up', cause)
  }
}

export function encodeImagePayload({ target, xattrs }: ImagePayload): Buffer {
  const parts = [u32(target.length), target, u16(xattrs.length)]
  for (const { name, value } of xattrs) {
    parts.push(u16(name.length), name, u32(value.length), value)
  }
  return Buffer.concat(parts)
}

/** Reads an IMAGE_DIR payload; RECORD_FIELDS when it does not add up. */
export function decodeDirPayload(bytes: Buffer): DirEntry[] {
  try {
    const entries: DirEntry[] = []
    let at = 4
    for (let left = bytes.readUInt32LE(0); left > 0; left -= 1) {
      const oid = readOid(bytes, at)
      const mode = bytes.readUInt32LE(at + OID_BYTES)
      const name = slice(bytes, at + 22, bytes.readUInt16LE(at + 20))
      at += 22 + name.length
      entries.push({ oid, mode, name })
    }
    if (at !== bytes.length) throw new RangeError(`${bytes.length - at} bytes too many`)
    return entries
  } catch (cause) {
    throw fieldsError('IMAGE_DIR', 'the payload does not add up', cause)
  }
}

export function encodeDirPayload(entries: readonly DirEntry[]): Buffer {
  const parts = [u32(entries.length)]
  for (const { oid, mode, name } of entries) {
    const head = Buffer.alloc(22)
    writeOid(head, 0, oid)
    head.writeUInt32LE(mode, OID_BYTES)
    head.writeUInt16LE(name.length, 20)
    parts.push(head, name)
  }
  return Buffer.concat(parts)
}

function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2)
  bytes.writeUInt16LE(value)
  return bytes
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}
