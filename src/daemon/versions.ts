/** What a history tells, as it travels: JSON values, seqs as numbers. */
import type {
  ChangedObjects,
  PathObject,
  VersionAttributes,
  VersionChange,
} from '../lib/native-history.js'

export interface Attributes {
  ino: string
  size: number
  mode: number
  uid: number
  gid: number
  /** ISO 8601. */
  mtime: string
}

/** One version of an object: what it was, from the change that made it to the one that ended it. */
export interface Version extends Attributes {
  /** null: it was there before the history began. */
  made: Change | null
  /** null: it is there now. */
  ended: Change | null
}

export interface Change {
  seq: number
  time: string
  op: string
  uid: number
  gid: number
  pid: number
  command: string
}

/** One object that a path led to, its versions newest first. */
export interface ObjectVersions {
  ino: string
  /** The change that took the name from it; null: it has it. */
  gone: Change | null
  versions: Version[]
}

/** Inode numbers as base64 of 8 bytes each, little-endian; null: not known. */
export interface ChangedWire {
  objects: string | null
  directories: string | null
}

export function changedToWire(changed: ChangedObjects | null): ChangedWire {
  const pack = (numbers: BigUint64Array | undefined) => {
    if (numbers === undefined) return null
    const { buffer, byteOffset, byteLength } = numbers
    return Buffer.from(buffer, byteOffset, byteLength).toString('base64')
  }
  return { objects: pack(changed?.objects), directories: pack(changed?.directories) }
}

export function changedFromWire({ objects, directories }: ChangedWire): ChangedObjects | undefined {
  const unpack = (text: string) =>
    new BigUint64Array(Uint8Array.from(Buffer.from(text, 'base64')).buffer)
  if (objects === null) return undefined
  return {
    objects: unpack(objects),
    directories: directories === null ? undefined : unpack(directories),
  }
}

export function toWire(objects: readonly PathObject[]): ObjectVersions[] {
  return objects.map(({ ino, ended, changes, now }) => {
    const versions: Version[] = []
    let made: Change | null = null
    for (const change of changes) {
      const next = changeOf(change)
      if (change.before !== undefined) {
        versions.push({ ...attributesOf(change.before), made, ended: next })
      }
      made = next
    }
    if (now !== undefined) versions.push({ ...attributesOf(now), made, ended: null })
    return {
      ino: `${ino}`,
      gone: ended === undefined ? null : changeOf(ended),
      versions: versions.reverse(),
    }
  })
}

function attributesOf({ ino, size, mode, uid, gid, mtimeNs }: VersionAttributes): Attributes {
  const mtime = new Date(Number(mtimeNs / 1_000_000n)).toISOString()
  return { ino: `${ino}`, size, mode, uid, gid, mtime }
}

function changeOf({ seq, timeMs, op, uid, gid, pid, command }: VersionChange): Change {
  return { seq: Number(seq), time: new Date(timeMs).toISOString(), op, uid, gid, pid, command }
}
