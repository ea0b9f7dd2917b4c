/**
 * `versions/`: the volume's directories, in which each file is a directory of its versions.
 *
 * Names are read from frozen views, never through the volume's mountpoint. Names that are gone are
 * listed where the tail of the journal still tells of them; all that the history knows can be
 * entered by name. A directory that is gone is looked at as of the moment before.
 */
import type { Stats } from 'node:fs'
import { lstat, readdir } from 'node:fs/promises'
import { BROWSE_SNAPSHOTS_MAX } from '../lib/limits.js'
import { nameShown, shownName } from './names.js'
import { type DirectoryNode, directoryAttributes, type Node } from './node.js'
import type { Past } from './past.js'
import type { JournalTail } from './tail.js'
import { below, isAbsent, Versions, type VersionsOf } from './versions.js'
import type { SharedViews } from './views.js'

const FORMAT = 0o170000
const DIRECTORY = 0o040000

export class VersionsTree {
  readonly #past: Past
  readonly #views: SharedViews
  readonly #tail: JournalTail
  readonly #versions: Versions

  constructor(parts: { past: Past; views: SharedViews; tail: JournalTail }) {
    this.#past = parts.past
    this.#views = parts.views
    this.#tail = parts.tail
    this.#versions = new Versions(parts.past, parts.views)
  }

  get root(): DirectoryNode {
    return this.#directory({ path: Buffer.alloc(0), asOf: undefined })
  }

  #directory(of: VersionsOf): DirectoryNode {
    return {
      kind: 'directory',
      attributes: async () => directoryAttributes((await this.#find(of))?.mtimeMs),
      names: async () => (await this.#names(of)).map(shownName).sort(),
      child: async (text) => {
        const name = nameShown(text)
        return name === undefined ? undefined : this.#child(of, name)
      },
    }
  }

  /** The moments at which names are looked for, the most telling first. */
  async #moments(asOf: bigint | undefined): Promise<bigint[]> {
    const { mode, snapshots, toSeq } = await this.#past.range()
    if (mode === 'continuous') return [asOf ?? toSeq]
    if (mode === 'none') return []
    const seqs = snapshots.map(({ seq }) => seq).filter((seq) => asOf === undefined || seq <= asOf)
    return seqs.slice(-BROWSE_SNAPSHOTS_MAX).reverse()
  }

  async #names({ path, asOf }: VersionsOf): Promise<Buffer[]> {
    const found = new Map<string, Buffer>()
    const add = (names: readonly Buffer[]) => {
      for (const name of names) found.set(name.toString('latin1'), name)
    }
    for (const seq of await this.#moments(asOf)) {
      const reading = this.#views.use(seq, (view) => readdir(below(view, path), 'buffer'))
      add(await reading.catch(none))
    }
    const { mode } = await this.#past.range()
    if (mode === 'continuous' && asOf === undefined) {
      // A journal that cannot be read hides no file that is there.
      add(await this.#tail.removedFrom(path).catch(() => []))
    }
    return [...found.values()]
  }

  async #child({ path, asOf }: VersionsOf, name: Buffer): Promise<Node | undefined> {
    const of = { path: path.length === 0 ? name : join(path, name), asOf }
    const found = await this.#find(of)
    if (found !== undefined) {
      return found.isDirectory() ? this.#directory(of) : this.#file(of, found.mtimeMs)
    }
    const { mode } = await this.#past.range()
    if (mode === 'none') return undefined
    const [object] = await this.#past.objectsOf(of.path, asOf)
    const last = object?.versions[0]
    if (object === undefined || last === undefined) return undefined
    if ((last.mode & FORMAT) !== DIRECTORY) return this.#file(of, Date.parse(last.mtime))
    if (object.gone === null) {
      // It was made a moment ago: what counts as now is older.
      this.#past.forget()
      return this.#directory(of)
    }
    return this.#directory({ path: of.path, asOf: BigInt(object.gone.seq) - 1n })
  }

  /** What a path is, at the first moment that has it. */
  async #find({ path, asOf }: VersionsOf): Promise<Stats | undefined> {
    for (const seq of await this.#moments(asOf)) {
      const looking = this.#views.use(seq, (view) => lstat(below(view, path)))
      const found = await looking.catch((error: unknown) => {
        if (isAbsent(error)) return undefined
        throw error
      })
      if (found !== undefined) return found
    }
    return undefined
  }

  #file(of: VersionsOf, mtimeMs: number): DirectoryNode {
    return {
      kind: 'directory',
      attributes: async () => directoryAttributes(mtimeMs),
      names: async () => (await this.#versions.list(of)).map(({ name }) => name),
      child: (name) => this.#versions.node(of, name),
    }
  }
}

function none(error: unknown): Buffer[] {
  if (isAbsent(error)) return []
  throw error
}

function join(path: Buffer, name: Buffer): Buffer {
  return Buffer.concat([path, Buffer.from('/'), name])
}
