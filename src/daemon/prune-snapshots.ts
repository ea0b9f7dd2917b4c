/**
 * Applies a policy to the snapshots of this host: what it does not keep is destroyed, hooks and all.
 * Never one that is in use, and never what is no whole snapshot: that counts for nothing either.
 */
import { type ErrorReport, HoldfastError, toHoldfastError } from '../lib/errors.js'
import { applyPolicy, isEmpty, type Policy } from '../snapshot/retention.js'
import { destroySnapshot } from './destroy-snapshot.js'
import type { HookOptions } from './hooks.js'
import { isInUse } from './in-use.js'
import { listSnapshots, type Snapshot } from './snapshots.js'

export interface PruneSnapshotsRequest extends HookOptions {
  policy: Policy
  /** Only snapshots that this volume is in. */
  volume?: string | undefined
  /** Only snapshots with all of these. */
  labels?: Readonly<Record<string, string>> | undefined
  /** Of which snapshots the policy keeps so many: of all, or of those of the same volumes. */
  per?: 'volumes' | 'all'
  dryRun?: boolean
}

/** What becomes of one, newest first. */
export interface PrunedSnapshot {
  name: string
  created: string
  volumes: string[]
  keep: boolean
  /** Why it is kept. */
  reasons: string[]
  /** It was to go, and is still there. */
  error: ErrorReport | null
}

/** USAGE: a policy that keeps nothing by itself would be a mistake. */
export async function pruneSnapshots(request: PruneSnapshotsRequest): Promise<PrunedSnapshot[]> {
  const { policy, volume, labels = {}, per = 'volumes', dryRun = false, ...hooks } = request
  if (isEmpty(policy)) {
    throw new HoldfastError('USAGE', 'nothing says what is to be kept', {
      op: 'snapshot.prune',
      hint: 'Give at least one of --keep-last, --keep-daily, …',
    })
  }
  const wanted = Object.entries(labels)
  const whole = listSnapshots(volume).filter((each) => {
    return each.state !== 'incomplete' && wanted.every(([key, value]) => each.labels[key] === value)
  })
  const groups = new Map<string, Snapshot[]>()
  for (const each of whole) {
    const key = per === 'all' ? '' : volumesOf(each).join(' ')
    groups.set(key, [...(groups.get(key) ?? []), each])
  }
  const results: PrunedSnapshot[] = []
  for (const group of groups.values()) {
    for (const { snapshot, keep, reasons } of applyPolicy(group, policy, Date.now())) {
      const { name, created } = snapshot
      const use = keep ? null : await isInUse(snapshot)
      const stays = keep || use !== null
      const error = stays || dryRun ? null : await destroyed(name, hooks)
      const why = use === null ? reasons : [`in use: ${use}`]
      const volumes = volumesOf(snapshot)
      results.push({ name, created, volumes, keep: stays, reasons: why, error })
    }
  }
  return results
}

/** One that cannot go keeps no other from going. */
async function destroyed(name: string, hooks: HookOptions): Promise<ErrorReport | null> {
  try {
    await destroySnapshot(name, hooks)
    return null
  } catch (error) {
    return toHoldfastError(error, 'snapshot.prune').toJSON()
  }
}

function volumesOf({ members }: Snapshot): string[] {
  return members.map(({ volume }) => volume).sort()
}
