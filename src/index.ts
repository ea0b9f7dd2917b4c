/**
 * holdfast as a library.
 *
 * ```ts
 * import { mount } from 'holdfast'
 *
 * const volume = await mount({ dir: '/srv/data' })
 * console.log((await volume.status()).captured.seq)
 * for await (const change of volume.changes()) console.log(change.verb, String(change.path))
 * await volume.unmount()
 * ```
 *
 * The volume is served by a process of its own, which outlives the caller; `open` finds it again.
 * Every error is a `HoldfastError` with a stable `code`, the `op` that failed, and a `hint`.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { CallOptions } from './daemon/call.js'
import { ControlClient, type PruneReply, type PruneRequest } from './daemon/client.js'
import { launchDaemon, type StartSummary } from './daemon/launch.js'
import { planMount } from './daemon/plan.js'
import {
  findVolume,
  listVolumes,
  type VolumeConfig,
  type VolumeOptions,
} from './daemon/registry.js'
import { type ReplayResult, replayJournal } from './daemon/replay.js'
import { settleJournal } from './daemon/settle.js'
import type { Status, Stopped } from './daemon/status.js'
import { type Change, describeChange } from './journal/change.js'
import { NameTable, namesFrom } from './journal/names.js'
import { Journal } from './journal/store.js'
import { requireReadable, type VerifyReport, verifyJournal } from './journal/verify.js'

export type { CallOptions, PruneReply, PruneRequest } from './daemon/client.js'
export { type DestroyOptions, destroySnapshot } from './daemon/destroy-snapshot.js'
export {
  type ExecEvents,
  execInGroup,
  type GroupExecRequest,
  type GroupExposed,
  type HostEnd,
  withGroupSnapshot,
} from './daemon/group-exec.js'
export {
  endHorizon,
  freezeGroup,
  type HorizonView,
  showHorizon,
  thawGroup,
} from './daemon/group-horizon.js'
export {
  type PrunedGroupSnapshot,
  type PruneGroupRequest,
  pruneGroupSnapshots,
} from './daemon/group-prune.js'
export {
  type GroupRestoration,
  type GroupRestoreRequest,
  type HostRestored,
  restoreGroup,
} from './daemon/group-restore.js'
export { type GroupScheduleResult, runGroupSchedules } from './daemon/group-schedule-runs.js'
export {
  type GroupSchedule,
  type GroupScheduleRequest,
  listGroupSchedules,
  removeGroupSchedule,
  setGroupSchedule,
} from './daemon/group-schedules.js'
export {
  type GroupView,
  mountGroupSnapshot,
  unmountGroupSnapshot,
} from './daemon/group-views.js'
export {
  addMembers,
  checkGroup,
  createGroup,
  createGroupSnapshot,
  destroyGroup,
  destroyGroupSnapshot,
  type GroupLock,
  type GroupSnapshotRequest,
  type GroupStatus,
  type KnownGroupSnapshot,
  listGroupSnapshots,
  listGroups,
  type MemberName,
  parseMember,
  removeMembers,
  showGroup,
} from './daemon/groups.js'
export type { StartSummary } from './daemon/launch.js'
export type { Instant, Views, Written } from './daemon/moments.js'
export type { VolumeConfig, VolumeOptions } from './daemon/registry.js'
export type { ReplayResult } from './daemon/replay.js'
export {
  type Diff,
  type DiffOptions,
  diffMoments,
  type Restoration,
  type RestoreOptions,
  restoreMoment,
} from './daemon/restore.js'
export {
  createSnapshot,
  findSnapshot,
  listSnapshots,
  rehearseSnapshot,
  type Snapshot,
  type SnapshotRequest,
} from './daemon/snapshots.js'
export type { Position, Status, VolumeState } from './daemon/status.js'
export type { Group, GroupMember, GroupSnapshot } from './group/definition.js'
export type { Moment } from './history/moment.js'
export type { Change } from './journal/change.js'
export type { Problem, VerifyReport } from './journal/verify.js'
export { type ErrorCode, type ErrorReport, ExitCode, HoldfastError } from './lib/errors.js'
export { printable } from './lib/printable.js'
export {
  type CompareOptions,
  compareTrees,
  type RestoreTreeOptions,
  restoreTree,
  type TreeChange,
  type TreeFailure,
  type TreeProgress,
} from './lib/tree.js'
export { VERSION } from './lib/version.js'
export type { Certificate } from './snapshot/certificate.js'
export type { HookRun } from './snapshot/hook-run.js'

export interface MountOptions {
  /** Directory to protect, or the name of a volume to start again. */
  dir: string
  /** Where the volume appears; default: over `dir`. */
  at?: string
  /** Name of the volume; default: the last part of `dir`. */
  name?: string
  /** Directory of the volume's state and journal; default `/var/lib/holdfast/<name>`. */
  stateDirectory?: string
  /** Start although processes or mounts inside `dir` bypass the capture. */
  force?: boolean
  /** Options of the volume; what is not given keeps its stored value or default. */
  options?: Partial<VolumeOptions>
}

export interface ChangesOptions {
  /** First seq wanted; default: the first that the journal has. */
  from?: bigint
  /** Go on with new changes until `signal` aborts. */
  follow?: boolean
  /** Also records that only name objects. */
  all?: boolean
  signal?: AbortSignal
}

