/** Words that name a range of an object: ino, gen, from, to. */
const RANGE_WORDS = 4

/** The set of objects that records mention. */
import { type Fields, type Oid, oidIsZero, oidKey } from './fields.js'
import type { RecordView } from './record.js'

export class Oids {
  readonly #known = new Map<string, Oid>()

  add(oid: Oid): void {
    if (!oidIsZero(oid)) this.#known.set(oidKey(oid), oid)
  }

  /** The record's object, and its parents, source or replaced object. */
  addAllOf(record: RecordView): void {
    this.add(record.oid)
    if (record.op === 'WRITE') return
    for (const oid of oidsOf(record.fields)) this.add(oid)
  }

  /** Whole objects, as the data plane takes them: [ino, gen, 0, 0, …]. */
  toArray(): BigUint64Array {
    const words = new BigUint64Array(this.#known.size * RANGE_WORDS)
    let at = 0
    for (const { ino, gen } of this.#known.values()) {
      words[at] = ino
      words[at + 1] = gen
      at += RANGE_WORDS
    }
    return words
  }
}

function oidsOf(fields: Fields): Oid[] {
  switch (fields.op) {
    case 'BIND':
    case 'MKNOD':
    case 'MKDIR':
    case 'SYMLINK':
    case 'LINK':
    case 'UNLINK':
    case 'RMDIR':
    case 'TMPFILE':
    case 'IMAGE_ENTRY':
      return [fields.parent]
    case 'RENAME':
      return [fields.oldParent, fields.newParent, fields.replaced]
    case 'COPY':
      return [fields.source]
    default:
      return []
  }
}
