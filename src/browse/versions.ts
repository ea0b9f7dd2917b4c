/**
 * The versions of one path: what the history knows of the objects that the name led to, each as a file
 * that is read from the frozen view of a moment at which it was so.
 *
 * Only what the name led to at that time is shown under it: before it was renamed, an object had
 * another name, and is found there.
 */
import { constants } from 'node:fs'
import { type FileHandle, lstat, open, readlink } from 'node:fs/promises'
import type { Change, ObjectVersions, Version } from '../daemon/versions.js'
import { BROWSE_BURST_MS, BROWSE_PATHS_MAX, BROWSE_VERSIONS_MAX } from '../lib/limits.js'
import { namePiece, shownName, shownTime } from './names.js'
import { type Attributes, type FileNode, type Node, type OpenFile, openBytes } from './node.js'
import type { Past } from './past.js'
import type { SharedViews } from './views.js'

const FORMAT = 0o170000
const REGULAR = 0o100000
const SYMLINK = 0o120000
const DIRECTORY = 0o040000
/** A queue must not be waited for, nor a link followed out of the view. */
const OPEN_FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK

/** One version, and a moment at which the path led to it. */
interface Shown {
  name: string
  version: Version
  seq: bigint
}

/** Between which moments a name led where it is looked for. */
interface Bounds {
  since: bigint
  asOf: bigint | undefined
}

export interface VersionsOf {
  path: Buffer
  /** Its directory is looked for as of this moment; undefined: as it is. */
  asOf: bigint | undefined
}

export class Versions {
  readonly #past: Past
  readonly #views: SharedViews
  /** Whether a path led to an object at a moment: never changes. */
  readonly #led = new Map<string, boolean>()

  constructor(past: Past, views: SharedViews) {
    this.#past = past
    this.#views = views
  }

  /** Newest first. */
  async list(of: VersionsOf): Promise<Shown[]> {
    const objects = await this.#past.objectsOf(of.path, of.asOf)
    const bounds = { since: await this.#renamedAt(of), asOf: of.asOf }
    const found: Shown[] = []
    for (const object of objects) {
      for (const shown of await this.#ofObject(object, of.path, bounds)) {
        const isNew = found.every(({ name }) => name !== shown.name)
        found.push(isNew ? shown : { ...shown, name: `${shown.name} inode-${object.ino}` })
        if (found.length >= BROWSE_VERSIONS_MAX) return found
      }
    }
    return found
  }

  async #ofObject(object: ObjectVersions, path: Buffer, bounds: Bounds): Promise<Shown[]> {
    const { mode } = await this.#past.range()
    const found: Shown[] = []
    let newer: Change | null = null
    for (const version of object.versions) {
      const isPassing =
        mode === 'continuous' &&
        newer !== null &&
        version.made !== null &&
        // The last of a burst must be within the bounds itself.
        (bounds.asOf === undefined || BigInt(newer.seq) <= bounds.asOf) &&
        isBurst(version.made, newer)
      newer = version.made
      if (isPassing) continue
      if (found.length >= BROWSE_VERSIONS_MAX) break
      const seq = await this.#momentOf(version, bounds)
      const isShown =
        seq !== undefined &&
        (version.mode & FORMAT) !== DIRECTORY &&
        // Not every change is kept of what lies between snapshots: only the view can tell.
        (mode === 'continuous' || (await this.#ledTo(path, seq, version.ino)))
      if (isShown) found.push({ name: nameOf(version), version, seq })
      const { made } = version
      if (made?.op === 'rename') break
      if (made?.op === 'link' && !(await this.#ledTo(path, BigInt(made.seq) - 1n, version.ino)))
        break
    }
    return found
  }

  /** A moment within `bounds` that shows this version. */
  async #momentOf({ made, ended }: Version, { since, asOf }: Bounds): Promise<bigint | undefined> {
    const from = BigInt(made?.seq ?? 0)
    if (asOf !== undefined && from > asOf) return undefined
    const { mode, fromSeq } = await this.#past.range()
    // Its very first moment, so that nothing that has happened since is mistaken for it.
    if (mode === 'continuous' && made !== null && from >= since && from >= (fromSeq ?? 0n)) {
      return from
    }
    const ends = [ended === null ? undefined : BigInt(ended.seq), asOf && asOf + 1n]
    const end = ends
      .filter((each) => each !== undefined)
      .reduce<bigint | undefined>((a, b) => (a === undefined || b < a ? b : a), undefined)
    const seq = await this.#past.momentBefore(end, from)
    return seq === undefined || seq < since ? undefined : seq
  }

  /** When one of the directories above a path was last renamed: before, it was another path. */
  async #renamedAt({ path, asOf }: VersionsOf): Promise<bigint> {
    const isThen = (change: Change | null) => asOf === undefined || BigInt(change?.seq ?? 0) <= asOf
    let last = 0n
    for (let at = path.lastIndexOf(0x2f); at > 0; at = path.lastIndexOf(0x2f, at - 1)) {
      const objects = await this.#past.objectsOf(path.subarray(0, at), asOf)
      // Of those that had the name, the one that had it then.
      const directory = objects.findLast(({ gone }) => {
        return gone === null || (asOf !== undefined && BigInt(gone.seq) > asOf)
      })
      const renamed = directory?.versions.find(({ made }) => made?.op === 'rename' && isThen(made))
      const seq = BigInt(renamed?.made?.seq ?? 0)
      if (seq > last) last = seq
    }
    return last
  }

  async #ledTo(path: Buffer, seq: bigint, ino: string): Promise<boolean> {
    const key = `${seq} ${ino} ${path.toString('latin1')}`
    const known = this.#led.get(key)
    if (known !== undefined) return known
    const led = await this.#views
      .use(seq, async (view) => `${(await lstat(below(view, path), { bigint: true })).ino}` === ino)
      .catch((error: unknown) => {
        if (isAbsent(error)) return false
        throw error
      })
    this.#led.set(key, led)
    const [oldest] = this.#led.keys()
    if (this.#led.size > BROWSE_PATHS_MAX && oldest !== undefined) this.#led.delete(oldest)
    return led
  }

  async node(of: VersionsOf, name: string): Promise<Node | undefined> {
    const shown = (await this.list(of)).find((each) => each.name === name)
    if (shown === undefined) return undefined
    const { version } = shown
    const attributes = async () => attributesOf(version)
    if ((version.mode & FORMAT) === SYMLINK) {
      return { kind: 'link', attributes, target: () => this.#target(of, shown) }
    }
    // Queues and devices have no contents.
    const isRegular = (version.mode & FORMAT) === REGULAR
    const file: FileNode = {
      kind: 'file',
      attributes,
      open: async () => (isRegular ? this.#open(of, shown) : openBytes(() => Buffer.alloc(0))),
    }
    return file
  }

  async #target({ path }: VersionsOf, { seq }: Shown): Promise<string> {
    return this.#views.use(seq, async (view) => {
      return shownName(await readlink(below(view, path), { encoding: 'buffer' }))
    })
  }

  async #open(of: VersionsOf, shown: Shown): Promise<OpenFile> {
    try {
      return await this.#openAt(of.path, shown)
    } catch (error) {
      // What counts as now may be older than a file that was made a moment ago.
      if (shown.version.ended !== null || !isAbsent(error)) throw error
      this.#past.forget()
      const again = (await this.list(of)).find(({ name }) => name === shown.name)
      if (again === undefined) throw error
      return this.#openAt(of.path, again)
    }
  }

