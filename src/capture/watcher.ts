/**
 * Changes made behind the mount, when the backing directory is reachable elsewhere. The one file
 * that imports `chokidar`.
 *
 * Changes made through the mount also raise events here, because they happen in the backing
 * directory. The data plane tells them apart (an object whose change time is the one the
 * interceptor left is no stranger's work), so every path is simply passed on, collected and
 * without repetition.
 *
 * chokidar's names are text. A name that is not UTF-8 comes with replacement characters and names
 * nothing: its nearest directory that does name something is passed instead, and the data plane
 * compares that directory's entries by their bytes.
 */
import { dirname, relative } from 'node:path'
import { type FSWatcher, watch } from 'chokidar'
import { WATCH_BATCH_PATHS_MAX, WATCH_DEBOUNCE_MS } from '../lib/limits.js'

export interface WatcherOptions {
  /** Backing directory. */
  directory: string
  /** Re-captures paths relative to the volume root; returns how many were real changes. */
  recapture(paths: Buffer[]): Promise<number>
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
  readonly #pending = new Set<string>()
  #timer: NodeJS.Timeout | undefined
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
    this.#watcher.on('all', (_event, path) => this.#note(path))
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
    this.#running = this.#running.then(() => this.#recapture())
    await this.#running
  }

  async close(): Promise<void> {
    await this.#watcher.close()
    await this.flush()
  }

  #note(path: string): void {
    this.counters.events += 1
    this.#pending.add(expressible(relative(this.#options.directory, path)))
    this.#timer ??= setTimeout(() => void this.flush(), WATCH_DEBOUNCE_MS)
  }

  async #recapture(): Promise<void> {
    while (this.#pending.size > 0) {
      const batch = [...this.#pending].slice(0, WATCH_BATCH_PATHS_MAX)
      for (const path of batch) this.#pending.delete(path)
      try {
        const paths = batch.map((path) => Buffer.from(path))
        this.counters.objects += await this.#options.recapture(paths)
      } catch (error) {
        this.#options.onError(error)
      }
    }
  }
}

/** The path itself, or the nearest directory above it whose name is text. */
export function expressible(path: string): string {
  let candidate = path
  while (candidate.includes(REPLACEMENT)) candidate = dirname(candidate)
  return candidate === '.' ? '' : candidate
}