const FOLLOW_MS = 200

/** A volume whose daemon runs, or ran. */
export class Volume {
  readonly config: Readonly<VolumeConfig>
  readonly stateDirectory: string
  /** What this `mount` found and did; undefined for a volume that was running already. */
  readonly start: StartSummary | undefined
  readonly #client: ControlClient

  /** @internal Use `mount` or `open`. */
  constructor(config: VolumeConfig, stateDirectory: string, start?: StartSummary) {
    this.config = config
    this.stateDirectory = stateDirectory
    this.start = start
    this.#client = new ControlClient(config.name)
  }

  get name(): string {
    return this.config.name
  }

  /** Positions, lag, rates, journal. VOLUME_NOT_RUNNING when it is not mounted. */
  async status(options?: CallOptions): Promise<Status> {
    return this.#client.status(options)
  }

  /**
   * Stops in order: everything captured is journaled, but for what a full disk does not take: that stays in
   * the ring for the next start. BUSY while it is used, unless `force`.
   */
  async unmount(options?: CallOptions & { force?: boolean }): Promise<Stopped> {
    return this.#client.stop(options)
  }

  /** Names this moment; returns its seq. */
  async marker(name: string, options?: CallOptions): Promise<bigint> {
    return BigInt((await this.#client.marker(name, options)).seq)
  }

  /** Waits until everything captured now is journaled durably; returns that seq. */
  async flush(options?: CallOptions): Promise<bigint> {
    return BigInt((await this.#client.flush(options)).seq)
  }

  /** Holds I/O for at most `maxMs`; a watchdog releases it then. `hold` is for `release`. */
  async hold(
    maxMs: number,
    options?: CallOptions,
  ): Promise<{ seq: bigint; startNs: bigint; hold: number }> {
    const { seq, startNs, hold } = await this.#client.hold(maxMs, options)
    return { seq: BigInt(seq), startNs: BigInt(startNs), hold }
  }

  /** Ends a hold; returns the nanoseconds it lasted. HOLD_EXPIRED: the watchdog was first. */
  async release(hold: number, options?: CallOptions): Promise<number> {
    return (await this.#client.release(hold, options)).heldNs
  }

  /** Forgets the oldest changes. */
  async prune(request: PruneRequest, options?: CallOptions): Promise<PruneReply> {
    return this.#client.prune(request, options)
  }

  /** Captures the state of the whole tree anew; resolves when it has begun. */
  async recapture(reason = 'on request', options?: CallOptions): Promise<void> {
    await this.#client.recapture(reason, options)
  }

  /** Checks every byte of the journal. Damage is in the report, not thrown. */
  async verify(options: { signal?: AbortSignal } = {}): Promise<VerifyReport> {
    const path = await settleJournal(this)
    return verifyJournal({ path, volume: this.config.uuid, ...options })
  }

  /** Applies the journal to a copy of the base; see `holdfast journal replay --help`. */
  async replay(options: {
    onto: string
    toSeq?: bigint
    keepState?: boolean
    signal?: AbortSignal
  }): Promise<ReplayResult> {
    const journal = await this.#journal()
    try {
      const { onto, keepState = false, ...rest } = options
      const volume = { config: this.config, stateDirectory: this.stateDirectory }
      return await replayJournal({ volume, journal, target: onto, keepState, ...rest })
    } finally {
      await journal.close()
    }
  }

  /** Changes in order, from the journal; also of a volume that is not mounted. */
  async *changes(options: ChangesOptions = {}): AsyncGenerator<Change> {
    const { from = 0n, follow = false, all = false, signal } = options
    const journal = await this.#journal()
    try {
      const names = new NameTable()
      let next = namesFrom(journal, from)
      for (;;) {
        for (const frame of journal.frames({ from: next })) {
          for (const record of frame.records()) {
            const change = describeChange(record, names)
            if (change.seq >= from && (all || !change.internal)) yield change
            if (signal?.aborted === true) return
          }
          next = frame.lastSeq + 1n
        }
        if (!follow || signal?.aborted === true) return
        await sleep(FOLLOW_MS, undefined, signal === undefined ? {} : { signal }).catch(() => {})
        journal.refresh()
      }
    } finally {
      await journal.close()
    }
  }

  async #journal(): Promise<Journal> {
    const path = await settleJournal(this)
    await requireReadable(path)
    return Journal.open({ path, readOnly: true })
  }
}

/** Protects a directory, or starts its volume again; resolves when it is protected. */
export async function mount(options: MountOptions): Promise<Volume> {
  const { dir, at, name, stateDirectory, force = false, options: given = {} } = options
  const volume = planMount({ directory: dir, at, name, stateDirectory, options: given })
  const { start } = await launchDaemon({ volume, force })
  return new Volume(volume.config, volume.stateDirectory, start)
}

/** Finds a volume by name, mountpoint, backing directory or state directory. */
export function open(which: string): Volume {
  const { config, stateDirectory } = findVolume(which)
  return new Volume(config, stateDirectory)
}

/** All volumes of this machine. */
export function list(): Volume[] {
  return listVolumes().map(({ config, stateDirectory }) => new Volume(config, stateDirectory))
}
