/**
 * Schedules of snapshots of groups, as the coordinator keeps them: `schedules.json` beside the group is the
 * operator's, `schedules-state.json` is written by whoever runs them (`group-schedule-runs.ts`).
 */
import { join } from 'node:path'
import { z } from 'zod'
import { CutMethodSchema, Groups } from '../group/definition.js'
import { HoldfastError } from '../lib/errors.js'
import { writeFileDurably } from '../lib/files.js'
import { AnyScheduleFields, timed } from '../snapshot/schedule.js'
import { hostDirectory } from './places.js'
import {
  checked,
  type Run,
  readKept,
  readRuns,
  type ScheduleTerms,
  termsOf,
  withRun,
} from './schedules.js'

const FILE = 'schedules.json'
const VERSION = 1
const op = 'group.schedule'

export const GroupScheduleSchema = timed(
  AnyScheduleFields.extend({ method: z.enum([...CutMethodSchema.options, 'auto']) }),
)
export type GroupSchedule = z.infer<typeof GroupScheduleSchema>

export type KnownGroupSchedule = Run<GroupSchedule> & { group: string }

const FileSchema = z.strictObject({
  version: z.literal(VERSION),
  schedules: z.array(GroupScheduleSchema),
})

export interface GroupScheduleRequest extends ScheduleTerms {
  group: string
  /** Default: that of the group. Snapshots of a host have names of their own: so have these schedules. */
  name?: string | undefined
  method?: GroupSchedule['method'] | undefined
}

const groups = () => new Groups(hostDirectory())

/** Sets one, or changes it. USAGE, GROUP_NOT_FOUND, SCHEDULE_EXISTS. */
export function setGroupSchedule(request: GroupScheduleRequest, now = Date.now()): GroupSchedule {
  const { name: group } = groups().get(request.group)
  const { name = group, method = 'auto' } = request
  const made = checked(GroupScheduleSchema, { name, method, ...termsOf(request, now) })
  const other = groupOf(name)
  if (other !== undefined && other !== group) {
    throw new HoldfastError('SCHEDULE_EXISTS', `${other} has a schedule ${name} already`, {
      op,
      hint: 'Choose another --name.',
    })
  }
  const others = readGroupSchedules(group).filter((each) => each.name !== name)
  write(group, [...others, made])
  return made
}

/** Its snapshots stay. SCHEDULE_NOT_FOUND. */
export function removeGroupSchedule(name: string): void {
  const group = groupOf(name)
  if (group === undefined) {
    throw new HoldfastError('SCHEDULE_NOT_FOUND', `there is no schedule ${name} of a group`, {
      op,
      hint: 'See what there is: holdfast group snapshot schedule list',
    })
  }
  write(
    group,
    readGroupSchedules(group).filter((each) => each.name !== name),
  )
}

/** Those of all groups, or of one, with how they have run. GROUP_NOT_FOUND. */
export function listGroupSchedules(which?: string): KnownGroupSchedule[] {
  const named = which === undefined ? groups().list() : [groups().get(which)]
  return named.flatMap(({ name: group }) => {
    const runs = readRuns(groups().directory(group))
    return readGroupSchedules(group).map((schedule) => {
      return { group, ...withRun(schedule, runs[schedule.name] ?? null) }
    })
  })
}

/** UNKNOWN_FORMAT. */
export function readGroupSchedules(group: string): GroupSchedule[] {
  return readKept(join(groups().directory(group), FILE), FileSchema)?.schedules ?? []
}

/** Which group has a schedule of that name. */
function groupOf(schedule: string): string | undefined {
  return groups()
    .list()
    .map(({ name }) => name)
    .find((group) => readGroupSchedules(group).some(({ name }) => name === schedule))
}

function write(group: string, schedules: GroupSchedule[]): void {
  const text = JSON.stringify({ version: VERSION, schedules }, null, 2)
  writeFileDurably(join(groups().directory(group), FILE), `${text}\n`)
}
