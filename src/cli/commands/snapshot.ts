/** `holdfast snapshot create|list|show|destroy` */
import { type Command, InvalidArgumentError } from 'commander'
import type { Snapshot } from '../../daemon/snapshots.js'
import { formatCount, formatDuration } from '../../lib/format.js'
import { CUT_HOLD_MS_DEFAULT } from '../../lib/limits.js'
import { printable } from '../../lib/printable.js'
import { type Certificate, heldNs } from '../../snapshot/certificate.js'
import { durationArgument } from '../arguments.js'
import { out, print, printJson, table } from '../output.js'

interface CreateFlags {
  name?: string
  maxHold?: number
  label?: Record<string, string>
  json?: boolean
}

type JsonFlag = { json?: boolean }

const daemon = () => import('../../daemon/snapshots.js')

export function addSnapshotCommands(program: Command): void {
  const snapshot = program
    .command('snapshot')
    .summary('one instant of one or several volumes')
    .description(
      'A snapshot is a marker in the journal of each of its volumes, all at one instant: I/O of all ' +
        'of them was at rest, for milliseconds, when they were set. Applications go on.',
    )
    .addHelpText('after', '\nExample:\n  holdfast snapshot create db mail --name before-upgrade')
  addCreate(snapshot)
  addList(snapshot)
  addShow(snapshot)
  snapshot
    .command('destroy')
    .summary('forget snapshots; the journal stays')
    .argument('<name...>', 'snapshots')
    .addHelpText('after', '\nExample:\n  holdfast snapshot destroy before-upgrade')
    .action(async (names: string[]) => {
      const { destroySnapshot } = await daemon()
      for (const name of names) {
        destroySnapshot(name)
        print(`${out.bold(name)} is forgotten`)
      }
    })
}

function addCreate(snapshot: Command): void {
  snapshot
    .command('create')
    .summary('take one')
    .description(
      'Takes a snapshot of the volumes, all of them at one instant. What was stored through mappings ' +
        'is written out first; then I/O is held everywhere until it is at rest everywhere. When that ' +
        'takes longer than --max-hold, there is no snapshot, and I/O goes on. With every snapshot is ' +
        'kept what was seen just before it: files mapped or open for writing, and locks.',
    )
    .argument('<volume...>', 'names, mountpoints or directories of volumes')
    .option('--name <name>', 'what it is called (default: the time)')
    .option(
      '--max-hold <time>',
      `longest time that I/O may be held (default: ${CUT_HOLD_MS_DEFAULT}ms)`,
      durationArgument,
    )
    .option('--label <key=value>', 'a note to it; again for more', labelArgument)
    .option('--json', 'the certificate')
    .addHelpText(
      'after',
      `
Examples:
  holdfast snapshot create data
  holdfast snapshot create db mail --name before-upgrade --label ticket=1234
  holdfast journal replay data --onto /restore/data --to-snapshot before-upgrade`,
    )
    .action(async (volumes: string[], flags: CreateFlags) => {
      const { createSnapshot } = await daemon()
      const { name, maxHold: maxHoldMs, label: labels, json = false } = flags
      const certificate = await createSnapshot({ volumes, name, maxHoldMs, labels })
      if (json) return printJson(certificate)
      const of = certificate.members.map(({ volume }) => volume).join(', ')
      print(
        `snapshot ${out.bold(certificate.name)} of ${of}; I/O was held for ${held(certificate)}`,
      )
      for (const remark of remarks(certificate)) print(out.dim(`  ${remark}`))
    })
}

function addList(snapshot: Command): void {
  snapshot
    .command('list')
    .summary('those there are')
    .argument('[volume]', 'only those of this volume')
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExample:\n  holdfast snapshot list data')
    .action(async (which: string | undefined, { json = false }: JsonFlag) => {
      const { listSnapshots } = await daemon()
      const found = listSnapshots(which)
      if (json) return printJson({ snapshots: found })
      if (found.length === 0) return print('no snapshots')
      const rows = found.map((each) => [
        each.name,
        each.created,
        each.members.map(({ volume }) => volume).join(','),
        held(each),
        stateText(each),
        labelText(each),
      ])
      print(table([['NAME', 'TAKEN', 'VOLUMES', 'HELD', 'STATE', 'LABELS'], ...rows]))
    })
}

function addShow(snapshot: Command): void {
  snapshot
    .command('show')
    .summary('what is known of one')
    .argument('<name>', 'the snapshot')
    .option('--json', 'the certificate')
    .addHelpText('after', '\nExample:\n  holdfast snapshot show before-upgrade')
    .action(async (name: string, { json = false }: JsonFlag) => {
      const { findSnapshot } = await daemon()
      const found = findSnapshot(name)
      if (json) return printJson(found)
      print(`${out.bold(found.name)}  ${stateText(found)}`)
      const rows = [
        ['taken', found.created],
        ['held', `${held(found)}, at most ${found.maxHoldMs} ms allowed`],
        ...found.members.map(({ volume, seq }) => [volume, `up to seq ${formatCount(seq)}`]),
        ...(labelText(found) === '' ? [] : [['labels', labelText(found)]]),
      ]
      print(table(rows.map(([key = '', value = '']) => [`  ${key}`, value])))
      for (const line of seen(found)) print(`  ${line}`)
    })
}

function labelArgument(text: string, before: Record<string, string> = {}): Record<string, string> {
  const at = text.indexOf('=')
  if (at < 1) throw new InvalidArgumentError('Give KEY=VALUE.')
  return { ...before, [text.slice(0, at)]: text.slice(at + 1) }
}

function held(certificate: Certificate): string {
  return formatDuration(heldNs(certificate))
}

function labelText({ labels }: Certificate): string {
  return Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(' ')
}

const STATES = {
  complete: 'complete',
  incomplete: out.red('incomplete: a volume of it has none'),
  pruned: out.yellow('pruned: a journal begins after it'),
}

function stateText({ state }: Snapshot): string {
  return STATES[state]
}

/** What somebody who relies on the snapshot should know. */
function remarks({ mapped, writingCount, locks }: Certificate): string[] {
  const unwritten = mapped.filter(({ writtenOut }) => !writtenOut).length
  return [
    `open for writing: ${formatCount(writingCount)}; locks: ${formatCount(locks.length)}`,
    ...(mapped.length === 0
      ? []
      : [
          `mapped for writing: ${formatCount(mapped.length)}` +
            (unwritten === 0 ? ', written out before' : `, ${unwritten} not written out`) +
            '; stores to a mapping are not held',
        ]),
  ]
}

function seen({ mapped, writing, writingCount, locks }: Certificate): string[] {
  const who = ({ command, pid }: { command: string; pid: number }) => `${command}[${pid}]`
  const path = (text: string) => printable(Buffer.from(text))
  const rest = writingCount - writing.length
  return [
    ...mapped.map((each) => {
      const how = each.writtenOut ? 'written out before' : 'not written out'
      return `mapped by ${who(each)}: ${path(each.path)} (${how})`
    }),
    ...writing.map((each) => `open in ${who(each)}: ${path(each.path)}`),
    ...(rest > 0 ? [`and ${formatCount(rest)} more`] : []),
    ...locks.map(
      (each) =>
        `locked by ${who(each)}: ${each.kind} ${each.access}, inode ${each.inode} of ${each.volume}`,
    ),
  ]
}
