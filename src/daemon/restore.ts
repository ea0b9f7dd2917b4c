/**
 * Comparing moments of a volume, and bringing one back.
 *
 * A restore in place writes through the mountpoint, from the process that asked for it and never from
 * the daemon: every change is journaled like any other, so it reaches replicas and can be undone.
 */
import { lstatSync } from 'node:fs'
import { join, relative } from 'node:path'
import { takeLock } from '../lib/abstract-lock.js'
import { HoldfastError } from '../lib/errors.js'
import type { ChangedObjects } from '../lib/native-history.js'
import { decodeUtf8, printable } from '../lib/printable.js'
import {
  compareTrees,
  restoreTree,
  type TreeChange,
  type TreeFailure,
  type WatchOptions,
} from '../lib/tree.js'
import { ControlClient } from './client.js'
import { CopyTarget } from './copy-target.js'
import { findInstant, type Instant, type Views, type Written } from './moments.js'
import { runDirectory } from './places.js'
import { findVolume, resolveAhead, type Volume } from './registry.js'
import * as daemonViews from './views.js'

const SLASH = Buffer.from('/')

/** A tree of a moment, for as long as it is looked at. */
interface Shown {
  root: Buffer
  instant: Instant
  close(): Promise<void>
}

export interface DiffOptions extends WatchOptions {
  /** Name, mountpoint or directory of the volume. */
  volume: string
  from: Written
  /** Default: now. */
  to?: Written | undefined
  /** Below the root, or within the mountpoint. */
  path?: string | Buffer | undefined
  ranges?: boolean | undefined
  thorough?: boolean | undefined
  views?: Views | undefined
}

/** Two moments, and what differs. */
export interface Diff {
  from: Instant
  to: Instant
  /** Where the tree of `to` stands while this is read; paths of changes are below it. */
  root: Buffer
  changes: AsyncIterable<TreeChange>
}

/** Compares two moments; `read` is called with the differences while both are there. */
export async function diffMoments<T>(
  options: DiffOptions,
  read: (diff: Diff) => Promise<T>,
): Promise<T> {
  const { views = daemonViews, to = { kind: 'now' }, ranges = false, thorough = false } = options
  const volume = findVolume(options.volume)
  const scope = volumePath(volume, options.path)
  const a = await show(volume, options.from, views)
  try {
    const b = await show(volume, to, views)
    try {
      const { signal, onProgress } = options
      const changed = thorough ? undefined : await whatChanged(volume, views, [a, b])
      const pair = { a: a.root, b: b.root, scope, identity: true, thorough, changed }
      const changes = compareTrees({ ...pair, ranges, signal, onProgress })
      return await read({ from: a.instant, to: b.instant, root: b.root, changes })
    } finally {
      await b.close()
    }
  } finally {
    await a.close()
  }
}

async function show(volume: Volume, at: Written, views: Views): Promise<Shown> {
  const { name, mountpoint } = volume.config
  const instant = await findInstant(views, { volume: name, at })
  if (instant.now) {
    return { root: Buffer.from(mountpoint), instant, close: async () => {} }
  }
  const { seq, snapshot } = instant
  const view = await views.openView({ volume: name, seq, snapshot: snapshot ?? undefined })
  return { root: Buffer.from(view.path), instant, close: () => view.close() }
}

/** What can differ between two moments; undefined: anything, both trees have to be walked. */
async function whatChanged(
  { config }: Volume,
  views: Views,
  [{ instant: a }, { instant: b }]: readonly [{ instant: Instant }, { instant: Instant }],
): Promise<ChangedObjects | undefined> {
  const [older, newer] = b.now || (!a.now && a.seq <= b.seq) ? [a, b] : [b, a]
  if (older.now) return undefined
  return views.changedBetween(config.name, older.seq, newer.now ? undefined : newer.seq)
}

/** A path of a volume, relative to its root, in bytes. USAGE for a path elsewhere. */
export function volumePath({ config }: Volume, path: string | Buffer | undefined): Buffer {
  if (path === undefined) return Buffer.alloc(0)
  const bytes = typeof path === 'string' ? Buffer.from(path) : path
  const text = decodeUtf8(bytes)
  if (bytes[0] !== SLASH[0]) return normalized(bytes)
  for (const root of [config.mountpoint, config.backing].map((each) => Buffer.from(each))) {
    const below = bytes.subarray(0, root.length).equals(root)
    if (below && bytes.length === root.length) return Buffer.alloc(0)
    if (below && bytes[root.length] === SLASH[0]) return normalized(bytes.subarray(root.length))
  }
  // By way of a symbolic link.
  const real = text === undefined ? undefined : relative(config.mountpoint, resolveAhead(text))
  if (real !== undefined && !real.startsWith('..')) return Buffer.from(real)
  throw new HoldfastError('USAGE', `${printable(bytes)} is not in ${config.mountpoint}`, {
    op: 'restore',
    hint: 'Give a path within the mountpoint, or relative to it.',
  })
}

