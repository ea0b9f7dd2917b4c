/** `holdfast group restore` */
import type { Command } from 'commander'
import type { GroupRestoration, HostRestored } from '../../daemon/group-restore.js'
import type { Restored } from '../../group/wire.js'
import { HoldfastError } from '../../lib/errors.js'
import { formatBytes, formatCount } from '../../lib/format.js'
import { asks, goOn } from '../confirm.js'
import { err, interruptSignal, out, print, printJson, remark } from '../output.js'

interface RestoreFlags {
  toSnapshot: string
  output?: string
  dryRun?: boolean
  yes?: boolean
  snapshotFirst?: string
  thorough?: boolean
  json?: boolean
}

export function addGroupRestore(group: Command): void {
  group
    .command('restore')
    .summary('bring all members back to one instant')
    .description(
      'Makes the volumes of all hosts what they were at a snapshot of the group, each by the restore of its ' +
        'host: in place, through the mountpoint, journaled; or with --output as copies. When one host ' +
        'cannot, nothing is changed anywhere. What fails after that is told by host; the same command ' +
        'again ends it. A peer without ssh has to be allowed: `holdfast peer allow --restore`, --restore-to.',
    )
    .argument('<group>')
    .requiredOption('--to-snapshot <name>', 'of the group')
    .option('--output <dir>', 'a copy of each volume there, on its host, by its name')
    .option('--dry-run', 'only tell how much would be done')
    .option('-y, --yes', 'do not ask')
    .option('--snapshot-first <name>', 'take a snapshot of the group as it is before, to undo it')
    .option('--thorough', 'read everything, whatever inode numbers and times say')
    .option('--json', 'as JSON')
    .addHelpText(
      'after',
      `
In place, what is not in the snapshot is deleted; stop applications that keep their own idea of what is in
their files. On a terminal it is asked first, unless --yes.

Examples:
  holdfast group restore shop --to-snapshot before-upgrade --dry-run
  holdfast group restore shop --to-snapshot before-upgrade --snapshot-first after-upgrade
  holdfast group restore shop --to-snapshot nightly --output /restore`,
    )
    .action(async (name: string, flags: RestoreFlags) => {
      const { restoreGroup } = await import('../../daemon/group-restore.js')
      const { toSnapshot: snapshot, output, thorough, snapshotFirst, dryRun = false } = flags
      const signal = interruptSignal()
      const request = { group: name, snapshot, output, thorough, signal }
      if (snapshotFirst !== undefined && !dryRun) {
        // When a host would refuse, not even that is to be done.
        await restoreGroup(request, async () => {})
        const { createGroupSnapshot } = await import('../../daemon/groups.js')
        await createGroupSnapshot({ group: name, name: snapshotFirst, signal })
      }
      await restoreGroup(request, async (restoration) => {
        if (flags.json !== true) remark(out.dim(`= ${snapshot}, ${restoration.created}`))
        if (dryRun) return report(await restoration.plan(), { name, flags })
        if (!(await agreed(restoration, flags))) return print('nothing was changed')
        report(await restoration.run(), { name, flags })
      })
    })
}

async function agreed({ hosts }: GroupRestoration, flags: RestoreFlags): Promise<boolean> {
  if (flags.output !== undefined || flags.yes === true || !asks()) return true
  for (const { host, volumes } of hosts) {
    for (const { volume, target, undoable } of volumes) {
      const note = undoable ? '' : err.yellow(' (cannot be undone there: see --snapshot-first)')
      remark(`${host}: ${volume} in place, ${target}${note}`)
    }
  }
  return goOn()
}

type About = { name: string; flags: RestoreFlags }

/** RESTORE_FAILED when something was left undone on a host. */
function report(hosts: readonly HostRestored[], { name, flags }: About): void {
  const { json = false, snapshotFirst, dryRun = false } = flags
  if (json)
    printJson({ hosts: hosts.map((each) => ({ ...each, error: each.error?.toJSON() ?? null })) })
  else {
    for (const { host, volumes, error } of hosts) {
      for (const each of volumes) tell(host, each, flags)
      if (error !== null) remark(`${err.red('error')}: ${host}: ${error.message}`)
    }
    const undo = `holdfast group restore ${name} --to-snapshot ${snapshotFirst}`
    if (snapshotFirst !== undefined && !dryRun) remark(`  undo it: ${undo}`)
  }
  const isWhole = ({ volumes, error }: HostRestored) =>
    error === null && volumes.every((each) => each.error === null && each.undone === 0)
  const failed = hosts.filter((each) => !isWhole(each)).map(({ host }) => host)
  if (failed.length === 0) return
  const done = hosts.filter(isWhole).map(({ host }) => host)
  const others =
    done.length === 0 ? '' : `; ${done.join(', ')} ${done.length > 1 ? 'are' : 'is'} done`
  throw new HoldfastError(
    'RESTORE_FAILED',
    `not all was restored on ${failed.join(', ')}${others}`,
    {
      op: 'group.restore',
      hint: 'Remove the cause; the same command again goes on, on all hosts.',
    },
  )
}

function tell(host: string, restored: Restored, { snapshotFirst }: RestoreFlags): void {
  const { volume, target, objects, bytes, changes, failures, undone, undo, error } = restored
  const where = `${host}: ${out.bold(volume)}`
  if (changes !== null) {
    const counts = Object.entries(changes).map(([kind, n]) => `${formatCount(n)} ${kind}`)
    print(`${where} would be: ${counts.join(', ') || 'as it is'}`)
    return
  }
  for (const failure of failures) remark(`${host}: ${volume}: ${failure}`)
  if (error !== null) {
    remark(`${err.red('error')}: ${host}: ${volume}: ${error.message}`)
    return
  }
  const left = undone === 0 ? '' : err.red(`, ${formatCount(undone)} left undone`)
  const did = `${formatCount(objects)} objects, ${formatBytes(bytes)}`
  print(`${where} ${out.green('restored')} in ${target}: ${did}${left}`)
  if (undo !== null && snapshotFirst === undefined) remark(`  undo it there: ${undo}`)
}
