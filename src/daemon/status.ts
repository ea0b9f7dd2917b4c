/** What `holdfast status` and GET /v1/status tell of a running volume. JSON values only. */

import type { DrainReport } from '../capture/messages.js'
import type { WatcherCounters } from '../capture/watcher.js'
import type { RecaptureNeed } from '../journal/meta.js'
import type { VolumeStats } from '../lib/native.js'
import type { HistoryStatus } from './history.js'
import type { HorizonStatus } from './horizon.js'
import type { Volume } from './registry.js'
import type { AcknowledgeStatus, ReplicaStatus } from './replica-status.js'
import type { ScheduleStatus } from './scheduler.js'

/**
 * `protected`: every acknowledged change is or will be in the journal. `recapturing`: the journal
 * cannot prove that yet. `journal-blocked`: the journal takes nothing; the ring keeps it.
 */
export type VolumeState =
  | 'starting'
  | 'protected'
  | 'recapturing'
  | 'journal-blocked'
  | 'stopping'
  | 'stopped'

/** A place in the order of changes. */
export interface Position {
  seq: number
  /** ISO 8601; null before the first. */
  time: string | null
}

/** Sizes in bytes, times in nanoseconds where the name says so, else ISO 8601. */
export interface Status {
  name: string
  uuid: string
  state: VolumeState
  /** Why the volume is not `protected`; null when it is. */
  reason: string | null
  pid: number
  version: string
  since: string
  backing: string
  mountpoint: string
  stateDirectory: string
  writeback: boolean
  captured: Position
  journaled: Position
  lag: { records: number; bytes: number; seconds: number }
  /** Per second, over the last seconds. */
  rates: { requests: number; mutations: number; capturedBytes: number; journaledBytes: number }
  totals: { requests: number; mutations: number; failures: number; capturedBytes: number }
  ring: { path: string; bytes: number; usedBytes: number; waits: number; refusals: number }
  journal: {
    path: string
    frames: number
    firstSeq: number
    lastSeq: number
    usedBytes: number
    freeBytes: number
    fileBytes: number
    lastCommitNs: number
    /** Error code while it takes no frames. */
    failure: string | null
    retainBytes: number | null
    retainAgeMs: number | null
    prunedToSeq: number
  }
  checkpoint: { seq: number; time: string } | null
  recapture: {
    needed: boolean
    reason: string | null
    running: boolean
    objects: number
    imaged: number
    bytes: number
    errors: number
  }
  outOfBand: { watching: boolean; events: number; objects: number }
  /** Replicas that this volume is shipped to. */
  replicas: ReplicaStatus[]
  /** When replies are held until replicas have it. */
  acknowledge: AcknowledgeStatus
  /** What can be looked at of the past. */
  history: HistoryStatus
  /** Snapshots that this daemon takes by itself. */
  schedules: ScheduleStatus[]
  /** How far replicas may apply, of a member of a group that has a commit horizon; null: all. */
  horizon: HorizonStatus | null
  lastFsyncNs: number
  held: boolean
  inodes: number
  descriptors: number
  /** Codes of segments, with replicas: made valid by this process and still so; walks; null without. */
  codes: { valid: number; passes: number; running: boolean } | null
  /** Panics contained in the data plane: anything but 0 is a defect. */
  panics: number
  operations: Record<string, number>
}

/** What is told of a volume that was stopped. */
export interface Stopped {
  /** Changes that the journal did not take in time: the next start takes them from the ring. */
  inRingBytes: number
}

export interface StatusInputs {
  volume: Volume
  state: VolumeState
  since: Date
  version: string
  stats: VolumeStats
  report: DrainReport | undefined
  need: RecaptureNeed | null
  watcher: WatcherCounters | null
  rates: Status['rates']
  /** Wall-clock time (ns) at which the journal was last seen to have everything. */
  caughtUpAtNs: bigint
  nowNs: bigint
  ringPath: string
  journalPath: string
  checkpoint: { seq: bigint; timeNs: bigint } | null
  replicas: ReplicaStatus[]
  acknowledge: AcknowledgeStatus
  history: HistoryStatus
  schedules: ScheduleStatus[]
  horizon: HorizonStatus | null
}

