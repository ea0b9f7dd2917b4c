/**
 * The frozen views that a browse tree reads from: one per moment, mounted when it is first needed,
 * shared, and unmounted when nobody has used it for a while. They belong to this process: the
 * volume's daemon ends them when it is gone, however it went.
 *
 * A view that is in use is never taken away: reads hold it, and one that a link has led to goes only
 * when the kernel finds nobody in it.
 */
import { ControlClient } from '../daemon/client.js'
import { runningDaemon } from '../daemon/lock.js'
import { viewPath } from '../daemon/places.js'
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import { BROWSE_VIEW_IDLE_MS, BROWSE_VIEW_LEASE_MS, BROWSE_VIEWS_MAX } from '../lib/limits.js'
import type { Logger } from '../lib/log.js'

/** A view while somebody reads from it. */
export interface HeldView {
  /** Where it is mounted. */
  path: string
  seq: bigint
  /** Idempotent. */
  release(): void
}

interface View {
  seq: bigint
  /** Shown as this snapshot, which then is in use; null: only read from here. */
  snapshot: string | null
  /** It is a view of this daemon: another one knows nothing of it. */
  daemon: string
  mounted: Promise<{ id: number; path: string }>
  holders: number
  /** It may go from then on. */
  idleAtMs: number
  /** It is being unmounted; whoever comes meanwhile waits whether it goes. */
  ending: Promise<boolean> | undefined
}

const op = 'browse'

/** A snapshot's link has a view of its own: reading versions at the same moment is no use of it. */
function keyOf(seq: bigint, snapshot: string | null): string {
  return snapshot === null ? `seq-${seq}` : `snapshot-${snapshot}`
}

export class SharedViews {
  readonly #volume: string
  readonly #client: ControlClient
  readonly #log: Logger
  /** By `keyOf`. */
  readonly #views = new Map<string, View>()
  #closed = false

  constructor(volume: string, log: Logger) {
    this.#volume = volume
    this.#client = new ControlClient(volume)
    this.#log = log
  }

  /** The view of a moment, until it is released. HISTORY_RANGE, HISTORY_OFF, VOLUME_NOT_RUNNING, BUSY. */
  async hold(seq: bigint): Promise<HeldView> {
    return this.#hold(seq, { snapshot: null, restMs: BROWSE_VIEW_IDLE_MS })
  }

  async use<T>(seq: bigint, work: (path: string) => Promise<T>): Promise<T> {
    const view = await this.hold(seq)
    try {
      return await work(view.path)
    } finally {
      view.release()
    }
  }

  /** Where the view of a moment is, for somebody who is about to go there. */
  async lease(seq: bigint, snapshot: string | null): Promise<string> {
    const view = await this.#hold(seq, { snapshot, restMs: BROWSE_VIEW_LEASE_MS })
    view.release()
    return view.path
  }

  async #hold(seq: bigint, rest: { snapshot: string | null; restMs: number }): Promise<HeldView> {
    const view = await this.#acquire(seq, rest.snapshot)
    let held = true
    const release = () => {
      if (!held) return
      held = false
      view.holders -= 1
      view.idleAtMs = Math.max(view.idleAtMs, Date.now() + rest.restMs)
    }
    try {
      return { path: (await view.mounted).path, seq, release }
    } catch (error) {
      release()
      throw error
    }
  }

  /** A view that counts one holder more; nothing is awaited between finding it and counting. */
  async #acquire(seq: bigint, snapshot: string | null): Promise<View> {
    for (;;) {
      const daemon = this.#requireDaemon()
      const key = keyOf(seq, snapshot)
      const known = this.#views.get(key)
      if (known?.ending !== undefined) {
        await known.ending
        continue
      }
      if (known?.daemon === daemon) {
        known.holders += 1
        return known
      }
      // The daemon that had mounted it is gone, and the view with it.
      if (known !== undefined) this.#views.delete(key)
      if (this.#views.size < BROWSE_VIEWS_MAX) return this.#begin(seq, { daemon, snapshot })
      await this.#makeRoom()
    }
  }

  #begin(seq: bigint, { daemon, snapshot }: { daemon: string; snapshot: string | null }): View {
    const mounted = this.#mount(seq, snapshot)
    const view: View = {
      seq,
      snapshot,
      daemon,
      mounted,
      holders: 1,
      idleAtMs: 0,
      ending: undefined,
    }
    this.#views.set(keyOf(seq, snapshot), view)
    mounted.catch(() => this.#forget(view))
    return view
  }

  async #mount(seq: bigint, snapshot: string | null): Promise<{ id: number; path: string }> {
    if (this.#closed) throw new HoldfastError('ABORTED', 'the browse tree ends', { op })
    const path = viewPath(this.#volume, `browse-${process.pid}-${keyOf(seq, snapshot)}`)
    return this.#client.mountView({ seq: Number(seq), path, snapshot, ownerPid: process.pid })
  }

  #requireDaemon(): string {
    const daemon = runningDaemon(this.#volume)
    if (daemon !== undefined) return `${daemon.pid} ${daemon.startTicks}`
    throw new HoldfastError('VOLUME_NOT_RUNNING', `volume ${this.#volume} is not mounted`, {
      op,
      hint: `Start it: holdfast mount ${this.#volume}`,
    })
  }

  /** The views that have rested the longest go first. BUSY when none can. */
  async #makeRoom(): Promise<void> {
    const resting = [...this.#views.values()]
      .filter(({ holders, ending }) => holders === 0 && ending === undefined)
      .sort((a, b) => a.idleAtMs - b.idleAtMs)
    for (const view of resting) if (await this.#drop(view)) return
    throw new HoldfastError('BUSY', `${BROWSE_VIEWS_MAX} views are in use`, { op })
  }

  /** Ends what nobody has used for long; whoever still is in one keeps it. */
  async look(): Promise<void> {
    const now = Date.now()
    for (const view of [...this.#views.values()]) {
      if (view.holders === 0 && view.idleAtMs <= now) await this.#drop(view)
    }
  }

  /** Whether it is gone now. */
  #drop(view: View): Promise<boolean> {
    view.ending ??= this.#unmount(view).then((gone) => {
      view.ending = undefined
      if (!gone) view.idleAtMs = Date.now() + BROWSE_VIEW_IDLE_MS
      else this.#forget(view)
      return gone
    })
    return view.ending
  }

  #forget(view: View): void {
    const key = keyOf(view.seq, view.snapshot)
    if (this.#views.get(key) === view) this.#views.delete(key)
  }

  async #unmount({ seq, mounted }: View): Promise<boolean> {
    try {
      const { id } = await mounted
      await this.#client.unmountView(id, false)
      return true
    } catch (error) {
      const known = toHoldfastError(error, op)
      if (known.code === 'VIEW_NOT_FOUND' || known.code === 'VOLUME_NOT_RUNNING') return true
      if (known.code !== 'BUSY') this.#log.warn({ error: known, seq: `${seq}` }, 'view not ended')
      return false
    }
  }

  /** Ends all of them, used or not. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true
    const views = [...this.#views.values()]
    this.#views.clear()
    const ending = views.map(async ({ mounted }) => {
      const { id } = await mounted
      await this.#client.unmountView(id, true)
    })
    await Promise.allSettled(ending)
  }
}
