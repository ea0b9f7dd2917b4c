/** `holdfast journal replay` */
import { type Command, Option } from 'commander'
import { replayJournal } from '../../daemon/replay.js'
import { snapshotSeq } from '../../daemon/snapshots.js'
import { formatBytes, formatCount, formatDuration } from '../../lib/format.js'
import { seqArgument } from '../arguments.js'
import { openJournal } from '../open-journal.js'
import { interruptSignal, out, print, printJson, remark } from '../output.js'
import { progressBar } from '../progress.js'

interface ReplayFlags {
  onto: string
  toSeq?: bigint
  toSnapshot?: string
  state?: string
  keepState?: boolean
  json?: boolean
}

export function addJournalReplay(journal: Command): void {
  journal
    .command('replay')
    .summary('apply the journal to a copy of the base')
    .description(
      'Applies the journal to DIR, which must be a copy of the tree as it was when the volume was ' +
        'new (or where an earlier replay onto DIR ended), on a file system of the same kind. A ' +
        'replay that was interrupted, even by SIGKILL, continues with the same command.',
    )
    .argument('<volume>', 'name, mountpoint or directory of the volume')
    .requiredOption('--onto <dir>', 'the copy of the base')
    .option('--to-seq <seq>', 'stop after this sequence number (whole frames)', seqArgument)
    .addOption(new Option('--to-snapshot <name>', 'stop at this snapshot').conflicts('toSeq'))
    .option('--state <dir>', "the replay's own state (default: DIR.holdfast-replay beside DIR)")
    .option('--keep-state', 'keep that state, to go on later with newer changes')
    .option('--json', 'as JSON')
    .addHelpText(
      'after',
      `
Examples:
  holdfast journal replay data --onto /restore/data
  holdfast journal replay data --onto /restore/data --keep-state   again, for what is new`,
    )
    .action(async (which: string, flags: ReplayFlags) => {
      const { volume, journal: opened } = await openJournal(which, { flush: true })
      try {
        const begun = performance.now()
        const total = opened.usedBytes()
        const { toSnapshot: name } = flags
        const toSeq = name === undefined ? flags.toSeq : snapshotSeq(name, volume)
        const bar = progressBar('replaying', total)
        const result = await replayJournal({
          volume,
          journal: opened,
          target: flags.onto,
          state: flags.state,
          toSeq,
          keepState: flags.keepState === true,
          signal: interruptSignal(),
          progress: (bytes, seq) => bar.update(bytes, `seq ${seq}`),
        }).finally(() => bar.stop())
        const seconds = (performance.now() - begun) / 1000
        if (flags.json === true) return printJson({ ...result, seconds })
        const { records, bytes, appliedSeq, target } = result
        print(
          `${out.green('replayed')} up to seq ${formatCount(appliedSeq)} onto ${target}: ` +
            `${formatCount(records)} records, ${formatBytes(bytes)} in ${formatDuration(seconds * 1e9)}`,
        )
        if (result.state !== null) remark(`  state kept in ${result.state}`)
      } finally {
        await opened.close()
      }
    })
}
