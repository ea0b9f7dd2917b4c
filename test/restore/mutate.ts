/** Random changes of a tree, of every kind that a restore has to undo. Names are bytes, as latin1. */
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  closeSync,
  type Dirent,
  ftruncateSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeSync,
} from 'node:fs'
import type { Chance } from '../harness/faults.js'

/** A path of latin1 characters as the bytes that they stand for. */
export const bytes = (path: string) => Buffer.from(path, 'latin1')

interface Found {
  path: string
  kind: 'dir' | 'file' | 'other'
}

/** Everything below a directory, the directory first. */
export function everything(root: string): Found[] {
  const all: Found[] = [{ path: root, kind: 'dir' }]
  for (const { path, kind } of all) {
    if (kind !== 'dir') continue
    const entries = readdirSync(bytes(path), { withFileTypes: true, encoding: 'buffer' })
    for (const entry of entries as Dirent<Buffer>[]) {
      const child = `${path}/${entry.name.toString('latin1')}`
      all.push({
        path: child,
        kind: entry.isDirectory() ? 'dir' : entry.isFile() ? 'file' : 'other',
      })
    }
  }
  return all
}

export class Mutator {
  readonly #root: string
  readonly #chance: Chance
  readonly #links: boolean
  #count = 0

  /** `links`: also hard links. */
  constructor(root: string, chance: Chance, { links = true } = {}) {
    this.#root = root
    this.#chance = chance
    this.#links = links
  }

  /** Some changes; what the tree refuses (a directory into itself) is left out. */
  mutate(changes: number): void {
    for (let done = 0; done < changes; done += 1) {
      try {
        this.#one()
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException
        if (!['EINVAL', 'EEXIST', 'ENOTEMPTY', 'EISDIR', 'ENOTDIR'].includes(code ?? ''))
          throw error
      }
    }
  }

  #one(): void {
    const all = everything(this.#root)
    const pick = (kind: Found['kind']) => {
      const found = all.filter((each) => each.kind === kind && each.path !== this.#root)
      return found.length === 0 ? undefined : this.#chance.pick(found).path
    }
    const file = pick('file')
    const any = pick(this.#chance.pick(['file', 'dir', 'other']))
    const dir = this.#chance.pick(all.filter(({ kind }) => kind === 'dir')).path
    const { next } = this.#chance
    const act = Math.floor(next.call(this.#chance) * 13)
    if (act < 2) this.#create(this.#name(dir))
    else if (act === 2 && file !== undefined && this.#links) {
      linkSync(bytes(file), bytes(this.#name(dir)))
    } else if (act < 5 && any !== undefined) renameSync(bytes(any), bytes(this.#name(dir)))
    else if (act === 5 && file !== undefined) this.#saveByRename(file)
    else if (act === 6 && any !== undefined) rmSync(bytes(any), { recursive: true })
    else if (act === 7 && any !== undefined) this.#attributes(any)
    else if (act === 8 && file !== undefined) this.#tool(file)
    else if (file !== undefined) this.#write(file)
  }

  #name(dir: string): string {
    this.#count += 1
    return `${dir}/${this.#chance.pick(['n', 'name with space ', 'b\xff\xfe', 'nl\n'])}${this.#count}`
  }

  #create(path: string): void {
    const kind = this.#chance.between(0, 6)
    if (kind < 3) this.#write(path)
    else if (kind === 3) mkdirSync(bytes(path))
    else if (kind === 4) symlinkSync(`target ${this.#count}`, bytes(path))
    else this.#mknod(path, kind === 5 ? ['p'] : ['c', '1', `${this.#chance.between(0, 9)}`])
  }

  // A program's arguments are text in Node: the path goes through a shell's escapes.
  #shell(script: string, path: string): void {
    const escaped = [...bytes(path)]
      .map((byte) => `\\${byte.toString(8).padStart(3, '0')}`)
      .join('')
    execFileSync('bash', ['-euc', `f=$'${escaped}'; ${script}`], { stdio: 'pipe' })
  }

  #mknod(path: string, how: string[]): void {
    this.#shell(`mknod "$f" ${how.join(' ')}`, path)
  }

  #write(path: string): void {
    const fd = openSync(bytes(path), 'a+')
    closeSync(fd)
    const patch = openSync(bytes(path), 'r+')
    const size = this.#chance.between(0, 70_000)
    const at = this.#chance.pick([0, 0, 4096, this.#chance.between(0, 3_000_000)])
    writeSync(patch, Buffer.alloc(size, this.#chance.between(0, 255)), 0, size, at)
    if (this.#chance.next() < 0.2) ftruncateSync(patch, this.#chance.between(0, 200_000))
    closeSync(patch)
  }

  #saveByRename(path: string): void {
    this.#write(`${path}.new`)
    renameSync(bytes(`${path}.new`), bytes(path))
  }

  #attributes(path: string): void {
    const kind = this.#chance.between(0, 2)
    const link = lstatSync(bytes(path)).isSymbolicLink()
    if (kind === 0 && !link) chmodSync(bytes(path), this.#chance.between(0, 0o7777))
    else if (kind === 1 && !link) chownSync(bytes(path), this.#chance.between(0, 2000), 1000)
    else lutimesSync(bytes(path), 1, this.#chance.between(-1e9, 1e9) + 0.25)
  }

  #tool(path: string): void {
    const script = this.#chance.pick([
      'setfattr -n user.some -v "$RANDOM" "$f"',
      'setfattr -n trusted.other -v x "$f"',
      'setfacl -m u:1234:r "$f"',
      'setfacl -b "$f"',
      'fallocate -p -o 0 -l 8192 "$f"',
    ])
    this.#shell(script, path)
  }
}
