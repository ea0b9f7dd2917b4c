/** `holdfast group snapshot create|mount|unmount|list|destroy|prune`; `group-schedule.ts` has the rest. */
import type { Command } from 'commander'
import type { GroupSnapshot } from '../../group/definition.js'
import { HoldfastError } from '../../lib/errors.js'
import { formatCount, formatDuration } from '../../lib/format.js'
import { hostName } from '../../lib/host-name.js'
import { addCutOptions, type CutFlags, cutOrder, MAX_HOLD } from '../cut-arguments.js'
import { addKeepOptions, type KeepFlags, labelArgument, policyOf } from '../keep-arguments.js'
import { interruptSignal, out, print, printJson, remark, table } from '../output.js'
import { prunedTable } from '../render-pruned.js'
import { addGroupSchedules } from './group-schedule.js'

interface CreateFlags extends CutFlags {
  name?: string
  verbose?: boolean
  json?: boolean
}

interface PruneFlags extends KeepFlags {
  label?: Record<string, string>
  dryRun?: boolean
  json?: boolean
}

const daemon = () => import('../../daemon/groups.js')

export function addGroupSnapshotCommands(group: Command): void {
  const snapshot = group
    .command('snapshot')
    .summary('one instant of all members')
    .description('Snapshots of a group: each host keeps its part of one, all at one instant.')
  addCreate(snapshot)
  addMount(snapshot)
  addOthers(snapshot)
  addGroupSchedules(snapshot)
}

function addCreate(snapshot: Command): void {
  const create = snapshot
    .command('create')
    .summary('take one')
    .description(
      'Every host prepares (hooks; what is mapped is written out), with I/O going on; then all hold ' +
        'I/O at one instant. Scheduled: around an instant that was agreed on, for as long as the clocks ' +
        'are uncertain, with no message inside. Barrier: until all have said that they are at rest. It ' +
        'is kept only when the hosts reports prove one instant; else nothing is kept anywhere.',
    )
    .argument('<group>')
    .option('--name <name>', 'what it is called (default: the time)')
    .option(...MAX_HOLD)
  addCutOptions(create)
    .option('-v, --verbose', 'tell the states that it goes through')
    .option('--json', 'as JSON')
    .addHelpText(
      'after',
      '\nExample:\n  holdfast group snapshot create shop --name before-upgrade --max-hold 50ms',
    )
    .action(async (group: string, flags: CreateFlags) => {
      const { createGroupSnapshot } = await daemon()
      const { name, verbose = false, json = false } = flags
      const taken = await createGroupSnapshot({
        group,
        name,
        ...cutOrder(flags),
        signal: interruptSignal(),
        ...(verbose ? { onState: (state: string) => remark(state) } : {}),
      })
      if (json) return printJson(taken)
      const times = taken.attempt === 1 ? '' : `, attempt ${taken.attempt}`
      print(`${out.bold(taken.name)} of ${group}: ${taken.method}, held ${held(taken)}${times}`)
      print(table([['  MEMBER', 'SEQ', 'HELD'], ...memberRows(taken)]))
    })
}

function addMount(snapshot: Command): void {
  const views = () => import('../../daemon/group-views.js')
  snapshot
    .command('mount')
    .summary('look at one, on every host')
    .description('Each host shows its part, read-only, where it always shows it.')
    .argument('<group>')
    .argument('<name>', 'the snapshot')
    .option('--json', 'as JSON')
    .action(async (group: string, name: string, { json = false }: { json?: boolean }) => {
      const { mountGroupSnapshot } = await views()
      const mounted = await mountGroupSnapshot(group, name, { signal: interruptSignal() })
      if (json) return printJson({ views: mounted })
      const rows = mounted.map(({ host, volume, path }) => [`${host}/${volume}`, path])
      print(table([['MEMBER', 'SHOWN THERE AT'], ...rows]))
    })
  snapshot
    .command('unmount')
    .alias('umount')
    .summary('end that, on every host')
    .argument('<group>')
    .argument('<name>', 'the snapshot')
    .option('--force', 'although it is in use')
    .action(async (group: string, name: string, { force = false }: { force?: boolean }) => {
      const { unmountGroupSnapshot } = await views()
      const n = await unmountGroupSnapshot(group, name, { force, signal: interruptSignal() })
      print(n === 0 ? `${name} is not mounted` : `${out.bold(name)} is unmounted`)
    })
}

