/**
 * The views of one tree that are mounted. A view may belong to a process: when that is gone, so is the
 * view; nothing is left of a command that was killed.
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { isAbsolute } from 'node:path'
import { Chores } from '../capture/chores.js'
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import { removeEmpty } from '../lib/files.js'
import type { Logger } from '../lib/log.js'
import { isWithin, mountAt, readMounts } from '../lib/mountinfo.js'
import type { ChangedObjects, PathObject, SeqAtTime } from '../lib/native-history.js'
import { isAlive, ownerOf, type ProcessId } from '../lib/process-id.js'
import { MOUNT_TYPE } from './preflight.js'
import { listVolumes } from './registry.js'

const op = 'history'

export interface ViewStatus {
  id: number
  path: string
  seq: number
  /** The snapshot, if it was mounted as one. */
  snapshot: string | null
  owner: ProcessId | null
}

export interface ViewRequest {
  seq: bigint
  path: string
  snapshot: string | null
  /** The view ends with this process. */
  ownerPid: number | null
}

export class ViewTable {
  /** What the views are of, in the table of mounts. */
  readonly #of: string
  readonly #log: Logger
  /** Made for the first view. */
  #started: Chores | undefined
  /** Places at which a view is about to be. */
  readonly #taken = new Set<string>()
  readonly #views = new Map<number, ViewStatus & { handle: number }>()

  constructor({ of, log }: { of: string; log: Logger }) {
    this.#of = of
    this.#log = log
    removeDeadViews(of)
  }

  get list(): ViewStatus[] {
    return [...this.#views.values()].map(({ handle, ...view }) => view)
  }

  get #chores(): Chores {
    this.#started ??= new Chores()
    return this.#started
  }

  /**
   * Mounts a view of the tree whose history has this handle. HISTORY_RANGE, USAGE, BUSY; ABORTED: its
   * owner has died already.
   */
  async mount(handle: number, request: ViewRequest): Promise<ViewStatus> {
    const { seq, path, snapshot, ownerPid } = request
    requirePlace(path, this.#taken)
    const owner = ownerPid === null ? null : ownerOf(ownerPid)
    // Without an owner it would stay for ever.
    if (owner === null && ownerPid !== null) {
      throw new HoldfastError('ABORTED', `process ${ownerPid} is gone`, { op })
    }
    this.#taken.add(path)
    const source = `holdfast-view:${this.#of}@${snapshot ?? seq}`
    const id = await this.#show({ handle, seq, path, source }).finally(() => {
      this.#taken.delete(path)
    })
    const view = { id, path, seq: Number(seq), snapshot, owner }
    this.#views.set(id, { ...view, handle })
    this.#log.info({ view }, 'view mounted')
    return view
  }

  async #show(show: { handle: number; seq: bigint; path: string; source: string }) {
    const { handle, seq, path, source } = show
    mkdirSync(path, { recursive: true, mode: 0o755 })
    try {
      return await this.#chores.run('mountView', handle, seq, Buffer.from(path), source)
    } catch (error) {
      removeEmpty(path)
      throw error
    }
  }

  /** Ends a view. VIEW_NOT_FOUND; BUSY while it is in use, unless `lazy`. */
  async unmount(id: number, lazy: boolean): Promise<void> {
    const view = this.#views.get(id)
    if (view === undefined) {
      throw new HoldfastError('VIEW_NOT_FOUND', `no view has number ${id}`, { op })
    }
    try {
      await this.#chores.run('unmountView', view.handle, id, lazy)
    } catch (error) {
      const cause = toHoldfastError(error, op)
      if (cause.details?.errno !== 'EBUSY') throw cause
      throw new HoldfastError('BUSY', `${view.path} is in use`, { op, cause })
    }
    this.#views.delete(id)
    removeEmpty(view.path)
    this.#log.info({ view }, 'view unmounted')
  }

  /** What a path led to. */
  async ofPath(handle: number, path: Buffer, seq: bigint): Promise<PathObject[]> {
    return this.#chores.run('historyOfPath', handle, path, seq)
  }

  /** The last seq at a time, and the time of the oldest change that is kept. */
  async seqAt(handle: number, timeMs: number): Promise<SeqAtTime> {
    return this.#chores.run('historySeqAt', handle, timeMs)
  }

  /** What can differ between two moments; undefined: now. Null when the history cannot tell. */
  async changed(
    handle: number,
    after: bigint,
    upTo: bigint | undefined,
  ): Promise<ChangedObjects | null> {
    return this.#chores.run('historyChanged', handle, after, upTo)
  }

  /** Ends what nobody owns any more. */
  async dropOrphans(): Promise<void> {
    for (const { id, owner } of [...this.#views.values()]) {
      if (owner !== null && !isAlive(owner)) await this.unmount(id, true)
    }
  }

  /** Idempotent. The data plane ends the views themselves. */
  async close(): Promise<void> {
    for (const { path } of this.#views.values()) removeEmpty(path)
    this.#views.clear()
    await this.#started?.close()
  }
}

/** The daemon never touches a volume's mount: a view cannot be shown below one. USAGE, BUSY. */
function requirePlace(path: string, taken: ReadonlySet<string>): void {
  if (!isAbsolute(path)) throw new HoldfastError('USAGE', `${path} is no absolute path`, { op })
  for (const { config } of listVolumes()) {
    for (const tree of [config.mountpoint, config.backing]) {
      if (!isWithin(path, tree)) continue
      throw new HoldfastError('USAGE', `${path} is inside the volume ${config.name}`, {
        op,
        hint: 'Show the view somewhere else.',
      })
    }
  }
  if (mountAt(path) === undefined && !taken.has(path)) return
  throw new HoldfastError('BUSY', `something is mounted at ${path} already`, {
    op,
    hint: 'Choose another place, or unmount it.',
  })
}

/** Views of a process that has died: nobody answers for them. */
function removeDeadViews(of: string): void {
  const ours = (source: string) => source.startsWith(`holdfast-view:${of}@`)
  for (const { mountpoint, source, type } of readMounts()) {
    if (type !== MOUNT_TYPE || !ours(source)) continue
    execFileSync('umount', ['-l', '--', mountpoint], { stdio: 'ignore' })
    removeEmpty(mountpoint)
  }
}
