/**
 * A record as a change that a person can read: who did what to which path. Used by `journal tail`,
 * `journal show` and by programs through the library.
 */
import { SetattrValid, type Time } from '../record/fields.js'
import { RecordFlag } from '../record/layout.js'
import type { RecordView } from '../record/record.js'
import type { NameTable } from './names.js'

/** One change. Names are bytes; sizes and offsets in bytes; times in ns since the epoch. */
export interface Change {
  seq: bigint
  timeNs: bigint
  uid: number
  gid: number
  /** 0: the kernel, on behalf of a memory mapping. */
  pid: number
  command: Buffer
  /** Lower-case verb: `write`, `create`, `rename`, … */
  verb: string
  path: Buffer
  /** The second path of a rename, link or copy. */
  to?: Buffer
  offset?: bigint
  length?: bigint
  /** Particulars as text, e.g. `mode 0644`. */
  detail?: string
  /** Written by recovery or a scan, not by an application. */
  recovered: boolean
  /** Says only where an object is, or that it is gone: no change of the tree. */
  internal: boolean
}

type Particulars = Pick<Change, 'verb' | 'path'> &
  Partial<Pick<Change, 'to' | 'offset' | 'length' | 'detail' | 'internal'>>

/** Describes `record`; `names` must have seen the records before it, and sees this one here. */
export function describeChange(record: RecordView, names: NameTable): Change {
  // Removals are described by the names before them, everything else by those after.
  const particulars = describe(record, names)
  names.apply(record)
  const { flags } = record
  return {
    seq: record.seq,
    timeNs: record.clock,
    uid: record.uid,
    gid: record.gid,
    pid: record.pid,
    command: record.comm,
    internal: false,
    ...particulars,
    recovered: (flags & RecordFlag.RECOVERED) !== 0,
  }
}

function describe(record: RecordView, names: NameTable): Particulars {
  const { fields, oid } = record
  const self = () => names.pathOrIdentity(oid)
  switch (fields.op) {
    case 'BIND':
      return { verb: 'bind', path: names.entry(fields.parent, fields.name), internal: true }
    case 'GONE':
      return { verb: 'gone', path: self(), internal: true }
    case 'MKNOD':
    case 'MKDIR':
    case 'SYMLINK': {
      const path = names.entry(fields.parent, fields.name)
      const detail = `mode ${octal(record.mode)}`
      if (fields.op === 'MKDIR') return { verb: 'mkdir', path, detail }
      if (fields.op === 'SYMLINK') return { verb: 'symlink', path, to: record.payload }
      return { verb: fields.rdev === 0 ? 'create' : 'mknod', path, detail }
    }
    case 'LINK':
      return { verb: 'link', path: self(), to: names.entry(fields.parent, fields.name) }
    case 'UNLINK':
      return { verb: 'unlink', path: names.entry(fields.parent, fields.name) }
    case 'RMDIR':
      return { verb: 'rmdir', path: names.entry(fields.parent, fields.name) }
    case 'RENAME': {
      const path = names.entry(fields.oldParent, fields.oldName)
      const to = names.entry(fields.newParent, fields.newName)
      return { verb: fields.flags & 2 ? 'exchange' : 'rename', path, to }
    }
    case 'TMPFILE':
      return { verb: 'tmpfile', path: names.pathOrIdentity(fields.parent) }
    case 'WRITE': {
      const length = BigInt(record.payloadLength)
      const mapped = (record.flags & RecordFlag.MAPPED) !== 0
      const detail = mapped ? { detail: 'mapped' } : {}
      return { verb: 'write', path: self(), offset: fields.offset, length, ...detail }
    }
    case 'SETATTR':
      return { path: self(), ...describeSetattr(fields) }
    case 'SETXATTR': {
      const detail = `${fields.name.toString('latin1')}, ${record.payloadLength} bytes`
      return { verb: 'setxattr', path: self(), detail }
    }
    case 'REMOVEXATTR':
      return { verb: 'removexattr', path: self(), detail: fields.name.toString('latin1') }
    case 'FALLOCATE': {
      const { offset, length } = fields
      return { verb: fallocateVerb(fields.mode), path: self(), offset, length }
    }
    case 'COPY': {
      const { offset, length } = fields
      return { verb: 'copy', path: names.pathOrIdentity(fields.source), to: self(), offset, length }
    }
    case 'SETFLAGS':
      return { verb: 'setflags', path: self(), detail: `0x${fields.value.toString(16)}` }
    case 'SETXFLAGS':
      return { verb: 'setflags', path: self(), detail: 'extended' }
    case 'MARKER':
      return { verb: 'marker', path: fields.name }
    case 'IMAGE':
      return {
        verb: 'image',
        path: self(),
        length: fields.size,
        detail: `mode ${octal(record.mode)}`,
      }
    case 'IMAGE_DATA': {
      const length = BigInt(record.payloadLength)
      return { verb: 'image-data', path: self(), offset: fields.offset, length }
    }
    case 'IMAGE_HOLE':
      return { verb: 'image-hole', path: self(), offset: fields.offset, length: fields.length }
    case 'CODES':
      return { verb: 'codes', path: self(), offset: fields.offset, length: fields.length }
    case 'IMAGE_LATER':
      return { verb: 'image-later', path: self(), offset: fields.offset, length: fields.length }
    case 'IMAGE_DIR':
      return { verb: 'image-dir', path: self() }
    case 'IMAGE_ENTRY': {
      const detail = fields.present === 1 ? 'present' : 'absent'
      return { verb: 'image-entry', path: names.entry(fields.parent, fields.name), detail }
    }
    case 'SCAN_BEGIN':
    case 'SCAN_END': {
      const verb = fields.op === 'SCAN_BEGIN' ? 'scan-begin' : 'scan-end'
      return { verb, path: Buffer.from('.'), detail: SCAN_KINDS[fields.kind] ?? `${fields.kind}` }
    }
  }
}

