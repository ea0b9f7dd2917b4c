/** `holdfast journal verify` */
import type { Command } from 'commander'
import { findVolume } from '../../daemon/registry.js'
import { settleJournal } from '../../daemon/settle.js'
import { Journal } from '../../journal/store.js'
import { missingFileBytes, verifyJournal } from '../../journal/verify.js'
import { ExitCode } from '../../lib/errors.js'
import { formatBytes, formatCount } from '../../lib/format.js'
import { interruptSignal, out, print, printJson, remark } from '../output.js'
import { progressBar } from '../progress.js'

export function addJournalVerify(journal: Command): void {
  journal
    .command('verify')
    .summary('check every byte of the journal')
    .description(
      'Reads the whole journal: checksums of records and frames, the chain, the order, the volume. ' +
        'Names the first damaged byte and everything after it that is wrong.',
    )
    .argument('<volume>', 'name, mountpoint or directory of the volume')
    .option('--json', 'as JSON')
    .addHelpText(
      'after',
      `
Exit codes: 0 whole, 4 the journal of another volume, 5 damaged.

Example:
  holdfast journal verify data`,
    )
    .action(async (which: string, { json = false }: { json?: boolean }) => {
      const volume = findVolume(which)
      const { config } = volume
      const path = await settleJournal(volume)
      const bar = progressBar('verifying', await totalBytes(path))
      const report = await verifyJournal({
        path,
        volume: config.uuid,
        signal: interruptSignal(),
        progress: (bytes, seq) => bar.update(bytes, `seq ${seq}`),
      }).finally(() => bar.stop())
      if (report.problemCount > 0) process.exitCode = ExitCode.damaged
      if (json) return printJson(report)
      const { frames, records, bytes, firstSeq, lastSeq, problems, problemCount } = report
      if (problemCount === 0) {
        const extent = `seq ${firstSeq} to ${lastSeq}`
        print(
          `${out.green('whole')}: ${formatCount(records)} records in ${formatCount(frames)} frames, ` +
            `${formatBytes(bytes)}, ${extent}`,
        )
        return
      }
      for (const { code, message, frame, byte } of problems) {
        const place =
          frame === null ? '' : ` frame of seq ${frame}${byte === null ? '' : `, byte ${byte}`}:`
        print(`${out.red(code)}${place} ${message}`)
      }
      if (problemCount > problems.length) print(`and ${problemCount - problems.length} more`)
      remark(
        `${out.red('damaged')}: ${formatCount(problemCount)} problems in ${formatCount(frames)} frames`,
      )
    })
}

/** For the progress bar only; a file that may end its reader with a signal is not opened here. */
async function totalBytes(path: string): Promise<number> {
  if (process.stderr.isTTY !== true || missingFileBytes(path) > 0) return 0
  const journal = Journal.open({ path, readOnly: true })
  try {
    return journal.usedBytes()
  } finally {
    await journal.close()
  }
}
