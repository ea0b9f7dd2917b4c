/** Differences of two trees, for people and for programs. */
import { formatBytes, formatCount, formatTime } from '../lib/format.js'
import { printable } from '../lib/printable.js'
import type { ChangeKind, TreeChange } from '../lib/tree.js'
import { out } from './output.js'
import { nameJson } from './render-change.js'

const WIDTH = 8
const SLASH = Buffer.from('/')
const NUL = Buffer.from([0])

const COLOURS: Record<ChangeKind, (text: string) => string> = {
  created: out.green,
  deleted: out.red,
  renamed: out.cyan,
  changed: out.yellow,
  metadata: out.dim,
}

/** Of directories, that only the time differs goes without saying: something in them has changed. */
export function isQuiet({ kind, object, what }: TreeChange): boolean {
  return kind === 'metadata' && object === 'directory' && what.length === 1 && what[0] === 'mtime'
}

/** `changed   mail/inbox  data,mtime  1.2 MiB` */
export function changeText(change: TreeChange): string {
  const { kind, path, from, object, what, size, ranges, linked } = change
  const shown = (name: Buffer) =>
    `${name.length === 0 ? '.' : printable(name)}${object === 'directory' ? '/' : ''}`
  const name = from === undefined ? shown(path) : `${shown(from)} → ${shown(path)}`
  const sized = object === 'file' && !linked && kind !== 'metadata' && what.join() !== 'mtime'
  const notes = [
    linked ? 'a further name' : object === 'file' || object === 'directory' ? '' : object,
    what.join(','),
    sized && (kind !== 'renamed' || what.length > 0) ? formatBytes(size) : '',
    ...ranges.map(([begin, end]) => `${begin}+${end - begin}`),
  ].filter((note) => note !== '')
  const tail = notes.length === 0 ? '' : `  ${out.dim(notes.join('  '))}`
  return `${COLOURS[kind](kind.padEnd(WIDTH))}  ${name}${tail}`
}

/** The same as JSON values; names that are no UTF-8 also as base64 under `…Base64`. */
export function treeChangeJson(change: TreeChange): Record<string, unknown> {
  const { kind, path, from, object, what, size, mtimeNs, ranges, linked } = change
  return {
    kind,
    ...nameJson('path', path),
    ...(from === undefined ? {} : nameJson('from', from)),
    object,
    ...(what.length === 0 ? {} : { what }),
    size,
    mtime: formatTime(mtimeNs, 9),
    ...(ranges.length === 0 ? {} : { ranges }),
    ...(linked ? { linked } : {}),
  }
}

/** The path with a NUL behind it; of what was renamed, the old one too. */
export function changeNul({ path, from }: TreeChange): Buffer {
  const one = (name: Buffer) => [name.length === 0 ? Buffer.from('.') : name, NUL]
  return Buffer.concat([...(from === undefined ? [] : one(from)), ...one(path)])
}

/**
 * Paths for `restic backup --files-from-raw`, absolute, each with a NUL behind it. restic takes a
 * directory with all that is in it: of what was created or renamed only the uppermost is listed, and
 * directories of which only metadata differ are not, for that would be everything in them.
 */
export class ResticFiles {
  readonly #root: Buffer
  #whole: Buffer | undefined

  constructor(root: Buffer) {
    this.#root = root
  }

  /** Call in the order of paths; empty when nothing is to be listed. */
  list({ kind, path, object }: TreeChange): Buffer {
    const inside =
      this.#whole !== undefined && path.subarray(0, this.#whole.length).equals(this.#whole)
    if (kind === 'deleted' || inside) return Buffer.alloc(0)
    if (object === 'directory') {
      if (kind !== 'created' && kind !== 'renamed') return Buffer.alloc(0)
      this.#whole = Buffer.concat([path, SLASH])
    }
    return Buffer.concat([this.#root, SLASH, path, NUL])
  }
}

/** Counts of what differs. */
export class Tally {
  readonly counts: Record<ChangeKind, number> = {
    created: 0,
    deleted: 0,
    changed: 0,
    renamed: 0,
    metadata: 0,
  }
  /** Bytes of files that were created or changed. */
  bytes = 0n

  add({ kind, object, size, what, linked }: TreeChange): void {
    this.counts[kind] += 1
    const written = (kind === 'created' && !linked) || what.includes('data')
    if (object === 'file' && written) this.bytes += size
  }

  get total(): number {
    return Object.values(this.counts).reduce((sum, count) => sum + count, 0)
  }

  /** `3 created, 1 deleted; 1.2 MiB in files created or changed` */
  text(): string {
    const parts = Object.entries(this.counts)
      .filter(([, count]) => count > 0)
      .map(([kind, count]) => `${formatCount(count)} ${kind}`)
    if (parts.length === 0) return 'no differences'
    const bytes = this.bytes > 0n ? `; ${formatBytes(this.bytes)} in files created or changed` : ''
    return `${parts.join(', ')}${bytes}`
  }

  toJSON(): Record<string, unknown> {
    return { ...this.counts, bytes: Number(this.bytes) }
  }
}