function normalized(path: Buffer): Buffer {
  const parts = path
    .toString('latin1')
    .split('/')
    .filter((part) => part !== '' && part !== '.')
  if (parts.includes('..')) {
    throw new HoldfastError('USAGE', `${printable(path)} leads upwards`, { op: 'restore' })
  }
  return Buffer.from(parts.join('/'), 'latin1')
}

export interface RestoreOptions extends WatchOptions {
  volume: string
  to: Written
  /** One file or directory; default: the whole volume. */
  path?: string | Buffer | undefined
  /** A new or empty directory, or one that an earlier such restore has begun; default: in place. */
  output?: string | undefined
  /** That directory lies below this one, whatever links there are, or nothing is written: NOT_ALLOWED. */
  outputBelow?: string | undefined
  thorough?: boolean | undefined
  onFailure?: ((failure: TreeFailure) => void) | undefined
  views?: Views | undefined
}

/** A moment that is to come back, and where. */
export interface Restoration {
  volume: string
  instant: Instant
  /** Relative to the root of the volume; empty: all of it. */
  path: Buffer
  /** Directory that is written to. */
  target: string
  inPlace: boolean
  /** seq of the volume before anything is written; null when that is not in place. */
  before: bigint | null
  /** Whether the moment before can be brought back in turn. */
  undoable: boolean
  /** What would be done; nothing is changed. */
  plan(options?: WatchOptions & { ranges?: boolean }): AsyncIterable<TreeChange>
  /** Does it; returns how many things were left undone. */
  run(): Promise<number>
}

/**
 * Prepares a restore; `use` looks at its plan, or runs it. NOT_THEN when the path was not there,
 * NOT_EMPTY, BUSY when another restore of the volume runs, VOLUME_NOT_RUNNING.
 */
export async function restoreMoment<T>(
  options: RestoreOptions,
  use: (restoration: Restoration) => Promise<T>,
): Promise<T> {
  const { views = daemonViews, output, signal, onProgress, onFailure, thorough = false } = options
  const volume = findVolume(options.volume)
  const { name, mountpoint } = volume.config
  const path = volumePath(volume, options.path)
  const turn = output === undefined ? await takeTurn(name) : undefined
  const shown = await show(volume, options.to, views).catch((error) => {
    turn?.close()
    throw error
  })
  try {
    requireThere({ root: shown.root, path, instant: shown.instant })
    const what = { uuid: volume.config.uuid, seq: `${shown.instant.seq}`, path }
    const below = options.outputBelow
    const copy = output === undefined ? undefined : new CopyTarget({ output, below }, volume, what)
    const target = copy?.path ?? mountpoint
    const inPlace = copy === undefined
    const pair = { a: Buffer.from(target), b: shown.root, scope: path, identity: inPlace, thorough }
    const before = inPlace ? BigInt((await new ControlClient(name).flush()).seq) : null
    const now = { instant: { ...shown.instant, now: true } }
    // Asked again for each walk: what changes until then is to be found.
    const changed = async () =>
      inPlace && !thorough ? whatChanged(volume, views, [now, shown]) : undefined
    const range = await views.historyRange(name)
    return await use({
      volume: name,
      instant: shown.instant,
      path,
      target,
      inPlace,
      before,
      undoable: inPlace && range.mode === 'continuous',
      plan: async function* (watch = {}) {
        yield* compareTrees({ ...pair, changed: await changed(), ...watch })
      },
      run: async () => {
        try {
          const a = copy?.begin() ?? pair.a
          const work = { ...pair, a, changed: await changed(), copy: !inPlace }
          const undone = await restoreTree({ ...work, signal, onProgress, onFailure })
          if (undone === 0) copy?.end()
          return undone
        } finally {
          copy?.close()
        }
      },
    })
  } finally {
    await shown.close()
    turn?.close()
  }
}

async function takeTurn(name: string): Promise<{ close(): unknown }> {
  try {
    return await takeLock('restore', join(runDirectory(), name))
  } catch (cause) {
    throw new HoldfastError('BUSY', `another restore of ${name} runs`, { op: 'restore', cause })
  }
}

/** A path that was not there then is a question, not an order to delete it. */
function requireThere({ root, path, instant }: { root: Buffer; path: Buffer; instant: Instant }) {
  const there = lstatSync(Buffer.concat([root, SLASH, path]), { throwIfNoEntry: false })
  if (there !== undefined) return
  throw new HoldfastError('NOT_THEN', `${printable(path)} was not there: ${instant.text}`, {
    op: 'restore',
    hint: 'See when it was: holdfast history ls PATH',
  })
}
