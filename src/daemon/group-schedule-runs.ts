/**
 * Runs the schedules of groups that are due, once, and ends: for a timer or cron, or for a service that looks
 * now and then. Which are due is a pure function of what is kept and the clock.
 *
 * One at a time on a host; that a run was begun is on disk before it is, so a crash repeats nothing.
 */
import { Groups } from '../group/definition.js'
import { takeLock } from '../lib/abstract-lock.js'
import { type ErrorReport, HoldfastError, toHoldfastError } from '../lib/errors.js'
import { isEmpty } from '../snapshot/retention.js'
import { isDue, SCHEDULE_LABEL, snapshotName } from '../snapshot/schedule.js'
import type { GroupOptions } from './group-links.js'
import { pruneGroupSnapshots } from './group-prune.js'
import { type GroupSchedule, readGroupSchedules } from './group-schedules.js'
import { createGroupSnapshot } from './groups.js'
import { hostDirectory, runDirectory } from './places.js'
import {
  interrupted,
  lastOf,
  NEVER_RUN,
  readRuns,
  type ScheduleRun,
  writeRuns,
} from './schedules.js'

const op = 'group.schedule'

type Runs = Readonly<Record<string, ScheduleRun>>

/** A schedule that is to run now. */
export interface DueRun {
  schedule: GroupSchedule
  /** What its snapshot is called. */
  snapshot: string
}

export interface Decision {
  due: DueRun[]
  /** To be kept before anything is run: of the schedules there are, with those that are due as begun. */
  runs: Record<string, ScheduleRun>
}

/** How a schedule has run. */
export interface GroupScheduleResult {
  group: string
  schedule: string | null
  /** What was taken; null: nothing. */
  snapshot: string | null
  pruned: string[]
  error: ErrorReport | null
}

/** Which are due at `now`, ms since the epoch, when nothing else runs them. */
export function decide(schedules: readonly GroupSchedule[], known: Runs, now: number): Decision {
  const decision: Decision = { due: [], runs: {} }
  for (const schedule of schedules) {
    const { name, since } = schedule
    const kept = known[name] ?? null
    const before = kept?.running === true ? interrupted(kept) : kept
    const { due, last } = isDue(schedule, { last: lastOf(schedule, before), now })
    const run = { ...(before ?? NEVER_RUN), since, last }
    decision.runs[name] = due ? { ...run, last: now, running: true, runs: run.runs + 1 } : run
    if (due) decision.due.push({ schedule, snapshot: snapshotName(schedule, now) })
  }
  return decision
}

/** Runs what is due of one group, or of all. GROUP_NOT_FOUND, BUSY; what fails is in the results. */
export async function runGroupSchedules({
  group,
  now = Date.now,
  ...options
}: { group?: string | undefined; now?: () => number } & GroupOptions = {}): Promise<
  GroupScheduleResult[]
> {
  const groups = new Groups(hostDirectory())
  const named = group === undefined ? groups.list() : [groups.get(group)]
  const turn = await takeLock('group-schedules', runDirectory()).catch((cause: unknown) => {
    throw new HoldfastError('BUSY', 'schedules of groups are being run already', { op, cause })
  })
  try {
    const results: GroupScheduleResult[] = []
    for (const { name } of named) results.push(...(await runOf(name, now(), options)))
    return results
  } finally {
    turn.close()
  }
}

async function runOf(
  group: string,
  now: number,
  options: GroupOptions,
): Promise<GroupScheduleResult[]> {
  const directory = new Groups(hostDirectory()).directory(group)
  const results: GroupScheduleResult[] = []
  try {
    const known = readRuns(directory)
    const { due, runs } = decide(readGroupSchedules(group), known, now)
    if (JSON.stringify(runs) !== JSON.stringify(known)) writeRuns(directory, runs)
    for (const each of due) {
      const result = await runOne(group, each, options)
      const { name } = each.schedule
      const run = runs[name]
      if (run !== undefined) runs[name] = ended(run, result)
      writeRuns(directory, runs)
      results.push(result)
    }
  } catch (error) {
    // What is not known to have run would run again and again: it is not run at all.
    const none = { group, schedule: null, snapshot: null, pruned: [] }
    results.push({ ...none, error: toHoldfastError(error, op).toJSON() })
  }
  return results
}

/** Takes it, then applies the schedule's policy to its own: only after a snapshot. Never rejects. */
async function runOne(
  group: string,
  { schedule, snapshot }: DueRun,
  options: GroupOptions,
): Promise<GroupScheduleResult> {
  const { name, labels, maxHoldMs, method, hooks, keep } = schedule
  const own = { [SCHEDULE_LABEL]: name }
  const result = { group, schedule: name, snapshot: null, pruned: [], error: null }
  try {
    const order = { name: snapshot, labels: { ...labels, ...own }, maxHoldMs, method, hooks }
    await createGroupSnapshot({ group, ...order, ...options })
  } catch (error) {
    return { ...result, error: toHoldfastError(error, op).toJSON() }
  }
  if (isEmpty(keep)) return { ...result, snapshot }
  try {
    const all = await pruneGroupSnapshots({ group, policy: keep, labels: own, ...options })
    const error = all.find((each) => each.error !== null)?.error ?? null
    const pruned = all.filter((each) => !each.keep && each.error === null).map((each) => each.name)
    return { ...result, snapshot, pruned, error }
  } catch (error) {
    return { ...result, snapshot, error: toHoldfastError(error, op).toJSON() }
  }
}

function ended(run: ScheduleRun, { snapshot, error }: GroupScheduleResult): ScheduleRun {
  return {
    ...run,
    running: false,
    ...(snapshot === null ? {} : { snapshot, succeeded: new Date().toISOString() }),
    error,
    failures: run.failures + (error === null ? 0 : 1),
  }
}
