/**
 * The directory of a restored copy. While a restore writes to it a note beside it says what it is to
 * become; only with that note a directory that is not empty is taken for one, and written over.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { dirname, relative, resolve } from 'node:path'
import { HoldfastError } from '../lib/errors.js'
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
  readonly #note: string
  readonly #of: string

  /** Writes nothing. USAGE inside the volume, NOT_A_DIRECTORY, NOT_EMPTY. */
  constructor(output: string, { config }: Volume, { uuid, seq, path }: CopyOf) {
    this.path = resolve(output)
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
    const found = statSync(this.path, { throwIfNoEntry: false })
    if (found === undefined) return
    if (!found.isDirectory()) {
      throw new HoldfastError('NOT_A_DIRECTORY', `${this.path} is no directory`, { op })
    }
    if (readdirSync(this.path).length === 0 || this.#begun()) return
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

  begin(): void {
    mkdirSync(dirname(this.path), { recursive: true })
    writeFileDurably(this.#note, this.#of)
    mkdirSync(this.path, { recursive: true, mode: 0o700 })
  }

  /** The copy is whole. */
  end(): void {
    rmSync(this.#note, { force: true })
  }
}