export function makeStatus(inputs: StatusInputs): Status {
  const { volume, stats, report, need, watcher, checkpoint } = inputs
  const { config, stateDirectory } = volume
  const journal = report?.journal
  const failure = report?.failure ?? null
  // Nothing captured by this process yet: the last change is the journal's.
  const capturedAtNs = stats.capturedAt > 0n ? stats.capturedAt : stats.journaledAt
  return {
    name: config.name,
    uuid: config.uuid,
    state: inputs.state,
    reason: failure?.message ?? need?.reason ?? null,
    pid: process.pid,
    version: inputs.version,
    since: inputs.since.toISOString(),
    backing: config.backing,
    mountpoint: config.mountpoint,
    stateDirectory,
    writeback: config.options.writeback,
    captured: { seq: Number(stats.capturedSeq), time: isoTime(capturedAtNs) },
    journaled: { seq: Number(stats.journaledSeq), time: isoTime(stats.journaledAt) },
    lag: {
      records: Number(stats.capturedSeq - stats.journaledSeq),
      bytes: Number(stats.capturedBytes - stats.journaledBytes),
      seconds: lagSeconds(inputs),
    },
    rates: inputs.rates,
    totals: {
      requests: Number(stats.requests),
      mutations: Number(stats.mutations),
      failures: Number(stats.failures),
      capturedBytes: Number(stats.capturedBytes),
    },
    ring: {
      path: inputs.ringPath,
      bytes: stats.ringBytes,
      usedBytes: stats.ringUsedBytes,
      waits: Number(stats.ringWaits),
      refusals: Number(stats.ringRefusals),
    },
    journal: {
      path: inputs.journalPath,
      frames: journal?.frames ?? 0,
      firstSeq: Number(journal?.firstSeq ?? 0n),
      lastSeq: Number(journal?.lastSeq ?? 0n),
      usedBytes: journal?.usedBytes ?? 0,
      freeBytes: journal?.freeBytes ?? 0,
      fileBytes: journal?.fileBytes ?? 0,
      lastCommitNs: report?.lastCommitNs ?? 0,
      failure: failure?.code ?? null,
      retainBytes: config.options.retainBytes,
      retainAgeMs: config.options.retainAgeMs,
      prunedToSeq: Number(report?.meta.horizon?.lastSeq ?? 0n),
    },
    checkpoint: checkpoint && {
      seq: Number(checkpoint.seq),
      time: isoTime(checkpoint.timeNs) ?? '',
    },
    recapture: {
      needed: need !== null,
      reason: need?.reason ?? null,
      running: stats.scanning,
      objects: Number(stats.scanObjects),
      imaged: Number(stats.scanImaged),
      bytes: Number(stats.scanBytes),
      errors: Number(stats.scanErrors),
    },
    outOfBand: {
      watching: watcher !== null,
      events: watcher?.events ?? 0,
      objects: watcher?.objects ?? 0,
    },
    replicas: inputs.replicas,
    acknowledge: inputs.acknowledge,
    history: inputs.history,
    schedules: inputs.schedules,
    horizon: inputs.horizon,
    lastFsyncNs: Number(stats.lastFsyncNs),
    held: stats.held,
    inodes: stats.inodes,
    descriptors: stats.openDescriptors,
    codes: stats.codes ?? null,
    panics: stats.panics,
    operations: stats.ops,
  }
}

/**
 * How old the oldest change is that the journal lacks: at most the distance of the last captured to
 * the last journaled one (long, after an idle hour), and at most the time since nothing lacked.
 */
function lagSeconds({ stats, caughtUpAtNs, nowNs }: StatusInputs): number {
  if (stats.capturedSeq <= stats.journaledSeq) return 0
  const distance = stats.capturedAt - stats.journaledAt
  const sinceCaughtUp = nowNs - caughtUpAtNs
  const lag = stats.journaledAt > 0n && distance < sinceCaughtUp ? distance : sinceCaughtUp
  return Math.max(0, Number(lag) / 1e9)
}

/** ns since the epoch as ISO 8601 with milliseconds; null for 0. */
function isoTime(ns: bigint): string | null {
  return ns === 0n ? null : new Date(Number(ns / 1_000_000n)).toISOString()
}

/** Rates over the last few samples, taken once a second. */
export class RateMeter {
  readonly #samples: { at: number; values: Status['rates'] }[] = []
  static readonly #SAMPLES_MAX = 5

  sample(stats: VolumeStats, at = performance.now()): void {
    const values = {
      requests: Number(stats.requests),
      mutations: Number(stats.mutations),
      capturedBytes: Number(stats.capturedBytes),
      journaledBytes: Number(stats.journaledBytes),
    }
    this.#samples.push({ at, values })
    if (this.#samples.length > RateMeter.#SAMPLES_MAX) this.#samples.shift()
  }

  get rates(): Status['rates'] {
    const first = this.#samples[0]
    const last = this.#samples[this.#samples.length - 1]
    if (first === undefined || last === undefined || last.at === first.at) {
      return { requests: 0, mutations: 0, capturedBytes: 0, journaledBytes: 0 }
    }
    const rate = (name: keyof Status['rates']) =>
      Math.round(((last.values[name] - first.values[name]) * 1000) / (last.at - first.at))
    return {
      requests: rate('requests'),
      mutations: rate('mutations'),
      capturedBytes: rate('capturedBytes'),
      journaledBytes: rate('journaledBytes'),
    }
  }
}
