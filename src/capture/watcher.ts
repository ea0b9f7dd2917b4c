/**
 * Changes made behind the mount, when the backing directory is reachable elsewhere. The one file
 * that imports `chokidar`.
 *
 * Changes made through the mount also raise events here, because they happen in the backing
 * directory. The data plane tells them apart (an object whose change time is the one the
 * interceptor left is no stranger's work), so every path is simply passed on, collected and
 * without repetition.
 *
 * chokidar's own events leave out what follows closely on another, so the kernel's (`raw`) are taken as
 * well. A directory that arrives has contents before it is watched: once it is quiet, its whole subtree is
 * passed, what else is in the directories where something happened, and all that was passed before once
 * more; only then is what is missing taken for removed.
 *
 * chokidar's names are text. A name that is not UTF-8 comes with replacement characters and names
 * nothing: its nearest directory that does name something is passed instead, and the data plane
 * compares that directory's entries by their bytes.
 */
import { lstatSync, readdirSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { type FSWatcher, watch } from 'chokidar'
import {
  WATCH_BATCH_PATHS_MAX,
  WATCH_DEBOUNCE_MS,
  WATCH_SETTLE_MS,
  WATCH_SETTLE_MS_MAX,
  WATCH_SWEEP_ENTRIES_MAX,
} from '../lib/limits.js'
import { isWithin } from '../lib/mountinfo.js'

export interface WatcherOptions {
  /** Backing directory. */
  directory: string
  /**
   * Re-captures paths relative to the volume root; returns how many were real changes. `settled`: all
   * that has appeared was captured, so what is missing has not just moved.
   */
  recapture(paths: Buffer[], settled: boolean): Promise<number>
  onError(error: unknown): void
}

export interface WatcherCounters {
  /** Events from the kernel, own changes included. */
  events: number
  /** Objects that others changed and that were re-captured. */
  objects: number
}

const REPLACEMENT = '\ufffd'

export class Watcher {
  readonly counters: WatcherCounters = { events: 0, objects: 0 }
  readonly #options: WatcherOptions
  readonly #watcher: FSWatcher
  /** Relative paths, as bytes in latin1, so that a set tells them apart. */
  readonly #pending = new Set<string>()
  /** What was passed since it was quiet. */
  readonly #recent = new Set<string>()
  /** Directories where something happened since then: an event that was lost is made good there. */
  readonly #touched = new Set<string>()
  /** Names that came into a directory since then. */
  readonly #arrived = new Set<string>()
  #timer: NodeJS.Timeout | undefined
  #settling: NodeJS.Timeout | undefined
  /** When the first change came that is not settled; 0: none. */
  #noisySince = 0
  #running: Promise<void> = Promise.resolve()

  constructor(options: WatcherOptions) {
    this.#options = options
    this.#watcher = watch(options.directory, {
      ignoreInitial: true,
      followSymlinks: false,
      // Both the directory and the object are re-captured, so renames need no pairing.
      atomic: false,
      alwaysStat: false,
    })
    this.#watcher.on('all', (event, path) => {
      this.#note(path)
      if (event === 'addDir') this.#arrived.add(path)
    })
    this.#watcher.on('raw', (event, name, details) => {
      const { watchedPath } = details as { watchedPath?: string }
      if (watchedPath === undefined) return
      this.#note(watchedPath)
      if (!name) return
      const path = join(watchedPath, name)
      this.#note(path)
      if (event === 'rename') this.#arrived.add(path)
    })
    this.#watcher.on('error', (error) => options.onError(error))
  }

  /** Resolves when the tree is watched. */
  async ready(): Promise<void> {
    await new Promise<void>((resolve) => this.#watcher.once('ready', () => resolve()))
  }

  /** Re-captures what was noticed so far. */
  async flush(): Promise<void> {
    if (this.#timer !== undefined) clearTimeout(this.#timer)
    this.#timer = undefined
    const pending = [...this.#pending]
    this.#pending.clear()
    this.#running = this.#running.then(() => this.#recapture(pending, false))
    await this.#running
  }

  async close(): Promise<void> {
    await this.#watcher.close()
    clearTimeout(this.#settling)
    await this.#settle()
  }

  #note(path: string): void {
    this.counters.events += 1
    this.#touched.add(dirname(path))
    this.#pass(Buffer.from(expressible(relative(this.#options.directory, path))))
    this.#timer ??= setTimeout(() => void this.flush(), WATCH_DEBOUNCE_MS)
    if (this.#noisySince === 0) this.#noisySince = Date.now()
    const left = this.#noisySince + WATCH_SETTLE_MS_MAX - Date.now()
    clearTimeout(this.#settling)
    const wait = Math.max(0, Math.min(WATCH_SETTLE_MS, left))
    this.#settling = setTimeout(() => void this.#settle(), wait)
  }

  #pass(path: Buffer): void {
    const key = path.toString('latin1')
    this.#pending.add(key)
    this.#recent.add(key)
  }

  /** It is quiet: what was looked at while it changed is looked at again. */
  async #settle(): Promise<void> {
    const arrived = [...this.#arrived]
    this.#arrived.clear()
    this.#noisySince = 0
    for (const path of arrived) this.#passBelow(Buffer.from(expressible(path)), true)
    const touched = [...this.#touched]
    this.#touched.clear()
    for (const path of touched) {
      if (isWithin(path, this.#options.directory)) this.#passBelow(Buffer.from(path), false)
    }
    const recent = [...this.#recent]
    this.#recent.clear()
    for (const key of recent) this.#pending.add(key)
    await this.flush()
    this.#running = this.#running.then(() => this.#recapture(recent, true))
    await this.#running
  }

  /** What is in a directory, or all below it; nothing for what is none, a link to one, or gone. */
  #passBelow(directory: Buffer, deep: boolean): void {
    const { directory: root } = this.#options
    const prefix = Buffer.from(root).length + 1
    const waiting = [directory]
    for (let at = waiting.pop(); at !== undefined; at = waiting.pop()) {
      const entries = entriesOf(at)
      if (!deep && entries.length > WATCH_SWEEP_ENTRIES_MAX) return
      for (const entry of entries) {
        const path = Buffer.concat([at, Buffer.from('/'), entry.name])
        this.#pass(path.subarray(prefix))
        if (deep && entry.isDirectory()) waiting.push(path)
      }
    }
  }

  async #recapture(keys: readonly string[], settled: boolean): Promise<void> {
    for (let first = 0; first < keys.length; first += WATCH_BATCH_PATHS_MAX) {
      const batch = keys.slice(first, first + WATCH_BATCH_PATHS_MAX)
      try {
        const paths = batch.map((key) => Buffer.from(key, 'latin1'))
        this.counters.objects += await this.#options.recapture(paths, settled)
      } catch (error) {
        this.#options.onError(error)
      }
    }
  }
}

/** What a directory holds, names as bytes; nothing when it is gone by now. */
function entriesOf(directory: Buffer) {
  try {
    if (!lstatSync(directory).isDirectory()) return []
    return readdirSync(directory, { withFileTypes: true, encoding: 'buffer' })
  } catch {
    return []
  }
}

/** The path itself, or the nearest directory above it whose name is text. */
export function expressible(path: string): string {
  let candidate = path
  while (candidate.includes(REPLACEMENT)) candidate = dirname(candidate)
  return candidate === '.' ? '' : candidate
}
