/**
 * When a schedule is due, as a pure function of the clock and of what was done last. Two things hold:
 * a time that was missed is made up for once, not once for each time; and a clock that jumps, forward
 * or back, causes one snapshot at most. The one file that imports `croner`.
 */
import { Cron } from 'croner'
import { z } from 'zod'
import { HoldfastError } from '../lib/errors.js'
import {
  HOLD_MS_MAX,
  SCHEDULE_EVERY_MS_MAX,
  SCHEDULE_EVERY_MS_MIN,
  SCHEDULE_NAME_MAX,
} from '../lib/limits.js'
import { NAME } from '../lib/names.js'
import type { Policy } from './retention.js'

const count = z.union([z.int().min(0), z.literal('all')]).optional()
const whole = z.int().min(0)

export const PolicySchema = z.strictObject({
  last: count,
  hourly: count,
  daily: count,
  weekly: count,
  monthly: count,
  yearly: count,
  within: z.strictObject({ years: whole, months: whole, days: whole, hours: whole }).optional(),
  labels: z.array(z.record(z.string(), z.string())).optional(),
}) satisfies z.ZodType<Policy>

const ScheduleFields = z.strictObject({
  name: z.string().regex(NAME).max(SCHEDULE_NAME_MAX),
  /** Names of the volumes; the daemon of the first one runs it. */
  volumes: z.array(z.string()).min(1),
  /** At all whole multiples of this since the epoch; or by a cron expression, in local time. */
  everyMs: z.int().min(SCHEDULE_EVERY_MS_MIN).max(SCHEDULE_EVERY_MS_MAX).nullable(),
  cron: z.string().nullable(),
  keep: PolicySchema,
  labels: z.record(z.string(), z.string()),
  maxHoldMs: z.int().min(1).max(HOLD_MS_MAX),
  /** Hooks are run. */
  hooks: z.boolean(),
  /** When it was set, ms since the epoch: nothing before that was missed. */
  since: z.int().min(0),
})
export type Schedule = z.infer<typeof ScheduleFields>
export type Timing = Pick<Schedule, 'everyMs' | 'cron'>

export const ScheduleSchema = timed(ScheduleFields)
/** One of a group has no volumes of its own. */
export const AnyScheduleFields = ScheduleFields.omit({ volumes: true })

/** With a time at which it is due: whoever runs it must not meet what is none. */
export function timed<Any extends Timing>(schema: z.ZodType<Any>): z.ZodType<Any> {
  return schema.superRefine(({ everyMs, cron }, context) => {
    if ((everyMs === null) === (cron === null)) {
      context.addIssue({
        code: 'custom',
        path: ['everyMs'],
        message: 'either everyMs or cron says when',
      })
      return
    }
    try {
      nextTime({ everyMs, cron }, 0)
    } catch (error) {
      context.addIssue({
        code: 'custom',
        path: ['cron'],
        message: (error as HoldfastError).message,
      })
    }
  })
}

/** The label by which a snapshot is known to be a schedule's. */
export const SCHEDULE_LABEL = 'schedule'

/** The first time after `after`, both ms since the epoch; null: never. USAGE: a wrong expression. */
export function nextTime({ everyMs, cron }: Timing, after: number): number | null {
  if (everyMs !== null) return (Math.floor(after / everyMs) + 1) * everyMs
  try {
    return new Cron(cron ?? '', { paused: true }).nextRun(new Date(after))?.getTime() ?? null
  } catch (cause) {
    const message = `${JSON.stringify(cron)} is no cron expression: ${(cause as Error).message}`
    throw new HoldfastError('USAGE', message, {
      op: 'schedule',
      cause,
      hint: "Five fields: minute hour day month weekday, e.g. '0 3 * * *'.",
    })
  }
}

export interface Due {
  due: boolean
  /** When it is to run, or was to; null: never. */
  next: number | null
  /** From when times are counted: `last`, or now when the clock has gone back behind it. */
  last: number
}

/** By how much a clock may be behind the last run without having been set back. */
const BEHIND_MS = 5_000

/** `last`: when it ran last, or was set; ms since the epoch, as `now`. */
export function isDue(timing: Timing, { last, now }: { last: number; now: number }): Due {
  const from = last > now + BEHIND_MS ? now : last
  const next = nextTime(timing, from)
  return { due: next !== null && now >= next, next, last: from }
}

/** `auto` at 10:15 → `auto-2026-11-22T10-15-00Z` */
export function snapshotName({ name }: Pick<Schedule, 'name'>, now: number): string {
  return `${name}-${new Date(now).toISOString().slice(0, 19).replaceAll(':', '-')}Z`
}