const SCAN_KINDS = ['recovery', 're-capture', 'baseline', 'comparison', 'repair']

interface SetattrFields {
  valid: number
  mode: number
  uid: number
  gid: number
  size: bigint
  atime: Time
  mtime: Time
}

/** One verb when one thing is set, `setattr` with all of them otherwise. */
function describeSetattr(fields: SetattrFields): Pick<Change, 'verb'> & Partial<Change> {
  const { valid } = fields
  const parts: [string, string][] = []
  if (valid & SetattrValid.size) parts.push(['truncate', `size ${fields.size}`])
  if (valid & SetattrValid.mode) parts.push(['chmod', `mode ${octal(fields.mode)}`])
  if (valid & SetattrValid.uid) parts.push(['chown', `uid ${fields.uid}`])
  if (valid & SetattrValid.gid) parts.push(['chown', `gid ${fields.gid}`])
  if (valid & SetattrValid.atime) parts.push(['utimes', 'atime'])
  if (valid & SetattrValid.mtime) parts.push(['utimes', 'mtime'])
  const verbs = new Set(parts.map(([verb]) => verb))
  const detail = parts.map(([, text]) => text).join(', ')
  const [only] = verbs
  return { verb: verbs.size === 1 && only !== undefined ? only : 'setattr', detail }
}

const FALLOC = { keepSize: 1, punchHole: 2, collapse: 8, zero: 16, insert: 32 } as const

function fallocateVerb(mode: number): string {
  if (mode & FALLOC.punchHole) return 'punch'
  if (mode & FALLOC.collapse) return 'collapse'
  if (mode & FALLOC.zero) return 'zero'
  if (mode & FALLOC.insert) return 'insert'
  return 'allocate'
}

function octal(mode: number): string {
  return `0${(mode & 0o7777).toString(8).padStart(3, '0')}`
}
