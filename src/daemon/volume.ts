/**
 * One protected volume: the start sequence, what runs while it is mounted, and the orderly stop.
 *
 * Start: checks → lock → journal → data plane (`openVolume` recovers the ring) → mount → drain →
 * re-capture when the journal cannot prove to be complete. Stop: unmount → drain to empty →
 * checkpoint → clean flag → close. A crash anywhere in between fails closed: the mount is dead, the
 * ring and the journal say the rest at the next start.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { Watcher } from '../capture/watcher.js'
import type { Checkpoint } from '../journal/meta.js'
import type { PruneResult, Retention } from '../journal/prune.js'
import { errnoOf, HoldfastError, toHoldfastError } from '../lib/errors.js'
import {
  CHECKPOINT_INTERVAL_MS,
  OCCUPANTS_SHOWN_MAX,
  REPLICA_FINISH_MS,
  STOP_DRAIN_MS,
  TICK_MS,
} from '../lib/limits.js'
import type { Logger } from '../lib/log.js'
import { type HoldResult, native, type OpenVolumeResult, type VolumeStats } from '../lib/native.js'
import { VERSION } from '../lib/version.js'
import { waitJournaled } from './checkpoint.js'
import { type Clock, systemClock } from './clock.js'
import { Cutter } from './cutter.js'
import { VolumeHistory } from './history.js'
import type { HorizonOrder, HorizonReply, HorizonWait } from './horizon.js'
import { VolumeLock } from './lock.js'
import { describeOccupants, findOccupants } from './occupants.js'
import { type Parts, type StartOptions, startParts } from './parts.js'
import { journalPath } from './places.js'
import { checkMachine, checkNotServed } from './preflight.js'
import { checkVolume, openDataPlane, openJournal, prepareMountpoint, ringOf } from './prepare.js'
import { recaptureNeed } from './recapture.js'
import { type Volume, writeVolume } from './registry.js'
import type { Replicas } from './replicas.js'
import { Scheduler } from './scheduler.js'
import { openCodes } from './shipped.js'
import { makeStatus, RateMeter, type Status, type Stopped, type VolumeState } from './status.js'

const FOLLOW_POLL_MS = 50
const FOLLOW_MS_MAX = 5_000

export interface StartResult {
  /** Made by this start: its base is the tree as it was. */
  isNew: boolean
  /** A dead mount of this volume was replaced. */
  recoveredMount: boolean
  open: OpenVolumeResult
  recapture: string | null
}

export class ProtectedVolume {
  readonly volume: Volume
  readonly log: Logger
  readonly since = new Date()
  readonly #lock: VolumeLock
  readonly #parts: Parts
  readonly #clock: Clock
  readonly #rates = new RateMeter()
  readonly #ring: string
  /** Its part in snapshots. */
  readonly cuts: Cutter
  /** What it keeps of its past. */
  readonly history: VolumeHistory
  readonly #schedules: Scheduler
  #watcher: Watcher | undefined
  #timers: NodeJS.Timeout[] = []
  #state: 'running' | 'stopping' | 'stopped' = 'running'
  #caughtUpAtNs: bigint
  #advancing = false
  #uncaptured = 0
  #stopping: Promise<Stopped> | undefined

  private constructor(volume: Volume, log: Logger, lock: VolumeLock, clock: Clock, parts: Parts) {
    this.volume = volume
    this.log = log
    this.#lock = lock
    this.#clock = clock
    this.#parts = parts
    this.#ring = ringOf(volume)
    this.cuts = new Cutter(parts.handle)
    this.history = parts.history
    this.#schedules = new Scheduler({ volume, log, state: () => this.#publicState() })
    this.#caughtUpAtNs = clock.wallNs()
  }

