/** `holdfast snapshot create|list|show|destroy|hooks` */
import { resolve } from 'node:path'
import type { Command } from 'commander'
import type { Snapshot } from '../../daemon/snapshots.js'
import { formatCount, formatDuration } from '../../lib/format.js'
import { CUT_ATTEMPTS_DEFAULT, CUT_HOLD_MS_DEFAULT } from '../../lib/limits.js'
import { printable } from '../../lib/printable.js'
import { type Certificate, heldNs } from '../../snapshot/certificate.js'
import { countArgument, durationArgument } from '../arguments.js'
import { labelArgument } from '../keep-arguments.js'
import { interruptSignal, out, print, printJson, remark, table, usageError } from '../output.js'
import { failedHooks, hookList, hookRuns } from '../render-hooks.js'
import { addPrune } from './snapshot-prune.js'
import { addScheduleCommands } from './snapshot-schedule.js'

interface HookFlags {
  /** false: --no-hooks */
  hooks?: string | false
}

interface CreateFlags extends HookFlags {
  dryRun?: boolean
  name?: string
  maxHold?: number
  attempts?: number
  label?: Record<string, string>
  json?: boolean
}

type JsonFlag = { json?: boolean }
type ListFlags = JsonFlag & { replica?: boolean }

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
  addMount(snapshot)
  addDestroy(snapshot)
  addPrune(snapshot)
  addScheduleCommands(snapshot)
  addHooks(snapshot)
}

function addDestroy(snapshot: Command): void {
  snapshot
    .command('destroy')
    .summary('forget snapshots; the journal stays')
    .description(
      'Forgets snapshots, on all their volumes. Hooks of pre-destroy are run before; when one fails, ' +
        'the snapshot stays.',
    )
    .argument('<name...>', 'snapshots')
    .option('--force', 'although a hook fails')
    .option('--hooks <dir>', 'a further directory of hooks')
    .option('--no-hooks', 'run none')
    .addHelpText('after', '\nExample:\n  holdfast snapshot destroy before-upgrade')
    .action(async (names: string[], flags: HookFlags & { force?: boolean }) => {
      const { destroySnapshot } = await import('../../daemon/destroy-snapshot.js')
      for (const name of names) {
        await destroySnapshot(name, flags)
        print(`${out.bold(name)} is forgotten`)
      }
    })
}

function addHooks(snapshot: Command): void {
  snapshot
    .command('hooks')
    .summary('what is run around snapshots')
    .description(
      'The hooks of these volumes, in the order in which they run, with their phases. Refused when ' +
        'others than root could have written one.',
    )
    .argument('<volume...>', 'names, mountpoints or directories of volumes')
    .option('--hooks <dir>', 'a further directory of hooks')
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExample:\n  holdfast snapshot hooks db mail')
    .action(async (volumes: string[], flags: { hooks?: string; json?: boolean }) => {
      const { hooksOf } = await import('../../daemon/hooks.js')
      const { findVolume } = await import('../../daemon/registry.js')
      const found = hooksOf(volumes.map(findVolume), flags.hooks)
      if (flags.json === true) return printJson({ hooks: found })
      print(found.length === 0 ? 'no hooks' : hookList(found))
    })
}

function addCreate(snapshot: Command): void {
  snapshot
    .command('create')
    .summary('take one')
    .description(
      'Takes a snapshot of the volumes, all of them at one instant. What was stored through mappings ' +
        'is written out first; then I/O is held everywhere until it is at rest everywhere. When that ' +
        'takes longer than --max-hold, I/O goes on, and it is tried again when the disks have written. With every snapshot is ' +
        'kept what was seen just before it: files mapped or open for writing, and locks. Hooks ' +
        '(docs/HOOKS.md) are run before, while I/O is held, and after; what they begin is undone in ' +
        'reverse, whatever comes of it.',
    )
    .argument('<volume...>', 'names, mountpoints or directories of volumes')
    .option('--name <name>', 'what it is called (default: the time)')
    .option(
      '--max-hold <time>',
      `longest time that I/O may be held (default: ${CUT_HOLD_MS_DEFAULT}ms)`,
      durationArgument,
    )
    .option(
      '--attempts <n>',
      `how often it is tried, when I/O does not come to rest in time (default: ${CUT_ATTEMPTS_DEFAULT})`,
      countArgument,
    )
    .option('--label <key=value>', 'a note to it; again for more', labelArgument)
    .option('--hooks <dir>', 'a further directory of hooks')
    .option('--no-hooks', 'run none')
    .option('--dry-run', 'only run the hooks, and tell them so')
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
      const { createSnapshot, rehearseSnapshot } = await daemon()
      const { name, maxHold: maxHoldMs, attempts, label: labels, hooks, json = false } = flags
      const signal = interruptSignal()
      const request = { volumes, name, maxHoldMs, attempts, labels, hooks, signal }
      if (flags.dryRun === true) {
        const runs = await rehearseSnapshot(request)
        if (json) return printJson({ hooks: runs })
        print(`nothing is taken; ${runs.length === 0 ? 'no hooks' : 'hooks ran'}`)
        for (const line of hookRuns(runs)) print(`  ${line}`)
        return
      }
      const certificate = await createSnapshot(request)
      for (const line of failedHooks(certificate.hooks)) remark(line)
      if (json) return printJson(certificate)
      const of = certificate.members.map(({ volume }) => volume).join(', ')
      print(
        `snapshot ${out.bold(certificate.name)} of ${of}; I/O was held for ${held(certificate)}`,
      )
      for (const remark of remarks(certificate)) print(out.dim(`  ${remark}`))
    })
}

