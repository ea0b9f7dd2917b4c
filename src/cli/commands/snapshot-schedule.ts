/** `holdfast snapshot schedule set|list|remove` */
import type { Command } from 'commander'
import type { KnownSchedule } from '../../daemon/schedules.js'
import { describePolicy } from '../../snapshot/retention.js'
import { durationArgument } from '../arguments.js'
import { addKeepOptions, type KeepFlags, labelArgument, policyOf } from '../keep-arguments.js'
import { out, print, printJson } from '../output.js'
import { scheduleTable } from '../render-schedules.js'

interface SetFlags extends KeepFlags {
  name?: string
  every?: number
  cron?: string
  label?: Record<string, string>
  maxHold?: number
  hooks: boolean
  json?: boolean
}

const daemon = () => import('../../daemon/schedules.js')

export function addScheduleCommands(snapshot: Command): void {
  const schedule = snapshot
    .command('schedule')
    .summary('snapshots by the clock')
    .description(
      'Snapshots that the daemon of the first volume takes by itself, and how many of them stay.',
    )
    .addHelpText(
      'after',
      '\nExample:\n  holdfast snapshot schedule set data --every 15m --keep-last 96',
    )
  addSet(schedule)
  schedule
    .command('list')
    .summary('those there are, and how they ran')
    .argument('[volume]', 'only those of this volume')
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExample:\n  holdfast snapshot schedule list')
    .action(async (which: string | undefined, { json = false }: { json?: boolean }) => {
      const { listSchedules } = await daemon()
      const found = listSchedules(which)
      if (json) return printJson({ schedules: found })
      const volumes = (each: KnownSchedule) => each.volumes.join(',')
      print(found.length === 0 ? 'no schedules' : scheduleTable(found, ['VOLUMES', volumes]))
    })
  schedule
    .command('remove')
    .summary('end one; its snapshots stay')
    .argument('<name>', 'the schedule')
    .addHelpText('after', '\nExample:\n  holdfast snapshot schedule remove auto')
    .action(async (name: string) => {
      const { removeSchedule } = await daemon()
      removeSchedule(name)
      print(`schedule ${out.bold(name)} is removed; its snapshots stay`)
    })
}

function addSet(schedule: Command): void {
  const set = schedule
    .command('set')
    .summary('set one, or change it')
    .description(
      'Takes a snapshot of the volumes by the clock, all of them at one instant. After each, those ' +
        'of this schedule that no rule keeps are forgotten; without a rule all stay. Times that were ' +
        'missed, because nothing was running, are made up for once.',
    )
    .argument('<volume,…>', 'names, mountpoints or directories of volumes')
    .option('--name <name>', 'of the schedule; its snapshots begin with it (default: auto)')
    .option('--every <time>', 'at all whole multiples of this', durationArgument)
    .option('--cron <expression>', "five fields, in local time, such as '0 3 * * *'")
  addKeepOptions(set)
    .option('--label <key=value>', 'a note to each snapshot; again for more', labelArgument)
    .option('--max-hold <time>', 'longest time that I/O may be held', durationArgument)
    .option('--no-hooks', 'run no hooks')
    .option('--json', 'as JSON')
    .addHelpText(
      'after',
      `
Examples:
  holdfast snapshot schedule set data --every 15m --keep-last 96 --keep-daily 14
  holdfast snapshot schedule set db,mail --name nightly --cron '0 3 * * *' --keep-weekly 8`,
    )
    .action(async (which: string, flags: SetFlags) => {
      const { setSchedule } = await daemon()
      const { name, every: everyMs, cron, label: labels, maxHold: maxHoldMs, hooks } = flags
      const keep = policyOf(flags)
      const volumes = which.split(',').filter((each) => each !== '')
      const request = { volumes, name, everyMs, cron, keep, labels, maxHoldMs, hooks }
      const made = setSchedule(request)
      if (flags.json === true) return printJson(made)
      print(
        `schedule ${out.bold(made.name)} of ${made.volumes.join(', ')}; keeps ${describePolicy(made.keep)}`,
      )
      print(out.dim('  see how it runs: holdfast snapshot schedule list'))
    })
}
