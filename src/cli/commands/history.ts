/** `holdfast history mount|unmount|ls` */
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import type { Command } from 'commander'
import { ControlClient } from '../../daemon/client.js'
import { replicaSocketPath } from '../../daemon/places.js'
import { findVolume } from '../../daemon/registry.js'
import { ReplicaPastClient } from '../../daemon/replica-client.js'
import type { Change, ObjectVersions } from '../../daemon/versions.js'
import { HoldfastError } from '../../lib/errors.js'
import { formatBytes } from '../../lib/format.js'
import { isWithin } from '../../lib/mountinfo.js'
import { printable } from '../../lib/printable.js'
import { seqArgument, timeArgument } from '../arguments.js'
import { out, print, printJson, table, usageError } from '../output.js'
import { userName } from '../users.js'

interface MountFlags {
  toSeq?: bigint
  toTime?: bigint
  toSnapshot?: string
  replica?: boolean
  json?: boolean
}

export function addHistoryCommands(program: Command): void {
  const history = program
    .command('history')
    .summary('any kept moment of a volume')
    .description(
      'A volume keeps the state at each of its snapshots, or at every moment (holdfast mount ' +
        '--history continuous), as far back as its limits allow; a replica can as well, at no cost to ' +
        'its primary (holdfast replica history).',
    )
  history
    .command('mount')
    .summary('show a volume as it was, read-only')
    .argument('<volume>', 'name, mountpoint or directory of the volume, or name of a replica here')
    .argument('<path>', 'where; made if it is missing')
    .option('--to-time <time>', 'as of this time', timeArgument)
    .option('--to-seq <seq>', 'as of this change', seqArgument)
    .option('--to-snapshot <name>', 'as of this snapshot; of a replica: of its primary')
    .option('--replica', 'the replica of that name on this host, not the volume')
    .option('--json', 'as JSON')
    .addHelpText(
      'after',
      `
Examples:
  holdfast history mount data /mnt/before --to-time 10m
  holdfast history mount data /mnt/then --to-seq 812345
  holdfast history mount data /mnt/there --to-time 2h --replica
  holdfast history mount data /mnt/there --to-snapshot before-upgrade --replica`,
    )
    .action(async (which: string, path: string, flags: MountFlags) => {
      const client = pastOf(which, flags)
      const seq = await seqOf(client, flags)
      const { json = false } = flags
      const view = await client.mountView({ seq: Number(seq), path: resolve(path) })
      if (json) return printJson(view)
      print(`${out.bold(client.name)} as of seq ${view.seq} at ${view.path}`)
    })
  history
    .command('unmount')
    .summary('end that')
    .argument('<path>', 'where it is shown')
    .option('--force', 'although it is in use')
    .action(async (path: string, { force = false }: { force?: boolean }) => {
      const { unmountAt } = await import('../../daemon/snapshot-views.js')
      await unmountAt(resolve(path), force)
      print(`${resolve(path)} is unmounted`)
    })
  addLs(history)
}

type Keeper = ControlClient | ReplicaPastClient

async function seqOf(client: Keeper, { toSeq, toTime, toSnapshot }: MountFlags): Promise<bigint> {
  if ([toSeq, toTime, toSnapshot].filter((each) => each !== undefined).length !== 1) {
    throw usageError('give --to-time, --to-seq or --to-snapshot')
  }
  if (toSeq !== undefined) return toSeq
  if (toTime !== undefined) return client.seqAt(Number(toTime / 1_000_000n))
  const name = toSnapshot ?? ''
  if (client instanceof ReplicaPastClient) return client.snapshotSeq(name)
  const { snapshotSeq } = await import('../../daemon/snapshots.js')
  return snapshotSeq(name, findVolume(client.name))
}

/** Who keeps the past of that: the daemon of a volume, or the replica server of this host. */
function pastOf(which: string, flags: { replica?: boolean }): Keeper {
  if (flags.replica === true) return new ReplicaPastClient(which)
  try {
    return new ControlClient(findVolume(which).config.name)
  } catch (error) {
    // Without a server that has it, there is no such volume.
    if (which.includes('/') || !existsSync(replicaSocketPath())) throw error
    return new ReplicaPastClient(which)
  }
}

function addLs(history: Command): void {
  history
    .command('ls')
    .summary('the versions of a file or directory')
    .description(
      'Lists what a path led to and how it changed, newest first: since when, by whom, what it was.',
    )
    .argument('<path>', 'a path in a volume, also of something that is gone')
    .option('--to-seq <seq>', 'look for its directory as of this change', seqArgument)
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExample:\n  holdfast history ls /srv/data/report.odt')
    .action(async (path: string, flags: { toSeq?: bigint; json?: boolean }) => {
      const { client, inside } = locate(resolve(path))
      const objects = await client.historyOf(Buffer.from(inside), flags.toSeq)
      if (flags.json === true) return printJson({ path: resolve(path), objects })
      if (objects.length === 0) {
        throw new HoldfastError('NOT_FOUND', `nothing is known of ${path}`, {
          op: 'history.ls',
          hint: 'Its directory may be gone too: look for it as of an earlier --to-seq.',
        })
      }
      print(
        table([['SEQ', 'SINCE', 'BY', 'WHAT', 'SIZE', 'MODE', 'OWNER'], ...objects.flatMap(rows)]),
      )
    })
}

/** The volume that a path is in, and the path in it. */
function locate(path: string): { client: ControlClient; inside: string } {
  for (let at = path; ; at = resolve(at, '..')) {
    try {
      const { config } = findVolume(at)
      if (isWithin(path, config.mountpoint)) {
        const inside = path.slice(config.mountpoint.length)
        return { client: new ControlClient(config.name), inside }
      }
    } catch (error) {
      if (at === '/') throw error
    }
    if (at === '/') {
      throw new HoldfastError('VOLUME_NOT_FOUND', `${path} is in no volume`, { op: 'history.ls' })
    }
  }
}

function rows({ gone, versions }: ObjectVersions): string[][] {
  const lines = versions.map((version) => {
    const { made, size, mode, uid, gid } = version
    const type = (mode & 0o170000) === 0o040000
    return [
      made === null ? '-' : `${made.seq}`,
      made === null ? out.dim('before the history') : made.time,
      made === null ? '' : by(made),
      made?.op ?? '',
      type ? '-' : formatBytes(size),
      (mode & 0o7777).toString(8).padStart(4, '0'),
      `${userName(uid)}:${gid}`,
    ]
  })
  if (gone === null) return lines
  return [[`${gone.seq}`, gone.time, by(gone), gone.op, out.dim('gone'), '', ''], ...lines]
}

function by({ uid, pid, command }: Change): string {
  return `${userName(uid)} ${printable(Buffer.from(command))}[${pid}]`
}