function addMount(snapshot: Command): void {
  const views = () => import('../../daemon/snapshot-views.js')
  snapshot
    .command('mount')
    .summary('show one as a read-only tree')
    .description(
      'Mounts the snapshot read-only, with the original inode numbers, times, owners and attributes. ' +
        'Of several volumes each is shown below PATH by its name.',
    )
    .argument('<name>', 'the snapshot')
    .argument('[path]', 'where (default: below the run directory)')
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExample:\n  holdfast snapshot mount before-upgrade /mnt/before')
    .action(async (name: string, path: string | undefined, { json = false }: JsonFlag) => {
      const { mountSnapshot } = await views()
      const mounted = await mountSnapshot(name, { path: path && resolve(path) })
      if (json) return printJson({ views: mounted })
      for (const { volume, path } of mounted) print(`${out.bold(volume)} as of ${name} at ${path}`)
    })
  snapshot
    .command('unmount')
    .alias('umount')
    .summary('end that')
    .argument('<name>', 'the snapshot')
    .option('--force', 'although it is in use')
    .action(async (name: string, { force = false }: { force?: boolean }) => {
      const { unmountSnapshot } = await views()
      const n = await unmountSnapshot(name, force)
      print(n === 0 ? `${name} is not mounted` : `${out.bold(name)} is unmounted`)
    })
}

function addList(snapshot: Command): void {
  snapshot
    .command('list')
    .summary('those there are')
    .argument('[volume]', 'only those of this volume')
    .option('--replica', 'what the replica of that name on this host knows of those of its primary')
    .option('--json', 'as JSON')
    .addHelpText(
      'after',
      '\nExamples:\n  holdfast snapshot list data\n  holdfast snapshot list data --replica',
    )
    .action(async (which: string | undefined, { json = false, replica = false }: ListFlags) => {
      if (replica) return listOfReplica(which, json)
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
        PASTS[each.past],
        labelText(each),
      ])
      print(table([['NAME', 'TAKEN', 'VOLUMES', 'HELD', 'STATE', 'PAST', 'LABELS'], ...rows]))
    })
}

/** A replica that keeps a history has the markers of its primary; snapshots are among them. */
async function listOfReplica(which: string | undefined, json: boolean): Promise<void> {
  if (which === undefined) throw usageError('of which replica?')
  const { ReplicaPastClient } = await import('../../daemon/replica-client.js')
  const points = await new ReplicaPastClient(which).points()
  if (json) return printJson({ points })
  if (points.length === 0) return print('no snapshots')
  const rows = points.map(({ name, time, seq }) => [name, time, `${seq}`])
  print(table([['NAME', 'TAKEN', 'SEQ'], ...rows]))
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
        ['past', PASTS[found.past]],
        ['held', `${held(found)}, at most ${found.maxHoldMs} ms allowed`],
        ...(found.attempt === 1 ? [] : [['attempt', `${found.attempt}`]]),
        ...found.members.map(({ volume, seq }) => [volume, `up to seq ${formatCount(seq)}`]),
        ...(labelText(found) === '' ? [] : [['labels', labelText(found)]]),
      ]
      print(table(rows.map(([key = '', value = '']) => [`  ${key}`, value])))
      for (const line of [...hookRuns(found.hooks), ...seen(found)]) print(`  ${line}`)
    })
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

const PASTS = {
  kept: 'kept',
  lost: out.red('lost: the history had no room'),
  none: out.dim('no history'),
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
