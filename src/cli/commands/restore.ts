/** `holdfast restore` */
import { type Command, Option } from 'commander'
import type { Restoration } from '../../daemon/restore.js'
import { parseTime } from '../../history/moment.js'
import { HoldfastError } from '../../lib/errors.js'
import { formatBytes, formatCount, formatDuration } from '../../lib/format.js'
import { decodeUtf8, printable } from '../../lib/printable.js'
import type { TreeChange, TreeFailure, TreeProgress } from '../../lib/tree.js'
import { rawArgument, seqArgument } from '../arguments.js'
import { asks, goOn } from '../confirm.js'
import { interruptSignal, out, print, printJson, remark, usageError } from '../output.js'
import { type Progress, progressBar } from '../progress.js'
import { nameJson } from '../render-change.js'
import { changeText, isQuiet, Tally } from '../render-tree.js'
import { jsonLine } from './diff.js'

interface RestoreFlags {
  toTime?: string
  toSeq?: bigint
  toSnapshot?: string
  output?: string
  dryRun?: boolean
  yes?: boolean
  snapshotFirst?: string
  thorough?: boolean
  json?: boolean
}

export function addRestoreCommand(program: Command): void {
  program
    .command('restore')
    .summary('bring back a moment: a file, a folder, everything')
    .description(
      'Makes a file, a directory or the whole volume what it was. In place: through the mountpoint, with ' +
        'the fewest changes, while applications go on; every one of them is journaled, reaches replicas, ' +
        'and can be undone. With --output: as a copy elsewhere. Interrupted, even by SIGKILL, it ends ' +
        'with the same command again.',
    )
    .argument('<volume>', 'name, mountpoint or directory of the volume')
    .argument(
      '[path]',
      'file or directory, in the mountpoint or relative to it (default: everything)',
    )
    .option('--to-time <time>', '"10 minutes ago", "yesterday 14:00", 2026-01-31T14:00:00Z, …')
    .addOption(
      new Option('--to-seq <seq>', 'up to this sequence number')
        .argParser(seqArgument)
        .conflicts('toTime'),
    )
    .addOption(new Option('--to-snapshot <name>', 'a snapshot').conflicts(['toTime', 'toSeq']))
    .option(
      '--output <dir>',
      'a copy there, in a new or empty directory; the volume is not touched',
    )
    .option('--dry-run', 'only tell what would be done')
    .option('-y, --yes', 'do not ask')
    .option('--snapshot-first <name>', 'take a snapshot of the volume as it is before, to undo it')
    .option('--thorough', 'read everything, whatever inode numbers and times say')
    .option('--json', 'as JSON; of a dry run one object per line')
    .addHelpText(
      'after',
      `
In place, what is not in that moment is deleted; with a PATH, nothing outside of it is touched. More than
a file is asked about on a terminal, unless --yes.

Exit codes: 0 restored, 1 something was left undone (each is named), 2 wrong usage, 3 that moment is not
kept or PATH was not there, 4 refused.

Examples:
  holdfast restore data reports/2026.ods --to-time "10 minutes ago"
  holdfast restore data --to-snapshot before-upgrade --dry-run
  holdfast restore data etc --to-seq 812345 --output /tmp/etc-then`,
    )
    .action(async (volume: string, path: string | undefined, flags: RestoreFlags) => {
      const { restoreMoment } = await import('../../daemon/restore.js')
      const to = chosenMoment(flags)
      if (flags.snapshotFirst !== undefined && flags.dryRun !== true) {
        const { createSnapshot } = await import('../../daemon/snapshots.js')
        await createSnapshot({ volumes: [volume], name: flags.snapshotFirst })
      }
      const { output, thorough = false } = flags
      const failures: TreeFailure[] = []
      const bar = new RestoreBar()
      const options = {
        ...{ volume, to, output, thorough, signal: interruptSignal() },
        path: path === undefined ? undefined : rawArgument(path),
        onFailure: (failure: TreeFailure) => failures.push(failure),
        onProgress: (progress: TreeProgress) => bar.update(progress),
      }
      await restoreMoment(options, async (restoration) => {
        if (flags.json !== true) remark(out.dim(`= ${restoration.instant.text}`))
        if (flags.dryRun === true) return tellPlan(restoration, flags)
        if (!(await agreed(restoration, flags))) return print('nothing was changed')
        const begun = performance.now()
        const undone = await restoration.run().finally(() => bar.stop())
        const seconds = (performance.now() - begun) / 1000
        report(restoration, { flags, failures, undone, seconds, progress: bar.last })
      })
    })
}

