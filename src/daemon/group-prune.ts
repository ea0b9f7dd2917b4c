/**
 * Applies a policy to the snapshots of a group: what it does not keep is forgotten on all hosts. Only whole
 * ones count for the policy; one of which a host has lost its part goes when it would, were it whole.
 */
import { type ErrorReport, HoldfastError, toHoldfastError } from '../lib/errors.js'
import { applyPolicy, isEmpty, type Policy } from '../snapshot/retention.js'
import type { GroupOptions } from './group-links.js'
import { destroyGroupSnapshot, type KnownGroupSnapshot, listGroupSnapshots } from './groups.js'

export interface PruneGroupRequest extends GroupOptions {
  group: string
  policy: Policy
  /** Only snapshots with all of these. */
  labels?: Readonly<Record<string, string>> | undefined
  dryRun?: boolean
}

/** What becomes of one, newest first. */
export interface PrunedGroupSnapshot {
  name: string
  created: string
  keep: boolean
  /** Why it is kept. */
  reasons: string[]
  /** It was to go, and is still there, on some host at least. */
  error: ErrorReport | null
}

/** USAGE: a policy that keeps nothing by itself would be a mistake. GROUP_NOT_FOUND. */
export async function pruneGroupSnapshots({
  group,
  policy,
  labels = {},
  dryRun = false,
  ...options
}: PruneGroupRequest): Promise<PrunedGroupSnapshot[]> {
  if (isEmpty(policy)) {
    throw new HoldfastError('USAGE', 'nothing says what is to be kept', {
      op: 'group.prune',
      hint: 'Give at least one of --keep-last, --keep-daily, …',
    })
  }
  const wanted = Object.entries(labels)
  const own = (await listGroupSnapshots(group, options)).filter((each) => {
    return each.owner === null && wanted.every(([key, value]) => each.labels[key] === value)
  })
  const results: PrunedGroupSnapshot[] = []
  for (const { snapshot, keep, reasons } of judged(own, policy)) {
    const { name, created } = snapshot
    const error = keep || dryRun ? null : await destroyed(group, name, options)
    results.push({ name, created, keep, reasons, error })
  }
  return results
}

function judged(own: readonly KnownGroupSnapshot[], policy: Policy) {
  const now = Date.now()
  const isBroken = ({ state }: KnownGroupSnapshot) => state === 'incomplete'
  const whole = own.filter((each) => !isBroken(each))
  const broken = own.filter(isBroken).flatMap((each) => {
    return applyPolicy([...whole, each], policy, now).filter(({ snapshot }) => snapshot === each)
  })
  const all = [...applyPolicy(whole, policy, now), ...broken]
  return all.sort((a, b) => b.snapshot.created.localeCompare(a.snapshot.created))
}

/** One that cannot go keeps no other from going. */
async function destroyed(
  group: string,
  name: string,
  options: GroupOptions,
): Promise<ErrorReport | null> {
  try {
    await destroyGroupSnapshot(group, name, options)
    return null
  } catch (error) {
    return toHoldfastError(error, 'group.prune').toJSON()
  }
}
