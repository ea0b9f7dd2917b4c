/** `holdfast journal tail` */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Command } from 'commander'
import { type Change, describeChange } from '../../journal/change.js'
import { NameTable, namesFrom } from '../../journal/names.js'
import type { Journal } from '../../journal/store.js'
import { nthLast } from '../../journal/tail.js'
import type { FrameView } from '../../record/frame.js'
import type { RecordView } from '../../record/record.js'
import { countArgument, timeArgument } from '../arguments.js'
import { openJournal } from '../open-journal.js'
import { interruptSignal, print, printJson } from '../output.js'
import { changeJson, changeLine } from '../render-change.js'

const FOLLOW_MS = 200
const LINES_DEFAULT = 10

interface TailFlags {
  lines?: number
  follow?: boolean
  since?: bigint
  all?: boolean
  json?: boolean
}

export function addJournalTail(journal: Command): void {
  journal
    .command('tail')
    .summary('the last changes, one per line')
    .description(
      'Prints changes: time, seq, user, command[pid], operation, path, range (offset+length). Names ' +
        'are printed with C escapes, so one change is always one line.',
    )
    .argument('<volume>', 'name, mountpoint or directory of the volume')
    .option(
      '-n, --lines <n>',
      `how many (default: ${LINES_DEFAULT}; all with --since)`,
      countArgument,
    )
    .option('-f, --follow', 'go on with new changes until interrupted')
    .option('--since <time>', 'changes from then on: 10m (ago) or 2026-01-31T14:00', timeArgument)
    .option('--all', 'also records that only name objects (bind, gone)')
    .option('--json', 'one JSON object per line')
    .addHelpText(
      'after',
      `
Examples:
  holdfast journal tail data -n 50
  holdfast journal tail data -f
  holdfast journal tail data --since 1h --json | jq 'select(.verb == "unlink")'`,
    )
    .action(async (which: string, flags: TailFlags) => {
      const { journal: opened } = await openJournal(which, { flush: true })
      try {
        await tail(opened, flags)
      } finally {
        await opened.close()
      }
    })
}

async function tail(journal: Journal, flags: TailFlags): Promise<void> {
  const wanted = (record: RecordView) =>
    flags.all === true || (record.op !== 'BIND' && record.op !== 'GONE')
  const show = (change: Change) => {
    if (flags.json === true) printJson(changeJson(change), { line: true })
    else print(changeLine(change))
  }
  const first =
    flags.since === undefined
      ? nthLast(journal, flags.lines ?? LINES_DEFAULT, wanted)
      : firstSince(journal, flags.since)
  const names = new NameTable()
  let budget =
    flags.since === undefined ? Number.POSITIVE_INFINITY : (flags.lines ?? Number.POSITIVE_INFINITY)
  let next = namesFrom(journal, first)
  const run = (frame: FrameView) => {
    for (const record of frame.records()) {
      if (record.seq < first) {
        names.apply(record)
        continue
      }
      const change = describeChange(record, names)
      if (!wanted(record) || budget <= 0) continue
      budget -= 1
      show(change)
    }
    next = frame.lastSeq + 1n
  }
  for (const frame of journal.frames({ from: next })) run(frame)
  if (flags.follow !== true) return
  const signal = interruptSignal()
  while (!signal.aborted) {
    await sleep(FOLLOW_MS, undefined, { signal }).catch(() => {})
    journal.refresh()
    for (const frame of journal.frames({ from: next })) run(frame)
  }
}

/** First seq at or after `timeNs`. Clocks ascend with seqs, so the search may go backwards. */
function firstSince(journal: Journal, timeNs: bigint): bigint {
  let seq = journal.end().lastSeq + 1n
  for (const frame of journal.frames({ reverse: true })) {
    if (frame.clock < timeNs) break
    for (const record of frame.records()) {
      if (record.clock < timeNs) continue
      seq = record.seq
      break
    }
  }
  return seq
}