function chosenMoment({ toTime, toSeq, toSnapshot }: RestoreFlags) {
  if (toTime !== undefined) {
    return { kind: 'time', ms: parseTime(toTime.trim(), Date.now()) } as const
  }
  if (toSeq !== undefined) return { kind: 'seq', seq: toSeq } as const
  if (toSnapshot !== undefined) return { kind: 'snapshot', name: toSnapshot } as const
  throw usageError('to which moment?', 'One of --to-time, --to-seq, --to-snapshot.')
}

async function tellPlan(restoration: Restoration, { json = false }: RestoreFlags): Promise<void> {
  const tally = new Tally()
  for await (const change of restoration.plan()) {
    tally.add(change)
    if (json) print(jsonLine(change))
    else if (!isQuiet(change)) print(changeText(change))
  }
  if (!json) remark(out.dim(`would be: ${tally.text()}`))
}

/** One file is what was asked for; more than that is shown first. */
async function agreed(restoration: Restoration, flags: RestoreFlags): Promise<boolean> {
  const { inPlace, volume, target, undoable } = restoration
  if (!inPlace || flags.yes === true || !asks()) return true
  const tally = new Tally()
  let last: TreeChange | undefined
  for await (const change of restoration.plan()) {
    tally.add(change)
    last = change
  }
  if (tally.total === 0 || (tally.total === 1 && last?.object === 'file')) return true
  remark(`${out.bold(volume)} in place, ${target}: ${tally.text()}`)
  if (!undoable && flags.snapshotFirst === undefined) {
    remark(out.yellow('This cannot be undone: only snapshots are kept (see --snapshot-first).'))
  }
  return goOn()
}

interface Ended {
  flags: RestoreFlags
  failures: TreeFailure[]
  undone: number
  seconds: number
  progress: TreeProgress | undefined
}

/** RESTORE_FAILED when something was left undone. */
function report(restoration: Restoration, { flags, failures, undone, seconds, progress }: Ended) {
  const { instant, target, path } = restoration
  const undo = undoCommand(restoration, flags)
  const { done = 0, bytes = 0 } = progress ?? {}
  if (flags.json === true) {
    const left = failures.map(({ path, ...rest }) => ({ ...rest, ...nameJson('path', path) }))
    printJson({
      seq: instant.seq,
      target,
      objects: done,
      bytes,
      seconds,
      undone,
      failures: left,
      undo,
    })
  } else {
    for (const failure of failures) remark(`${printable(failure.path)}: ${failure.message}`)
    const what = path.length === 0 ? target : `${printable(path)} in ${target}`
    const took = formatDuration(seconds * 1e9)
    const counts = `${formatCount(done)} objects, ${formatBytes(bytes)} in ${took}`
    print(`${out.green('restored')} ${what} to ${instant.text}: ${counts}`)
    if (undo !== null) remark(`  undo it: ${undo}`)
  }
  if (undone === 0) return
  throw new HoldfastError('RESTORE_FAILED', `${formatCount(undone)} things were left undone`, {
    op: 'restore',
    hint: 'Remove the cause; the same command again goes on.',
  })
}

/** null where the moment before is not kept. */
function undoCommand(restoration: Restoration, { snapshotFirst }: RestoreFlags): string | null {
  const { inPlace, undoable, volume, path, before } = restoration
  if (!inPlace || (snapshotFirst === undefined && !undoable)) return null
  const quoted = shellWord(path)
  const moment =
    snapshotFirst === undefined ? `--to-seq ${before}` : `--to-snapshot ${snapshotFirst}`
  return ['holdfast restore', volume, ...(path.length === 0 ? [] : [quoted]), moment].join(' ')
}

/** As a shell takes it; with escapes where it is no plain text. */
function shellWord(path: Buffer): string {
  const text = printable(path)
  if (decodeUtf8(path) === text) return `'${text.replaceAll("'", "'\\''")}'`
  return `$'${text.replaceAll("'", "\\'")}'`
}

/** A bar over the bytes to write, once they are known. */
class RestoreBar {
  last: TreeProgress | undefined
  #bar: Progress | undefined

  update(progress: TreeProgress): void {
    this.last = progress
    const { total, totalBytes, bytes, done } = progress
    if (total === 0) return
    this.#bar ??= progressBar('restoring', totalBytes)
    this.#bar.update(bytes, `${formatCount(done)} of ${formatCount(total)} objects`)
  }

  stop(): void {
    this.#bar?.stop()
  }
}
