/** `holdfast journal stat` */
import type { Command } from 'commander'
import { formatBytes, formatCount, formatDuration, formatTime } from '../../lib/format.js'
import { formatUuid } from '../../record/frame.js'
import { openJournal } from '../open-journal.js'
import { print, printJson, table } from '../output.js'

export function addJournalStat(journal: Command): void {
  journal
    .command('stat')
    .summary('size and extent of the journal')
    .argument('<volume>', 'name, mountpoint or directory of the volume')
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExample:\n  holdfast journal stat data')
    .action(async (which: string, { json = false }: { json?: boolean }) => {
      const { journal: opened, running } = await openJournal(which)
      try {
        const stat = opened.stat()
        const { uuid, epoch, clean, checkpoint, recapture, horizon } = opened.meta()
        const value = {
          path: opened.path,
          volume: formatUuid(uuid),
          epoch,
          ...stat,
          firstTime: stat.firstClock === 0n ? null : formatTime(stat.firstClock, 3),
          lastTime: stat.lastClock === 0n ? null : formatTime(stat.lastClock, 3),
          checkpointSeq: checkpoint?.seq ?? null,
          prunedToSeq: horizon?.lastSeq ?? 0n,
          complete: recapture === null && (clean || running),
          recapture: recapture?.reason ?? null,
          mounted: running,
        }
        if (json) return printJson(value)
        const span = stat.lastClock - stat.firstClock
        print(
          table([
            ['journal', value.path],
            ['volume', `${value.volume}, epoch ${epoch}`],
            ['records', `seq ${formatCount(stat.firstSeq)} to ${formatCount(stat.lastSeq)}`],
            [
              'time',
              `${value.firstTime ?? '-'} to ${value.lastTime ?? '-'} (${formatDuration(span)})`,
            ],
            ['frames', `${formatCount(stat.frames)}, ${formatBytes(stat.usedBytes)}`],
            [
              'file',
              `${formatBytes(stat.fileBytes)}, ${formatBytes(stat.freeBytes)} free for reuse`,
            ],
            [
              'pruned',
              value.prunedToSeq === 0n ? 'nothing' : `up to seq ${formatCount(value.prunedToSeq)}`,
            ],
            ['checkpoint', checkpoint === null ? '-' : `seq ${formatCount(checkpoint.seq)}`],
            [
              'complete',
              value.complete ? 'yes' : `no: ${value.recapture ?? 'not stopped in order'}`,
            ],
          ]),
        )
      } finally {
        await opened.close()
      }
    })
}
