/** `holdfast journal prune` */
import { existsSync } from 'node:fs'
import type { Command } from 'commander'
import { ControlClient, type PruneReply } from '../../daemon/client.js'
import { runningDaemon, VolumeLock } from '../../daemon/lock.js'
import { journalPath, ringPath } from '../../daemon/places.js'
import { findVolume, type Volume } from '../../daemon/registry.js'
import { prune } from '../../journal/prune.js'
import { Journal } from '../../journal/store.js'
import { formatBytes, formatCount } from '../../lib/format.js'
import { durationArgument, seqArgument, sizeArgument } from '../arguments.js'
import { print, printJson, remark, usageError } from '../output.js'

interface PruneFlags {
  toSeq?: bigint
  maxSize?: number
  maxAge?: number
  json?: boolean
}

export function addJournalPrune(journal: Command): void {
  journal
    .command('prune')
    .summary('forget the oldest changes')
    .description(
      'Deletes the oldest frames, once. The space is used again for new frames; the file does not ' +
        'shrink. Retention that is applied all the time is set with mount --retain-size, ' +
        '--retain-age. Never deleted: what is newer than the last checkpoint.',
    )
    .argument('<volume>', 'name, mountpoint or directory of the volume')
    .option('--to-seq <seq>', 'everything up to this sequence number', seqArgument)
    .option('--max-size <size>', 'until at most this much is left', sizeArgument)
    .option('--max-age <age>', 'everything older', durationArgument)
    .option('--json', 'as JSON')
    .addHelpText(
      'after',
      `
Examples:
  holdfast journal prune data --max-age 7d
  holdfast journal prune data --max-size 20G`,
    )
    .action(async (which: string, flags: PruneFlags) => {
      const { toSeq, maxSize: maxBytes, maxAge: maxAgeMs } = flags
      if (toSeq === undefined && maxBytes === undefined && maxAgeMs === undefined) {
        throw usageError('nothing to prune by', 'Give --to-seq, --max-size or --max-age.')
      }
      const volume = findVolume(which)
      const { name } = volume.config
      const result =
        runningDaemon(name) === undefined
          ? await pruneOffline(volume, { toSeq, maxBytes, maxAgeMs })
          : await new ControlClient(name).prune({
              maxBytes,
              maxAgeMs,
              toSeq: toSeq === undefined ? undefined : Number(toSeq),
            })
      if (flags.json === true) return printJson(result)
      print(
        `pruned ${formatCount(result.frames)} frames, ${formatBytes(result.bytes)}; ` +
          `the journal begins after seq ${formatCount(result.horizon)}`,
      )
      if (result.heldByCheckpoint) remark('newer changes are kept until the next checkpoint')
    })
}

/** Under the volume's lock, so that no daemon starts meanwhile. */
async function pruneOffline(
  volume: Volume,
  retention: Parameters<typeof prune>[1],
): Promise<PruneReply> {
  const lock = await VolumeLock.acquireOffline(volume)
  try {
    const { options, uuid } = volume.config
    const journal = Journal.open({
      path: journalPath(volume.stateDirectory),
      afterPowerLoss: !existsSync(ringPath(options.ringDirectory, uuid)),
    })
    try {
      const result = prune(journal, retention)
      return { ...result, horizon: Number(result.horizon) }
    } finally {
      await journal.close()
    }
  } finally {
    lock.release()
  }
}
