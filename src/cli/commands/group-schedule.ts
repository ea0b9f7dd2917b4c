/** `holdfast group snapshot schedule set|list|remove`, `holdfast group snapshot run-schedules` */
import type { Command } from 'commander'
import type { KnownGroupSchedule } from '../../daemon/group-schedules.js'
import { HoldfastError } from '../../lib/errors.js'
import { describePolicy } from '../../snapshot/retention.js'
import { durationArgument } from '../arguments.js'
import { type CutFlags, MAX_HOLD, methodOption } from '../cut-arguments.js'
import { addKeepOptions, type KeepFlags, labelArgument, policyOf } from '../keep-arguments.js'
import { interruptSignal, out, print, printJson } from '../output.js'
import { scheduleTable } from '../render-schedules.js'

interface SetFlags extends KeepFlags, Pick<CutFlags, 'method' | 'maxHold' | 'label' | 'hooks'> {
  name?: string
  every?: number
  cron?: string
  json?: boolean
}

type JsonFlag = { json?: boolean }

const daemon = () => import('../../daemon/group-schedules.js')

export function addGroupSchedules(snapshot: Command): void {
  const schedule = snapshot
    .command('schedule')
    .summary('snapshots by the clock')
    .description(
      'When snapshots of a group are to be taken, and how many of them stay. A timer, or cron, has ' +
        'them run on this host: `holdfast group snapshot run-schedules`.',
    )
    .addHelpText(
      'after',
      '\nExample:\n  holdfast group snapshot schedule set shop --every 1h --keep-hourly 24',
    )
  addSet(schedule)
  schedule
    .command('list')
    .summary('those there are, and how they ran')
    .argument('[group]', 'only those of this group')
    .option('--json', 'as JSON')
    .action(async (group: string | undefined, { json = false }: JsonFlag) => {
      const { listGroupSchedules } = await daemon()
      const found = listGroupSchedules(group)
      if (json) return printJson({ schedules: found })
      const of = ({ group }: KnownGroupSchedule) => group
      print(found.length === 0 ? 'no schedules' : scheduleTable(found, ['GROUP', of]))
    })
  schedule
    .command('remove')
    .summary('end one; its snapshots stay')
    .argument('<name>', 'the schedule')
    .action(async (name: string) => {
      const { removeGroupSchedule } = await daemon()
      removeGroupSchedule(name)
      print(`schedule ${out.bold(name)} is removed; its snapshots stay`)
    })
  addRun(snapshot)
}

function addSet(schedule: Command): void {
  const set = schedule
    .command('set')
    .summary('set one, or change it')
    .description(
      'After each snapshot, those of this schedule that no rule keeps are forgotten on all hosts; without ' +
        'a rule all stay. Times that were missed, because nothing ran them, are made up for once.',
    )
    .argument('<group>')
    .option('--name <name>', 'of the schedule; its snapshots begin with it (default: the group)')
    .option('--every <time>', 'at all whole multiples of this', durationArgument)
    .option('--cron <expression>', "five fields, in local time, such as '0 3 * * *'")
  addKeepOptions(set)
    .option('--label <key=value>', 'a note to each snapshot; again for more', labelArgument)
    .option(...MAX_HOLD)
    .addOption(methodOption())
    .option('--no-hooks', 'run none, on no host')
    .option('--json', 'as JSON')
    .addHelpText(
      'after',
      `
Examples:
  holdfast group snapshot schedule set shop --every 15m --keep-last 96 --keep-daily 14
  holdfast group snapshot schedule set shop --name nightly --cron '0 3 * * *' --keep-weekly 8`,
    )
    .action(async (group: string, flags: SetFlags) => {
      const { setGroupSchedule } = await daemon()
      const { name, every: everyMs, cron, label: labels, maxHold: maxHoldMs, hooks, method } = flags
      const terms = { everyMs, cron, keep: policyOf(flags), labels, maxHoldMs, hooks }
      const made = setGroupSchedule({ group, name, method, ...terms })
      if (flags.json === true) return printJson(made)
      print(`schedule ${out.bold(made.name)} of ${group}; keeps ${describePolicy(made.keep)}`)
      print(out.dim('  have it run by a timer: holdfast group snapshot run-schedules'))
    })
}

function addRun(snapshot: Command): void {
  snapshot
    .command('run-schedules')
    .summary('take what is due by the schedules, and end')
    .description(
      'For a systemd timer or cron, each minute, say (docs/GROUPS.md). Takes the snapshots that are due, ' +
        'forgets those that their schedules do not keep, and ends; says nothing when nothing is due. One ' +
        'at a time: a second one is refused. Ends with 1 when something has failed.',
    )
    .argument('[group]', 'only those of this group')
    .option('--json', 'as JSON')
    .action(async (group: string | undefined, { json = false }: JsonFlag) => {
      const { runGroupSchedules } = await import('../../daemon/group-schedule-runs.js')
      const results = await runGroupSchedules({ group, signal: interruptSignal() })
      if (json) printJson({ runs: results })
      else {
        for (const { group, schedule, snapshot, pruned } of results) {
          if (snapshot === null) continue
          const gone = pruned.length === 0 ? '' : `; forgotten: ${pruned.join(', ')}`
          print(`${out.bold(snapshot)} of ${group} by ${schedule}${gone}`)
        }
      }
      const failed = results.filter(({ error }) => error !== null)
      const [first] = failed
      if (first?.error == null) return
      const { group: where, schedule, error } = first
      const message = `${where}, ${schedule ?? 'its schedules'}: ${error.message}`
      const more = failed.length === 1 ? '' : ` (and ${failed.length - 1} more)`
      throw HoldfastError.from({ ...error, message: message + more })
    })
}
