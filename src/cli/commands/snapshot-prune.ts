/** `holdfast snapshot prune` */
import type { Command } from 'commander'
import { HoldfastError } from '../../lib/errors.js'
import { addKeepOptions, type KeepFlags, labelArgument, policyOf } from '../keep-arguments.js'
import { interruptSignal, print, printJson } from '../output.js'
import { prunedTable } from '../render-pruned.js'

interface PruneFlags extends KeepFlags {
  label?: Record<string, string>
  hooks?: string | false
  dryRun?: boolean
  json?: boolean
}

export function addPrune(snapshot: Command): void {
  const prune = snapshot
    .command('prune')
    .summary('forget those that a policy does not keep')
    .description(
      'Applies a policy to the snapshots there are, as `restic forget` does, for each set of volumes ' +
        'by itself: a snapshot stays when one of the rules keeps it. Hours and days are those of the ' +
        'local time. One that is in use stays in any case.',
    )
    .argument('[volume]', 'only those of this volume')
  addKeepOptions(prune)
    .option('--label <key=value>', 'only those with this label; again for more', labelArgument)
    .option('--hooks <dir>', 'a further directory of hooks')
    .option('--no-hooks', 'run none')
    .option('--dry-run', 'only tell what would go')
    .option('--json', 'as JSON')
    .addHelpText(
      'after',
      `
Examples:
  holdfast snapshot prune data --keep-daily 7 --keep-weekly 4 --dry-run
  holdfast snapshot prune --label schedule=auto --keep-last 24`,
    )
    .action(async (volume: string | undefined, flags: PruneFlags) => {
      const { pruneSnapshots } = await import('../../daemon/prune-snapshots.js')
      const { label: labels, hooks, dryRun = false, json = false } = flags
      const signal = interruptSignal()
      const policy = policyOf(flags)
      const results = await pruneSnapshots({ policy, volume, labels, hooks, dryRun, signal })
      if (json) printJson({ snapshots: results })
      else if (results.length === 0) print('no snapshots')
      else print(prunedTable(results, dryRun))
      const [failed] = results.flatMap(({ error }) => error ?? [])
      if (failed !== undefined) throw HoldfastError.from(failed)
    })
}