  /** Starts a volume. Every refusal is a HoldfastError with a hint; nothing is left behind then. */
  static async start(
    options: StartOptions,
  ): Promise<{ protected: ProtectedVolume; result: StartResult }> {
    const { volume, log, clock = systemClock } = options
    checkMachine()
    checkNotServed(volume)
    const lock = await VolumeLock.acquire(volume)
    const undo: (() => unknown)[] = [() => lock.release()]
    try {
      const recoveredMount = await prepareMountpoint(volume)
      checkVolume(volume, options.force)
      writeVolume(volume)
      const { meta, end, clock: lastClock } = await openJournal(volume)
      const isNew = end.lastSeq === 0n && meta.checkpoint === null
      const open = openDataPlane(volume, meta, end, lastClock)
      undo.push(() => native.closeVolume(open.handle))
      const sealed = recoveredMount && volume.config.backing === volume.config.mountpoint
      const need = recaptureNeed({ meta, lastSeq: end.lastSeq, ring: open.ring, sealed })
      openCodes(volume, open, log)
      const history = new VolumeHistory({
        volume,
        handle: open.handle,
        lastSeq: end.lastSeq,
        log,
      })
      undo.push(() => history.close())
      const parts = { history, ...startParts(volume, open, need, options) }
      undo.push(
        () => parts.chores.close(),
        () => parts.drain.giveUp(),
      )
      await parts.drain.opened
      await parts.drain.updateMeta({ clean: false, recapture: need })
      history.begin()
      native.mountVolume(open.handle)
      const running = new ProtectedVolume(volume, log, lock, clock, parts)
      await running.#run(need === null && open.ring !== 'recovered')
      const result = { isNew, recoveredMount, open, recapture: need?.reason ?? null }
      return { protected: running, result }
    } catch (error) {
      for (const step of undo.reverse()) await Promise.resolve(step()).catch(() => {})
      throw toHoldfastError(error, 'mount')
    }
  }