function addOthers(snapshot: Command): void {
  snapshot
    .command('list')
    .summary('those there are')
    .description('Asks the hosts whether they still have their parts.')
    .argument('<group>')
    .option('--json', 'as JSON')
    .action(async (group: string, { json = false }: { json?: boolean }) => {
      const { listGroupSnapshots } = await daemon()
      const found = await listGroupSnapshots(group, { signal: interruptSignal() })
      if (json) return printJson({ snapshots: found })
      if (found.length === 0) return print('no snapshots')
      const rows = found.map((each) => [
        each.name,
        each.created,
        each.method,
        held(each),
        STATES[each.state],
      ])
      print(table([['NAME', 'TAKEN', 'METHOD', 'HELD', 'STATE'], ...rows]))
    })
  snapshot
    .command('destroy')
    .summary('forget snapshots, on all hosts')
    .argument('<group>')
    .argument('<name...>', 'snapshots')
    .option('--force', 'although a hook fails')
    .action(async (group: string, names: string[], { force = false }: { force?: boolean }) => {
      const { destroyGroupSnapshot } = await daemon()
      for (const name of names) {
        await destroyGroupSnapshot(group, name, { force, signal: interruptSignal() })
        print(`${out.bold(name)} is forgotten`)
      }
    })
  addPrune(snapshot)
}

function addPrune(snapshot: Command): void {
  const prune = snapshot
    .command('prune')
    .summary('forget those that a policy does not keep, on all hosts')
    .description(
      'Applies a policy to the snapshots of a group, as `restic forget` does. Only whole ones count; one of ' +
        'which a host has lost its part goes when it would, were it whole.',
    )
    .argument('<group>')
  addKeepOptions(prune)
    .option('--label <key=value>', 'only those with this label; again for more', labelArgument)
    .option('--dry-run', 'only tell what would go')
    .option('--json', 'as JSON')
    .addHelpText(
      'after',
      '\nExample:\n  holdfast group snapshot prune shop --keep-daily 7 --keep-weekly 4 --dry-run',
    )
    .action(async (group: string, flags: PruneFlags) => {
      const { pruneGroupSnapshots } = await import('../../daemon/group-prune.js')
      const { label: labels, dryRun = false, json = false } = flags
      const about = { group, policy: policyOf(flags), labels, dryRun, signal: interruptSignal() }
      const results = await pruneGroupSnapshots(about)
      if (json) printJson({ snapshots: results })
      else if (results.length === 0) print('no snapshots')
      else print(prunedTable(results, dryRun))
      const [failed] = results.flatMap(({ error }) => error ?? [])
      if (failed !== undefined) throw HoldfastError.from(failed)
    })
}

const STATES = {
  complete: 'complete',
  incomplete: out.red('incomplete: a host has no part of it'),
  unknown: out.yellow('unknown: a host does not answer'),
}

type Reported = Pick<GroupSnapshot, 'hosts'>

function heldNs({ closedNs, releaseNs }: { closedNs: string; releaseNs: string }): number {
  return Number(BigInt(releaseNs) - BigInt(closedNs))
}

/** The longest of all members. */
function held({ hosts }: Reported): string {
  return formatDuration(Math.max(...hosts.flatMap(({ members }) => members.map(heldNs))))
}

function memberRows({ hosts }: Reported): string[][] {
  return hosts.flatMap(({ host, members }) =>
    members.map((each) => [
      `  ${host === '' ? hostName() : host}/${each.volume}`,
      formatCount(each.seq),
      formatDuration(heldNs(each)),
    ]),
  )
}
