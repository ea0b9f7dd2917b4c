/**
 * The directory of a restored copy. While a restore writes to it a note beside it says what it is to
 * become; only with that note a directory that is not empty is taken for one, and written over.
 *
 * Invariant: a copy that may lie below one directory only is written to by descriptors that were opened
 * from there name by name, with no link followed: whoever may write on the way leads it nowhere else.
 */
import {
  closeSync,
  constants,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from 'node:fs'
import { basename, dirname, relative, resolve } from 'node:path'
import { errnoOf, HoldfastError } from '../lib/errors.js'
import { writeFileDurably } from '../lib/files.js'
import { resolveAhead, type Volume } from './registry.js'

const op = 'restore'
const SUFFIX = '.holdfast-restore'

/** What the copy is of. */
export interface CopyOf {
  uuid: string
  seq: string
  path: Buffer
}

export class CopyTarget {
  /** Absolute. */
  readonly path: string
  /** It lies below this directory, or is not written. */
  readonly #below: string | undefined
  readonly #of: string
  /** Where it is reached now, and the note: as `path` says, or by descriptors. */
  #at: string
  #note: string
  readonly #open: number[] = []

  /** Writes nothing. USAGE inside the volume, NOT_A_DIRECTORY, NOT_EMPTY. */
  constructor(
    { output, below }: { output: string; below?: string | undefined },
    { config }: Volume,
    { uuid, seq, path }: CopyOf,
  ) {
    this.path = resolve(output)
    this.#below = below
    this.#at = this.path
    this.#note = `${this.path}${SUFFIX}`
    this.#of = JSON.stringify({ version: 1, volume: uuid, seq, path: path.toString('base64') })
    for (const root of [config.mountpoint, config.backing]) {
      const inside = relative(root, resolveAhead(this.path))
      if (inside.startsWith('..')) continue
      throw new HoldfastError('USAGE', `${this.path} is inside ${root}`, {
        op,
        hint: 'Give a directory elsewhere, or restore in place: leave --output out.',
      })
    }
    this.#requireEmpty()
  }

  #requireEmpty(): void {
    const found = statSync(this.#at, { throwIfNoEntry: false })
    if (found === undefined) return
    if (!found.isDirectory()) {
      throw new HoldfastError('NOT_A_DIRECTORY', `${this.path} is no directory`, { op })
    }
    if (readdirSync(this.#at).length === 0 || this.#begun()) return
    throw new HoldfastError('NOT_EMPTY', `${this.path} is not empty`, {
      op,
      hint: 'Give a new directory; an interrupted restore goes on with exactly the same command.',
    })
  }

  /** An earlier restore of the same has begun it. */
  #begun(): boolean {
    try {
      return readFileSync(this.#note, 'utf8') === this.#of
    } catch {
      return false
    }
  }

  /**
   * Where to write, until `close`. NOT_EMPTY, NOT_ALLOWED: it is not what it was when it was looked at.
   */
  begin(): Buffer {
    if (this.#below === undefined) mkdirSync(dirname(this.path), { recursive: true })
    else this.#descend(this.#below)
    this.#requireEmpty()
    writeFileDurably(this.#note, this.#of)
    mkdirSync(this.#at, { recursive: true, mode: 0o700 })
    return Buffer.from(this.#at)
  }

  #descend(below: string): void {
    mkdirSync(below, { recursive: true })
    const [root, real] = [resolveAhead(below), resolveAhead(this.path)]
    const names = relative(root, real).split('/')
    const name = basename(real)
    if (names[0] === '..' || names[0] === '') throw this.#elsewhere(below)
    try {
      let at = this.#keep(openSync(root, constants.O_RDONLY | constants.O_DIRECTORY))
      for (const each of names.slice(0, -1)) at = this.#enter(at, each)
      this.#note = `${at}/${name}${SUFFIX}`
      this.#at = this.#enter(at, name, 0o700)
    } catch (cause) {
      const errno = errnoOf(cause)
      if (errno !== 'ELOOP' && errno !== 'ENOTDIR') throw cause
      throw this.#elsewhere(below, cause)
    }
  }

  /** Opens a directory by its name in another one; makes it if it is not there. */
  #enter(at: string, name: string, mode = 0o755): string {
    const path = `${at}/${name}`
    try {
      mkdirSync(path, { mode })
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') throw error
    }
    const flags = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW
    return this.#keep(openSync(path, flags))
  }

  #keep(fd: number): string {
    this.#open.push(fd)
    return `/proc/self/fd/${fd}`
  }

  #elsewhere(below: string, cause?: unknown): HoldfastError {
    return new HoldfastError('NOT_ALLOWED', `${this.path} leads out of ${below}`, { op, cause })
  }

  /** The copy is whole. */
  end(): void {
    rmSync(this.#note, { force: true })
  }

  /** Idempotent. */
  close(): void {
    for (const fd of this.#open.splice(0)) closeSync(fd)
  }
}