  /** Starts the clockwork. `provable`: the journal is complete, so a checkpoint can be taken now. */
  async #run(provable: boolean): Promise<void> {
    const { config } = this.volume
    if (config.backing !== config.mountpoint) await this.#watch()
    this.#timers.push(setInterval(() => void this.#tick(), TICK_MS))
    this.#timers.push(setInterval(() => void this.#checkpoint(), CHECKPOINT_INTERVAL_MS))
    if (provable) await this.checkpoint()
    const { journal } = await this.#parts.drain.freshReport()
    this.#parts.captured.begin(journal)
    await this.#parts.replicas.start()
    this.history.start()
    this.#schedules.start()
    void this.#tick().then(() => this.#followRecapture())
  }

  /** A short re-capture should not take a whole tick to be noticed. */
  async #followRecapture(): Promise<void> {
    const end = Date.now() + FOLLOW_MS_MAX
    while (this.#state === 'running' && this.#parts.recapture.need !== null && Date.now() < end) {
      await sleep(FOLLOW_POLL_MS)
      await this.#tick()
    }
  }

  async #watch(): Promise<void> {
    const { handle, chores } = this.#parts
    this.#watcher = new Watcher({
      directory: this.volume.config.backing,
      recapture: (paths, settled) => chores.run('recapturePaths', handle, paths, settled),
      onError: (error) =>
        this.log.warn({ error: toHoldfastError(error, 'watch') }, 'watching failed'),
    })
    await this.#watcher.ready()
  }

  async #tick(): Promise<void> {
    if (this.#state !== 'running' || this.#advancing) return
    this.#advancing = true
    try {
      const stats = native.volumeStats(this.#parts.handle)
      this.#rates.sample(stats)
      if (stats.journaledSeq >= stats.capturedSeq) this.#caughtUpAtNs = this.#clock.wallNs()
      if (await this.#parts.checkpointer.watchClock()) {
        this.log.warn(
          'the wall clock went backwards: change times prove nothing until a checkpoint',
        )
      }
      this.#parts.replicas.tick()
      await this.#watchGaps(stats)
      await this.#advanceRecapture()
    } catch (error) {
      // What an orderly stop refuses is nobody's trouble.
      if (this.#stopping !== undefined) return
      this.log.error({ error: toHoldfastError(error, 'tick') }, 'housekeeping failed')
    } finally {
      this.#advancing = false
    }
  }

  /** What found no room in the ring, or could not be recovered, has to be looked for. */
  async #watchGaps({ uncaptured, scanning, scanErrors, capturedSeq }: VolumeStats): Promise<void> {
    const { recapture } = this.#parts
    const missed = uncaptured > this.#uncaptured
    const failed = !scanning && scanErrors > 0n && recapture.need === null
    if (!missed && !failed) return
    this.#uncaptured = uncaptured
    const reason = missed
      ? 'changes found no room in the capture ring'
      : 'operations that a crash interrupted could not be recovered'
    this.log.warn({ reason }, 'the journal lacks changes: everything is captured anew')
    await recapture.require({ reason, sinceNs: 0n, afterSeq: capturedSeq })
  }

  async #advanceRecapture(): Promise<void> {
    const { recapture } = this.#parts
    if (recapture.need === null) return
    const state = await recapture.advance(journalPath(this.volume.stateDirectory))
    if (state !== 'done') return
    this.log.info({ status: this.status().recapture }, 're-capture done: tree and journal agree')
    await this.#checkpoint()
  }

  /** Periodic: skipped while there is nothing new, or while the journal cannot be proven. */
  async #checkpoint(): Promise<void> {
    const { checkpointer, recapture } = this.#parts
    if (this.#state !== 'running' || recapture.need !== null || !checkpointer.due) return
    try {
      await this.checkpoint()
    } catch (error) {
      this.log.warn({ error: toHoldfastError(error, 'checkpoint') }, 'no checkpoint this time')
    }
  }

  status(): Status {
    const { handle, drain, recapture, checkpointer } = this.#parts
    const stats = native.volumeStats(handle)
    return makeStatus({
      volume: this.volume,
      state: this.#publicState(),
      since: this.since,
      version: VERSION,
      stats,
      report: drain.report,
      need: recapture.need,
      watcher: this.#watcher?.counters ?? null,
      rates: this.#rates.rates,
      caughtUpAtNs: this.#caughtUpAtNs,
      nowNs: this.#clock.wallNs(),
      ringPath: this.#ring,
      journalPath: journalPath(this.volume.stateDirectory),
      checkpoint: checkpointer.last ?? drain.report?.meta.checkpoint ?? null,
      replicas: this.#parts.replicas.status,
      acknowledge: this.#parts.replicas.acknowledge,
      history: this.history.status,
      schedules: this.#schedules.status,
      horizon: this.#parts.horizon.status,
    })
  }

  #publicState(): VolumeState {
    if (this.#state !== 'running') return this.#state
    if (this.#parts.drain.report?.failure != null) return 'journal-blocked'
    const { need } = this.#parts.recapture
    return need === null ? 'protected' : 'recapturing'
  }

  async checkpoint(): Promise<Checkpoint> {
    return this.#parts.checkpointer.take()
  }

  /** Waits until everything captured now is journaled durably; returns that seq. */
  async flush(waitMs: number): Promise<bigint> {
    const { handle } = this.#parts
    const { capturedSeq } = native.volumeStats(handle)
    await this.#parts.drain.sync()
    await waitJournaled(handle, capturedSeq, waitMs)
    return capturedSeq
  }

  /** seq of the last captured change. */
  get capturedSeq(): bigint {
    return native.volumeStats(this.#parts.handle).capturedSeq
  }

  get replicas(): Replicas {
    return this.#parts.replicas
  }

  /** As the coordinator of its group says; then how it stands. GROUP_OTHER, GROUP_STALE. */
  async followHorizon(order: HorizonOrder | null, wait: HorizonWait | null): Promise<HorizonReply> {
    const { horizon, replicas } = this.#parts
    if (order !== null && horizon.set(order)) replicas.announce()
    if (wait !== null) await replicas.reach({ ...wait, seq: BigInt(wait.seq) })
    return {
      horizon: horizon.status,
      state: this.#publicState(),
      captured: Number(this.capturedSeq),
      replicas: replicas.status,
    }
  }

  /** Replicas apply everything again; whether there was a horizon. GROUP_OTHER. */
  leaveHorizon(group?: string): boolean {
    const left = this.#parts.horizon.leave(group)
    if (left) this.#parts.replicas.announce()
    return left
  }

  marker(name: string): bigint {
    return native.marker(this.#parts.handle, name)
  }

  hold(maxMs: number): HoldResult {
    return native.hold(this.#parts.handle, maxMs)
  }

  /** Nanoseconds that I/O was held. */
  release(hold: number): bigint {
    return native.release(this.#parts.handle, hold)
  }

  async prune(retention: Retention): Promise<PruneResult> {
    await this.checkpoint()
    const { keepAfter } = this.#parts.replicas
    return this.#parts.drain.prune({ ...retention, keepAfter })
  }

  /** Changes retention for good. */
  async setRetention(retention: Retention): Promise<void> {
    const { options } = this.volume.config
    options.retainBytes = retention.maxBytes ?? null
    options.retainAgeMs = retention.maxAgeMs ?? null
    writeVolume(this.volume)
    const { keepAfter } = this.#parts.replicas
    await this.#parts.drain.setRetention({ ...retention, keepAfter })
  }

  /** Compares the whole tree with what the journal should know, by imaging all of it. */
  async recapture(reason: string): Promise<void> {
    const afterSeq = native.volumeStats(this.#parts.handle).capturedSeq
    await this.#parts.recapture.require({ reason, sinceNs: 0n, afterSeq })
    await this.#advanceRecapture()
  }

  /**
   * Unmounts, drains, takes a last checkpoint and closes. BUSY, naming who uses the volume, unless
   * `force` detaches it all the same. Idempotent while it runs. The volume's lock stays until
   * `unlock`: the control socket is closed in between.
   */
  async stop({ force }: { force: boolean }): Promise<Stopped> {
    if (this.#state === 'stopped') return { inRingBytes: 0 }
    this.#stopping ??= this.#stop(force).finally(() => {
      this.#stopping = undefined
    })
    return this.#stopping
  }

  async #stop(force: boolean): Promise<Stopped> {
    await this.#unmount(force)
    this.#state = 'stopping'
    for (const timer of this.#timers) clearInterval(timer)
    await this.#schedules.close()
    await this.#watcher?.close()
    const { handle, drain, chores, recapture, replicas } = this.#parts
    const drained = await Promise.race([
      drain.drained.then(() => true),
      sleep(STOP_DRAIN_MS, false, { ref: false }),
    ])
    const inRingBytes = drained ? 0 : native.volumeStats(handle).ringUsedBytes
    if (drained && recapture.need === null) {
      await this.checkpoint()
      await drain.updateMeta({ clean: true })
    } else if (!drained) {
      this.log.warn({ inRingBytes }, 'the journal takes nothing: the rest stays in the ring')
      await drain.abandon()
    } else await drain.updateMeta({ clean: true })
    await replicas.finish(REPLICA_FINISH_MS)
    await replicas.close()
    await drain.close()
    await this.cuts.close()
    await this.history.close()
    await chores.close()
    native.closeVolume(handle)
    this.#state = 'stopped'
    return { inRingBytes }
  }

  /** Lets the next daemon start. After `stop`. */
  unlock(): void {
    this.#lock.release()
  }

  async #unmount(force: boolean): Promise<void> {
    const { handle, chores } = this.#parts
    if (!force) await this.history.requireUnused()
    try {
      await chores.run('unmountVolume', handle, force)
    } catch (error) {
      const cause = toHoldfastError(error, 'unmount')
      if ((cause.details?.errno ?? errnoOf(error)) !== 'EBUSY') throw cause
      const { config } = this.volume
      const occupants = findOccupants(config.mountpoint)
      const who = describeOccupants(occupants, OCCUPANTS_SHOWN_MAX)
      const message = `${config.mountpoint} is in use${who === '' ? '' : `: ${who}`}`
      throw new HoldfastError('BUSY', message, {
        op: 'unmount',
        cause,
        hint: `Stop them first, or detach it all the same: holdfast unmount --force ${config.name}`,
        details: { occupants },
      })
    }
  }
}
