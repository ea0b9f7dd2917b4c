/**
 * What a running volume keeps of its past, and the views of it that are mounted.
 *
 * What has to be kept follows from the catalogue of snapshots and from the age of a continuous history.
 * A snapshot that was taken for a command goes with its process, as views do (`view-table.ts`).
 */
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import { writeFileDurably } from '../lib/files.js'
import { CUT_PENDING_MS, HISTORY_AGE_LOOK_MS, VIEWS_LOOK_MS } from '../lib/limits.js'
import type { Logger } from '../lib/log.js'
import { native } from '../lib/native.js'
import type { ChangedObjects, PathObject } from '../lib/native-history.js'
import { isAlive } from '../lib/process-id.js'
import { higher, lower } from '../lib/seqs.js'
import { Catalogue } from '../snapshot/catalogue.js'
import { seqIn } from '../snapshot/certificate.js'
import { Losses, type SnapshotSeq } from './losses.js'
import { historyPath } from './places.js'
import type { Volume } from './registry.js'
import { type ViewRequest, type ViewStatus, ViewTable } from './view-table.js'

const op = 'history'
const NEVER = 0xffff_ffff_ffff_ffffn
/** Since when every change is kept. */
const FILE = 'continuous.json'

export type HistoryMode = Volume['config']['options']['history']

/** What of the past can be looked at. JSON values only. */
export interface HistoryStatus {
  mode: HistoryMode
  directory: string
  /** Any moment from this seq on, in a continuous history; null: snapshots only. */
  fromSeq: number | null
  /** Moments before this seq are lost. */
  floor: number
  bytes: number
  bytesMax: number
  /** Before-images that found no room since start: the moments before are lost. */
  lost: number
  /** Snapshots before this seq were taken before the machine went down without a stop; 0: none. */
  unprovenBefore: number
  views: ViewStatus[]
}

export class VolumeHistory {
  readonly #volume: Volume
  readonly #handle: number
  readonly #log: Logger
  readonly #views: ViewTable
  readonly #losses: Losses
  readonly #since: Since
  #timer: NodeJS.Timeout | undefined
  /** Cuts that are no snapshots yet: until when they may become one. */
  readonly #cuts = new Map<bigint, number>()
  /** Some of the snapshots go with the process that they were taken for. */
  #owned = false
  /** The oldest seq that a continuous history keeps for its own sake. */
  #windowStart: bigint
  #catalogueMs = 0
  #agedAt = 0
  #looking = false

  constructor(options: { volume: Volume; handle: number; lastSeq: bigint; log: Logger }) {
    const { volume, handle, lastSeq, log } = options
    this.#volume = volume
    this.#handle = handle
    this.#log = log
    this.#losses = new Losses(log)
    const { name, uuid } = volume.config
    // Not by name alone: another run directory may have a volume of that name.
    this.#views = new ViewTable({ of: `${name}:${uuid}`, log })
    this.#since = continuousSince(volume, lastSeq)
    // Everything, until it has been looked at what is too old.
    this.#windowStart = this.mode === 'continuous' ? 0n : NEVER
  }

  get mode(): HistoryMode {
    return this.#volume.config.options.history
  }

