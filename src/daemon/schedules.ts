/**
 * Schedules of snapshots as they are kept: `schedules.json` in the state directory of the first of
 * their volumes is the operator's, `schedules-state.json` beside it the daemon's. So each file has one
 * writer, and a schedule can be set whether its daemon runs or not.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { type ErrorReport, HoldfastError } from '../lib/errors.js'
import { writeFileDurably } from '../lib/files.js'
import { CUT_HOLD_MS_DEFAULT } from '../lib/limits.js'
import { readStored } from '../lib/stored.js'
import type { Policy } from '../snapshot/retention.js'
import {
  isDue,
  nextTime,
  type Schedule,
  ScheduleSchema,
  type Timing,
} from '../snapshot/schedule.js'
import { findVolume, listVolumes, type Volume } from './registry.js'

const FILE = 'schedules.json'
const STATE_FILE = 'schedules-state.json'
const VERSION = 1

const FileSchema = z.strictObject({
  version: z.literal(VERSION),
  schedules: z.array(ScheduleSchema),
})

const RunSchema = z.object({
  /** Of the schedule as it was set then: one that is set anew counts from anew. */
  since: z.int(),
  /** When it was due and begun, ms since the epoch; times are counted from here. */
  last: z.int(),
  /** What it has taken last; null: nothing yet. */
  snapshot: z.string().nullable(),
  /** ISO time of that. */
  succeeded: z.string().nullable(),
  /** What has failed in the last run; null: nothing. */
  error: z.custom<ErrorReport>().nullable(),
  /** It is under way, or was when its daemon died. */
  running: z.boolean(),
  runs: z.int(),
  failures: z.int(),
})
export type ScheduleRun = z.infer<typeof RunSchema>

const StateSchema = z.object({ version: z.literal(VERSION), runs: z.record(z.string(), RunSchema) })

/** When, and what stays. */
export interface ScheduleTerms {
  everyMs?: number | undefined
  cron?: string | undefined
  keep: Policy
  labels?: Readonly<Record<string, string>> | undefined
  maxHoldMs?: number | undefined
  hooks?: boolean | undefined
}

export interface ScheduleRequest extends ScheduleTerms {
  volumes: readonly string[]
  /** Default: `auto`, or `auto-VOLUME` when that is another one's. */
  name?: string | undefined
}

/** A schedule, whatever it takes snapshots of, with how it has run. */
export type Run<Any> = Any & {
  /** ISO time at which it is to run next; null: never. */
  next: string | null
  run: ScheduleRun | null
}
export type KnownSchedule = Run<Schedule>

/** Of a schedule, what says when it is due. */
type Timed = Timing & { since: number }

const op = 'schedule'

/** Sets one, or changes it. USAGE, VOLUME_NOT_FOUND, SCHEDULE_EXISTS. */
export function setSchedule(request: ScheduleRequest, now = Date.now()): Schedule {
  const volumes = [...new Set(request.volumes.map((each) => findVolume(each).config.name))]
  const first = findVolume(volumes[0] ?? '')
  const name = request.name ?? freeName(first)
  const made = checked(ScheduleSchema, { name, volumes, ...termsOf(request, now) })
  const owner = ownerOf(name)
  if (owner !== undefined && owner.config.uuid !== first.config.uuid) {
    const message = `${owner.config.name} has a schedule ${name} already`
    throw new HoldfastError('SCHEDULE_EXISTS', message, { op, hint: 'Choose another --name.' })
  }
  const others = readSchedules(first.stateDirectory).filter((each) => each.name !== name)
  writeSchedules(first.stateDirectory, [...others, made])
  return made
}

/** With what is usual where nothing is said. USAGE. */
export function termsOf(terms: ScheduleTerms, now: number) {
  const { everyMs = null, cron = null, keep, labels = {}, hooks = true } = terms
  const { maxHoldMs = CUT_HOLD_MS_DEFAULT } = terms
  if ((everyMs === null) === (cron === null)) {
    throw new HoldfastError('USAGE', 'give either --every or --cron', { op })
  }
  nextTime({ everyMs, cron }, now)
  return { everyMs, cron, keep, labels, maxHoldMs, hooks, since: now }
}

