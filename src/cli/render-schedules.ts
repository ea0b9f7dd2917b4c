/** Schedules for people. */
import type { ScheduleStatus } from '../daemon/scheduler.js'
import type { KnownSchedule } from '../daemon/schedules.js'
import { formatDuration } from '../lib/format.js'
import { describePolicy } from '../snapshot/retention.js'
import { out, table } from './output.js'

/** A line of the status. */
export function scheduleText(schedule: ScheduleStatus): string {
  const { name, volumes, next, running, snapshot, problem } = schedule
  const parts = [
    `${out.bold(name)} of ${volumes.join(', ')}`,
    running ? 'running' : `next ${next ?? 'never'}`,
    `last ${snapshot ?? '-'}`,
    ...(problem === null ? [] : [out.red(problem)]),
  ]
  return parts.join(', ')
}

/** `what`: of what they take snapshots, and how that is told. */
export function scheduleTable<Known extends Omit<KnownSchedule, 'volumes'>>(
  schedules: readonly Known[],
  [what, of]: [string, (schedule: Known) => string],
): string {
  const rows = schedules.map((schedule) => {
    const { name, everyMs, cron, keep, next, run } = schedule
    return [
      name,
      of(schedule),
      everyMs === null ? `${cron}` : `every ${formatDuration(everyMs * 1e6)}`,
      describePolicy(keep),
      next ?? 'never',
      (run?.snapshot ?? '-') + (run?.running === true ? ', running' : ''),
      run?.error ? out.red(run.error.message) : '',
    ]
  })
  return table([['NAME', what, 'WHEN', 'KEEPS', 'NEXT', 'LAST', ''], ...rows])
}