  /** Keeps what is wanted, from now on. Before anything can change: else a snapshot is taken for lost. */
  begin(): void {
    // It may have been taken just before the last daemon died.
    const point = native.historyState(this.#handle)?.point ?? 0n
    if (point > 0n) this.noteCut(point)
    this.refresh()
    // What is lost from now on is told, even if that is before the first look.
    this.#losses.look(this.#handle)
  }

  /** Ends what nobody owns any more, from now on. */
  start(): void {
    this.#timer = setInterval(() => void this.#look(), VIEWS_LOOK_MS)
  }

  /** A cut at `seq`: what it needs is kept until there is a certificate, or can be none any more. */
  noteCut(seq: bigint): void {
    this.#cuts.set(seq, Date.now() + CUT_PENDING_MS)
  }

  /** The snapshots have changed. */
  refresh(): void {
    if (this.mode === 'none') return
    const taken = snapshotsOf(this.#volume).map(({ seq }) => seq)
    for (const [seq, until] of this.#cuts) {
      if (until < Date.now() || taken.includes(seq)) this.#cuts.delete(seq)
    }
    const seqs = [...taken, ...this.#cuts.keys()]
    const newest = seqs.reduce(higher, 0n)
    const oldest = seqs.reduce(lower, this.#windowStart)
    native.setHistoryWanted(this.#handle, newest, oldest)
  }

  /** Lets go of what is too old, at the next refresh. */
  async #moveWindow(): Promise<void> {
    const { historyAgeMs } = this.#volume.config.options
    if (this.mode !== 'continuous' || historyAgeMs === null) return
    const { seq } = await this.#views.seqAt(this.#handle, Date.now() - historyAgeMs)
    this.#windowStart = seq ?? 0n
  }

  get status(): HistoryStatus {
    const state = native.historyState(this.#handle)
    const { historyBytes: bytesMax } = this.#volume.config.options
    return {
      mode: this.mode,
      directory: historyPath(this.#volume),
      fromSeq: this.mode === 'continuous' ? Number(this.#fromSeq(state?.floor ?? 0n)) : null,
      floor: Number(state?.floor ?? 0n),
      bytes: state?.bytes ?? 0,
      bytesMax,
      lost: state?.lost ?? 0,
      unprovenBefore: Number(state?.powerLostBefore ?? 0n),
      views: this.#views.list,
    }
  }

  #fromSeq(floor: bigint): bigint {
    return higher(floor, this.#since.seq)
  }

  /** The last seq at a time. HISTORY_RANGE before the oldest that is kept. */
  async seqAt(timeMs: number): Promise<bigint> {
    this.#requireContinuous()
    const { seq, oldestMs } = await this.#views.seqAt(this.#handle, timeMs)
    const from = this.#fromSeq(native.historyState(this.#handle)?.floor ?? 0n)
    if (seq !== undefined && seq >= from) return seq
    // Nothing had changed yet since it began, unless what had has been let go of.
    const beganMs = from === this.#since.seq ? this.#since.ms : (oldestMs ?? Date.now())
    if (timeMs >= beganMs) return from
    throw new HoldfastError(
      'HISTORY_RANGE',
      `the history begins at ${new Date(beganMs).toISOString()}`,
      { op, details: { beganMs, fromSeq: Number(from) } },
    )
  }

  #requireContinuous(): void {
    if (this.mode === 'continuous') return
    const { name } = this.#volume.config
    const has = this.mode === 'none' ? 'keeps no history' : 'keeps snapshots only'
    throw new HoldfastError('HISTORY_OFF', `${name} ${has}`, {
      op,
      hint: `Keep every change: holdfast mount ${name} --history continuous`,
    })
  }

  /** A moment that a view can show. HISTORY_RANGE, HISTORY_OFF. */
  requireSeq(seq: bigint): void {
    const snapshot = snapshotsOf(this.#volume).find((each) => each.seq === seq)
    if (snapshot !== undefined && this.mode !== 'none') {
      this.#requireKept(snapshot)
      return
    }
    this.#requireContinuous()
    const { seq: from } = this.#since
    if (seq >= from) return
    throw new HoldfastError('HISTORY_RANGE', `every change is kept from seq ${from} on`, {
      op,
      details: { fromSeq: Number(from) },
    })
  }

  #requireKept({ name, seq }: SnapshotSeq): void {
    const floor = native.historyState(this.#handle)?.floor ?? 0n
    if (seq >= floor) return
    const volume = this.#volume.config.name
    const message = `the past of snapshot ${name} is lost: what is kept of ${volume} begins at seq ${floor}`
    throw new HoldfastError('HISTORY_RANGE', message, {
      op,
      hint: `There was no room. Give it more: holdfast mount ${volume} --history-size SIZE, --history-dir DIR`,
      details: { fromSeq: Number(floor) },
    })
  }

  /** Mounts a view. HISTORY_RANGE, HISTORY_OFF, USAGE, BUSY. */
  async mount(request: ViewRequest): Promise<ViewStatus> {
    this.requireSeq(request.seq)
    return this.#views.mount(this.#handle, request)
  }

  /** Ends a view. VIEW_NOT_FOUND; BUSY while it is in use, unless `lazy`. */
  unmount(id: number, lazy: boolean): Promise<void> {
    return this.#views.unmount(id, lazy)
  }

  get lastSeq(): bigint {
    return native.volumeStats(this.#handle).capturedSeq
  }

  /** What a path led to; its directory is looked for as of `seq`. */
  ofPath(path: Buffer, seq: bigint): Promise<PathObject[]> {
    return this.#views.ofPath(this.#handle, path, seq)
  }

  /**
   * What can differ between two moments (undefined: now); null when that cannot be told, and both trees
   * have to be walked. HISTORY_RANGE, HISTORY_OFF.
   */
  async changed(after: bigint, upTo: bigint | undefined): Promise<ChangedObjects | null> {
    this.requireSeq(after)
    if (upTo !== undefined) this.requireSeq(upTo)
    // What the kernel has not handed over yet is in the tree, but nowhere else.
    if (upTo === undefined && this.#volume.config.options.writeback) return null
    return this.#views.changed(this.#handle, after, upTo)
  }

  /** BUSY, naming the views that go with the volume. Those of processes that have died keep nobody up. */
  async requireUnused(): Promise<void> {
    await this.#views.dropOrphans()
    const paths = this.#views.list.map(({ path }) => path)
    if (paths.length === 0) return
    const { name } = this.#volume.config
    throw new HoldfastError('BUSY', `${name} is seen as it was at ${paths.join(', ')}`, {
      op: 'unmount',
      hint: `Unmount that first, or all together: holdfast unmount --force ${name}`,
      details: { views: paths },
    })
  }

  async #look(): Promise<void> {
    if (this.#looking) return
    this.#looking = true
    try {
      this.#losses.look(this.#handle, () => snapshotsOf(this.#volume))
      await this.#views.dropOrphans()
      const catalogue = new Catalogue(this.#volume.stateDirectory)
      if (catalogue.changedMs !== this.#catalogueMs || this.#owned) this.#dropOrphans(catalogue)
      const changed = catalogue.changedMs
      const due = changed !== this.#catalogueMs || Date.now() >= this.#agedAt
      this.#catalogueMs = changed
      if (due) {
        this.#agedAt = Date.now() + HISTORY_AGE_LOOK_MS
        await this.#moveWindow()
        this.refresh()
      }
    } catch (error) {
      this.#log.warn({ error: toHoldfastError(error, op) }, 'cleaning up views failed')
    } finally {
      this.#looking = false
    }
  }

  /** Snapshots that were taken for a command which is gone. */
  #dropOrphans(catalogue: Catalogue): void {
    const owned = catalogue.list().filter(({ owner }) => owner !== null)
    this.#owned = owned.length > 0
    for (const { name, owner } of owned) {
      if (owner === null || isAlive(owner)) continue
      catalogue.remove(name)
      this.#log.info({ snapshot: name }, 'the command that it was taken for is gone')
    }
  }

  /** Idempotent. The data plane ends the views themselves. */
  async close(): Promise<void> {
    clearInterval(this.#timer)
    await this.#views.close()
  }
}

function snapshotsOf(volume: Volume): SnapshotSeq[] {
  return new Catalogue(volume.stateDirectory)
    .list()
    .map((each) => ({ name: each.name, seq: BigInt(seqIn(each, volume.config.uuid) ?? 0) }))
    .filter(({ seq }) => seq > 0n)
}

interface Since {
  seq: bigint
  ms: number
}

/** From where on every change has been kept: it begins now, if it has not been so before. */
function continuousSince(volume: Volume, lastSeq: bigint): Since {
  const path = join(historyPath(volume), FILE)
  if (volume.config.options.history !== 'continuous') {
    // What was kept until now is no history without gaps any more.
    rmSync(path, { force: true })
    return { seq: NEVER, ms: Number.POSITIVE_INFINITY }
  }
  if (existsSync(path)) {
    const { seq, ms } = JSON.parse(readFileSync(path, 'utf8')) as { seq: string; ms: number }
    return { seq: BigInt(seq), ms }
  }
  const ms = Date.now()
  writeFileDurably(path, `${JSON.stringify({ seq: `${lastSeq}`, ms })}\n`)
  return { seq: lastSeq, ms }
}
