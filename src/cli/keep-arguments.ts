/** What is kept of snapshots, on the command line: the options of `restic forget`. */
import { type Command, InvalidArgumentError } from 'commander'
import { type Count, type Policy, parseSpan, type Span } from '../snapshot/retention.js'

export interface KeepFlags {
  keepLast?: Count
  keepHourly?: Count
  keepDaily?: Count
  keepWeekly?: Count
  keepMonthly?: Count
  keepYearly?: Count
  keepWithin?: Span
  keepLabel?: Record<string, string>[]
}

export function addKeepOptions(command: Command): Command {
  return command
    .option('--keep-last <n>', 'the last n, or all of them: unlimited', keepArgument)
    .option(
      '--keep-hourly <n>',
      'the last one of each of the last n hours that have one',
      keepArgument,
    )
    .option('--keep-daily <n>', 'of each day', keepArgument)
    .option('--keep-weekly <n>', 'of each week, from Monday', keepArgument)
    .option('--keep-monthly <n>', 'of each month', keepArgument)
    .option('--keep-yearly <n>', 'of each year', keepArgument)
    .option('--keep-within <span>', 'all within 1y6m7d12h of the newest (m: months)', spanArgument)
    .option('--keep-label <key=value,…>', 'all with these labels; again for others', labelsArgument)
}

export function policyOf(flags: KeepFlags): Policy {
  return {
    last: flags.keepLast,
    hourly: flags.keepHourly,
    daily: flags.keepDaily,
    weekly: flags.keepWeekly,
    monthly: flags.keepMonthly,
    yearly: flags.keepYearly,
    within: flags.keepWithin,
    labels: flags.keepLabel,
  }
}

/** `KEY=VALUE`, collected. */
export function labelArgument(
  text: string,
  before: Record<string, string> = {},
): Record<string, string> {
  const at = text.indexOf('=')
  if (at < 1) throw new InvalidArgumentError('Give KEY=VALUE.')
  return { ...before, [text.slice(0, at)]: text.slice(at + 1) }
}

function keepArgument(text: string): Count {
  if (text === 'unlimited' || text === 'all') return 'all'
  if (/^\d{1,9}$/.test(text)) return Number(text)
  throw new InvalidArgumentError('Give a number, or unlimited.')
}

function spanArgument(text: string): Span {
  const span = parseSpan(text)
  if (span !== undefined) return span
  throw new InvalidArgumentError('Give years, months, days and hours, such as 1y6m or 7d12h.')
}

function labelsArgument(
  text: string,
  before: Record<string, string>[] = [],
): Record<string, string>[] {
  const labels = text.split(',').reduce<Record<string, string>>((all, each) => {
    return labelArgument(each, all)
  }, {})
  return [...before, labels]
}