  async #openAt(path: Buffer, { seq, version }: Shown): Promise<OpenFile> {
    const view = await this.#views.hold(seq)
    let file: FileHandle | undefined
    const close = async () => {
      const closing = file
      file = undefined
      await closing?.close()
      view.release()
    }
    try {
      file = await open(below(view.path, path), OPEN_FLAGS)
      const { ino } = await file.stat({ bigint: true })
      if (`${ino}` !== version.ino) {
        throw Object.assign(new Error('another object has the name'), { code: 'ENOENT' })
      }
      return { read: reader(file), close }
    } catch (error) {
      await close()
      throw error
    }
  }
}

function reader(file: FileHandle): OpenFile['read'] {
  return async (length, position) => {
    const bytes = Buffer.allocUnsafe(length)
    const { bytesRead } = await file.read(bytes, 0, length, position)
    return bytes.subarray(0, bytesRead)
  }
}

/** `path` (bytes, relative) in a view. */
export function below(view: string, path: Buffer): Buffer {
  return Buffer.concat([Buffer.from(`${view}/`), path])
}

export function isAbsent(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException
  return code === 'ENOENT' || code === 'ENOTDIR' || code === 'ELOOP'
}

/** What one program writes in a thousand pieces is one version: what lies between has no name. */
function isBurst(older: Change, newer: Change): boolean {
  const isNaming = [older, newer].some(({ op }) => op === 'rename' || op === 'link')
  return (
    !isNaming &&
    older.pid === newer.pid &&
    Date.parse(newer.time) - Date.parse(older.time) < BROWSE_BURST_MS
  )
}

/** `2026-11-22T14-03-12.120Z seq-812345 write by postgres[812]` */
function nameOf({ made, ended, mtime }: Version): string {
  if (made !== null) {
    return `${shownTime(Date.parse(made.time))} seq-${made.seq} ${made.op} by ${author(made)}`
  }
  // Clocks differ by milliseconds; names must sort as the versions followed one another.
  const time = shownTime(Math.min(Date.parse(mtime), Date.parse(ended?.time ?? mtime)))
  return ended === null ? `${time} as it is` : `${time} before seq-${ended.seq}`
}

function author({ pid, command }: Change): string {
  return pid === 0 ? 'kernel' : `${namePiece(command)}[${pid}]`
}

function attributesOf({ mode, uid, gid, size, mtime }: Version): Attributes {
  return { mode: mode & 0o7777, uid, gid, size, mtimeMs: Date.parse(mtime) }
}
