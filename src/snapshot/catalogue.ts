/**
 * The snapshots of a volume: `snapshots/NAME.json` in its state directory, each with the whole
 * certificate, so that every volume of a snapshot can tell all of it.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { HoldfastError } from '../lib/errors.js'
import { writeFileDurably } from '../lib/files.js'
import { type Certificate, parseCertificate } from './certificate.js'

const SUFFIX = '.json'

export class Catalogue {
  readonly #directory: string

  constructor(stateDirectory: string) {
    this.#directory = join(stateDirectory, 'snapshots')
  }

  /** Oldest first. UNKNOWN_FORMAT, naming the file. */
  list(): Certificate[] {
    if (!existsSync(this.#directory)) return []
    const names = readdirSync(this.#directory).filter((name) => name.endsWith(SUFFIX))
    const found = names.map((name) => this.#read(name.slice(0, -SUFFIX.length)))
    return found
      .filter((each) => each !== undefined)
      .sort((a, b) => a.created.localeCompare(b.created))
  }

  /** When a snapshot was last added or removed; 0: never. */
  get changedMs(): number {
    return statSync(this.#directory, { throwIfNoEntry: false })?.mtimeMs ?? 0
  }

  /** undefined when there is none of this name. */
  find(name: string): Certificate | undefined {
    return this.#read(name)
  }

  /** Durable when it returns. */
  store(certificate: Certificate): void {
    mkdirSync(this.#directory, { recursive: true, mode: 0o700 })
    const text = `${JSON.stringify(certificate, null, 2)}\n`
    writeFileDurably(this.#path(certificate.name), text)
  }

  /** Idempotent. */
  remove(name: string): void {
    rmSync(this.#path(name), { force: true })
  }

  #path(name: string): string {
    return join(this.#directory, `${name}${SUFFIX}`)
  }

  #read(name: string): Certificate | undefined {
    const path = this.#path(name)
    let text: string
    try {
      text = readFileSync(path, 'utf8')
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
      throw error
    }
    const parsed = parseCertificate(json(text))
    if (typeof parsed !== 'string') return parsed
    throw new HoldfastError('UNKNOWN_FORMAT', `${path}: ${parsed}`, {
      op: 'snapshot.read',
      hint: 'Use the holdfast that wrote it, or a newer one; or remove the file.',
    })
  }
}

function json(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
