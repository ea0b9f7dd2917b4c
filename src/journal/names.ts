/**
 * Where objects are, as far as records tell: oid → path. Records name objects by identity; BIND and
 * the records that put objects under names say where they are (docs/FORMAT.md, "Identity").
 *
 * The data plane renews all bindings now and then, from the root downwards: a reader may start at
 * any frame with a BIND of the root and will be told every name it needs.
 */
import { type Fields, type Oid, oidIsZero, oidKey } from '../record/fields.js'
import type { FrameView } from '../record/frame.js'
import { decodeDirPayload } from '../record/payload.js'
import type { RecordView } from '../record/record.js'
import type { Journal } from './store.js'

const RENAME_EXCHANGE = 2
/** Directories nested deeper than the kernel's PATH_MAX allows are a loop in damaged names. */
const DEPTH_MAX = 4096
const SLASH = Buffer.from('/')

interface Place {
  parent: string
  name: Buffer
}

export class NameTable {
  readonly #places = new Map<string, Place>()
  #root: string | undefined

  /** Number of objects with a known name. */
  get size(): number {
    return this.#places.size
  }

  /** Learns what `record` says about names. Records in seq order. */
  apply(record: RecordView): void {
    // Most records are these; they name nothing.
    if (record.op === 'WRITE' || record.op === 'SETATTR' || record.op === 'IMAGE_DATA') return
    const { oid, fields } = record
    this.#apply(oid, fields, record)
  }

  #apply(oid: Oid, fields: Fields, record: RecordView): void {
    switch (fields.op) {
      case 'BIND':
        if (oidIsZero(fields.parent) && fields.name.length === 0) this.#root = oidKey(oid)
        else this.#put(oid, fields.parent, fields.name)
        break
      case 'MKNOD':
      case 'MKDIR':
      case 'SYMLINK':
      case 'LINK':
        this.#put(oid, fields.parent, fields.name)
        break
      case 'UNLINK':
      case 'RMDIR':
        this.#drop(oid, fields.parent, fields.name)
        break
      case 'RENAME':
        if (fields.flags & RENAME_EXCHANGE)
          this.#put(fields.replaced, fields.oldParent, fields.oldName)
        else this.#drop(fields.replaced, fields.newParent, fields.newName)
        this.#put(oid, fields.newParent, fields.newName)
        break
      case 'GONE':
        this.#places.delete(oidKey(oid))
        break
      case 'IMAGE_ENTRY':
        if (fields.present === 1) this.#put(oid, fields.parent, fields.name)
        break
      case 'IMAGE_DIR':
        for (const entry of decodeDirPayload(record.payload)) this.#put(entry.oid, oid, entry.name)
        break
      default:
        break
    }
  }

  /** Path of an object relative to the volume, `.` for the root; undefined when not known. */
  path(oid: Oid): Buffer | undefined {
    return this.#join(oidKey(oid), [])
  }

  /** Path of the entry `name` in the directory `parent`; the parent's identity if unknown. */
  entry(parent: Oid, name: Buffer): Buffer {
    return this.#join(oidKey(parent), [name]) ?? Buffer.concat([identity(parent), SLASH, name])
  }

  /** Path of the object, or its identity in angle brackets. */
  pathOrIdentity(oid: Oid): Buffer {
    return this.path(oid) ?? identity(oid)
  }

  #join(start: string, below: Buffer[]): Buffer | undefined {
    const parts = below
    let at = start
    for (let depth = 0; at !== this.#root; depth += 1) {
      const place = this.#places.get(at)
      if (place === undefined || depth > DEPTH_MAX) return undefined
      parts.unshift(place.name)
      at = place.parent
    }
    if (parts.length === 0) return Buffer.from('.')
    return Buffer.concat(parts.flatMap((part, index) => (index === 0 ? [part] : [SLASH, part])))
  }

  #put(oid: Oid, parent: Oid, name: Buffer): void {
    // A copy: the frame's memory must not be kept alive by a name.
    this.#places.set(oidKey(oid), { parent: oidKey(parent), name: Buffer.from(name) })
  }

  #drop(oid: Oid, parent: Oid, name: Buffer): void {
    const key = oidKey(oid)
    const place = this.#places.get(key)
    if (place !== undefined && place.parent === oidKey(parent) && place.name.equals(name)) {
      this.#places.delete(key)
    }
  }
}

function identity(oid: Oid): Buffer {
  return Buffer.from(`<${oidKey(oid)}>`)
}

/** Whether a reader may start at `frame`: it has a BIND of the root. */
export function startsNames(frame: FrameView): boolean {
  for (const record of frame.records()) {
    if (record.op !== 'BIND') continue
    const { fields } = record
    if (fields.op === 'BIND' && oidIsZero(fields.parent) && fields.name.length === 0) return true
  }
  return false
}

/**
 * First seq of the last frame at or before `seq` at which names can be learnt; the journal's first
 * frame when none has a BIND of the root. Reads backwards, usually at most 64 MiB.
 */
export function namesFrom(journal: Journal, seq: bigint): bigint {
  let first = 0n
  for (const frame of journal.frames({ to: seq, reverse: true })) {
    first = frame.firstSeq
    if (startsNames(frame)) break
  }
  return first
}