/** USAGE. */
export function checked<Type>(schema: z.ZodType<Type>, wanted: unknown): Type {
  const parsed = schema.safeParse(wanted)
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  throw new HoldfastError('USAGE', `${issue?.path.join('.')}: ${issue?.message}`, { op })
}

/** Its snapshots stay. SCHEDULE_NOT_FOUND. */
export function removeSchedule(name: string): void {
  const owner = ownerOf(name)
  if (owner === undefined) {
    throw new HoldfastError('SCHEDULE_NOT_FOUND', `there is no schedule ${name}`, {
      op,
      hint: 'See what there is: holdfast snapshot schedule list',
    })
  }
  const { stateDirectory } = owner
  const others = readSchedules(stateDirectory).filter((each) => each.name !== name)
  writeSchedules(stateDirectory, others)
}

/** All of this host, with how they have run; those of one volume. */
export function listSchedules(which?: string): KnownSchedule[] {
  const only = which === undefined ? undefined : findVolume(which).config.name
  return listVolumes().flatMap(({ stateDirectory }) => {
    const runs = readRuns(stateDirectory)
    return readSchedules(stateDirectory)
      .filter(({ volumes }) => only === undefined || volumes.includes(only))
      .map((schedule) => withRun(schedule, runs[schedule.name] ?? null))
  })
}

export function withRun<Any extends Timed>(schedule: Any, run: ScheduleRun | null): Run<Any> {
  const { next } = isDue(schedule, { last: lastOf(schedule, run), now: Date.now() })
  return { ...schedule, next: next === null ? null : new Date(next).toISOString(), run }
}

/** Of a schedule that has not run yet. */
export const NEVER_RUN: Omit<ScheduleRun, 'last' | 'since'> = {
  snapshot: null,
  succeeded: null,
  error: null,
  running: false,
  runs: 0,
  failures: 0,
}

/** One that was under way when whoever ran it died has failed. */
export function interrupted(run: ScheduleRun): ScheduleRun {
  const error = new HoldfastError('ABORTED', 'the run was interrupted', { op: 'schedule.run' })
  return { ...run, running: false, error: error.toJSON(), failures: run.failures + 1 }
}

/** From when the times of a schedule count, ms since the epoch. */
export function lastOf({ since }: { since: number }, run: ScheduleRun | null): number {
  return run?.since === since ? run.last : since
}

/** Whose daemon runs it. */
function ownerOf(name: string): Volume | undefined {
  return listVolumes().find(({ stateDirectory }) => {
    return readSchedules(stateDirectory).some((each) => each.name === name)
  })
}

function freeName(first: Volume): string {
  const owner = ownerOf('auto')
  const isOwn = owner === undefined || owner.config.uuid === first.config.uuid
  return isOwn ? 'auto' : `auto-${first.config.name}`
}

/** UNKNOWN_FORMAT. */
export function readSchedules(stateDirectory: string): Schedule[] {
  return readKept(join(stateDirectory, FILE), FileSchema)?.schedules ?? []
}

export function readRuns(stateDirectory: string): Record<string, ScheduleRun> {
  return readKept(join(stateDirectory, STATE_FILE), StateSchema)?.runs ?? {}
}

export function writeRuns(stateDirectory: string, runs: Record<string, ScheduleRun>): void {
  const text = JSON.stringify({ version: VERSION, runs }, null, 2)
  writeFileDurably(join(stateDirectory, STATE_FILE), `${text}\n`)
}

function writeSchedules(stateDirectory: string, schedules: Schedule[]): void {
  const text = JSON.stringify({ version: VERSION, schedules }, null, 2)
  writeFileDurably(join(stateDirectory, FILE), `${text}\n`)
}

/** undefined: there is none. UNKNOWN_FORMAT. */
export function readKept<Type>(path: string, schema: z.ZodType<Type>): Type | undefined {
  if (!existsSync(path)) return undefined
  return readStored(path, schema, {
    op,
    hint: 'Correct it, or remove it and set the schedules again.',
  })
}
