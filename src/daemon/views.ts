/**
 * Frozen views, for whoever reads the past: mounted by the daemon of the volume, gone with the process
 * that asked for them.
 */
import { HoldfastError } from '../lib/errors.js'
import type { ChangedObjects } from '../lib/native-history.js'
import { seqIn } from '../snapshot/certificate.js'
import { ControlClient } from './client.js'
import type { HistoryMode } from './history.js'
import { viewPath } from './places.js'
import { findVolume } from './registry.js'
import { listSnapshots } from './snapshots.js'

/** A mounted view. */
export interface OpenView {
  path: string
  seq: bigint
  /** Unmounts it, also while somebody uses it. Idempotent. */
  close(): Promise<void>
}

export interface ViewOptions {
  /** Name, mountpoint or directory of the volume. */
  volume: string
  seq: bigint
  /** Default: below the run directory. */
  path?: string | undefined
  /** Name of the snapshot that it is. */
  snapshot?: string | undefined
}

/** What of a volume's past can be looked at. */
export interface HistoryRange {
  mode: HistoryMode
  /** Any moment from here on; null: snapshots only. */
  fromSeq: bigint | null
  toSeq: bigint
  snapshots: { name: string; seq: bigint; createdMs: number }[]
}

/** Views that this process has opened. */
let opened = 0

/** Mounts a view that ends with this process. HISTORY_RANGE, HISTORY_OFF, VOLUME_NOT_RUNNING, BUSY. */
export async function openView(options: ViewOptions): Promise<OpenView> {
  const { config } = findVolume(options.volume)
  const client = new ControlClient(config.name)
  const { seq, snapshot = null } = options
  // The one before may still be on its way out.
  opened += 1
  const path = options.path ?? viewPath(config.name, `${seq}-${process.pid}-${opened}`)
  const request = { seq: Number(seq), path, snapshot, ownerPid: process.pid }
  const view = await client.mountView(request)
  let closed = false
  return {
    path: view.path,
    seq,
    close: async () => {
      if (closed) return
      closed = true
      await client.unmountView(view.id, true)
    },
  }
}

export async function historyRange(volume: string): Promise<HistoryRange> {
  const { config } = findVolume(volume)
  const { history, captured } = await new ControlClient(config.name).status()
  const snapshots = listSnapshots(config.name).map((each) => {
    const seq = BigInt(seqIn(each, config.uuid) ?? 0)
    return { name: each.name, seq, createdMs: Date.parse(each.created) }
  })
  return {
    mode: history.mode,
    fromSeq: history.fromSeq === null ? null : BigInt(history.fromSeq),
    toSeq: BigInt(captured.seq),
    snapshots,
  }
}

/** What can differ between two moments (undefined: now); undefined where only a walk can tell. */
export async function changedBetween(
  volume: string,
  after: bigint,
  upTo: bigint | undefined,
): Promise<ChangedObjects | undefined> {
  return new ControlClient(findVolume(volume).config.name).changed(after, upTo)
}

/** The last seq of a volume at a time (ms since the epoch). HISTORY_RANGE, HISTORY_OFF. */
export async function seqAtTime(volume: string, timeMs: number): Promise<bigint> {
  if (timeMs > Date.now()) {
    throw new HoldfastError('HISTORY_RANGE', 'that time is in the future', { op: 'history' })
  }
  return new ControlClient(findVolume(volume).config.name).seqAt(timeMs)
}
