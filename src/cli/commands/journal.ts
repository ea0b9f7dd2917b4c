/** `holdfast journal …`: the group; each command is a file of its own. */
import type { Command } from 'commander'
import { addJournalPrune } from './journal-prune.js'
import { addJournalReplay } from './journal-replay.js'
import { addJournalShow } from './journal-show.js'
import { addJournalStat } from './journal-stat.js'
import { addJournalTail } from './journal-tail.js'
import { addJournalVerify } from './journal-verify.js'

export function addJournalCommands(program: Command): void {
  const journal = program
    .command('journal')
    .summary('read, check, prune and replay the journal')
    .description(
      'The journal of a volume: every change in order. All commands but prune only read; they work ' +
        'while the volume is mounted and while it is not.',
    )
    .addHelpText(
      'after',
      `
Examples:
  holdfast journal tail data -n 20
  holdfast journal verify data
  holdfast journal replay data --onto /restore/data`,
    )
  addJournalTail(journal)
  addJournalShow(journal)
  addJournalStat(journal)
  addJournalVerify(journal)
  addJournalPrune(journal)
  addJournalReplay(journal)
}
