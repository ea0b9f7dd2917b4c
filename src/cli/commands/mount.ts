/** `holdfast mount`, `holdfast unmount` */
import { type Command, Option } from 'commander'
import { ControlClient } from '../../daemon/client.js'
import { type Launched, launchDaemon } from '../../daemon/launch.js'
import { planMount } from '../../daemon/plan.js'
import { findVolume, resolveAhead, type Volume, type VolumeOptions } from '../../daemon/registry.js'
import { formatBytes } from '../../lib/format.js'
import {
  countArgument,
  durationArgument,
  durationOrNone,
  sizeArgument,
  sizeOrNone,
} from '../arguments.js'
import { out, print, printJson, remark } from '../output.js'

interface MountFlags {
  at?: string
  name?: string
  state?: string
  ring?: string
  ringSize?: number
  writeback?: boolean
  workers?: number
  ringWait?: number
  transport?: 'auto' | 'device'
  history?: 'none' | 'snapshots' | 'continuous'
  historyDir?: string
  historySize?: number
  historyAge?: number | null
  historyFull?: 'drop' | 'refuse'
  retainSize?: number | null
  retainAge?: number | null
  hooks?: string
  force?: boolean
  foreground?: boolean
  json?: boolean
}

export function addMountCommands(program: Command): void {
  program
    .command('mount')
    .summary('protect a directory')
    .description(
      'Protects DIR: every change made in it from now on is captured and journaled. The directory ' +
        'stays where it is (the volume is mounted over it), unless --at says otherwise. Starting a ' +
        'volume again, also after a crash, takes the same command; options that are not given keep ' +
        'their values.',
    )
    .argument('<dir>', 'directory to protect, or the name of a volume to start again')
    .option('--at <mountpoint>', 'show the volume here instead of over DIR')
    .option('--name <name>', 'name of the volume (default: last part of DIR)')
    .option('--state <dir>', "the volume's state and journal (default: /var/lib/holdfast/<name>)")
    .option('--ring <dir>', 'tmpfs directory of the capture ring (default: /dev/shm)')
    .option('--ring-size <size>', 'size of the capture ring (default: 256M)', sizeArgument)
    .option(
      '--ring-wait <time>',
      'how long a writer waits for space in a full ring before ENOSPC (default: 30s)',
      durationArgument,
    )
    .option('--retain-size <size>', 'journal size kept, or none (default: 64G)', sizeOrNone)
    .option('--retain-age <age>', 'journal age kept, or none (default: none)', durationOrNone)
    .addOption(
      new Option(
        '--history <what>',
        'what is kept of the past: the state at each snapshot, or at every moment (default: snapshots)',
      ).choices(['none', 'snapshots', 'continuous']),
    )
    .option('--history-dir <dir>', 'where (default: with the state)')
    .option('--history-size <size>', 'how much of it (default: 64G)', sizeArgument)
    .option(
      '--history-age <age>',
      'how old moments of a continuous one get, or none',
      durationOrNone,
    )
    .addOption(
      new Option(
        '--history-full <what>',
        'when there is no room: drop the oldest moments, or refuse changes (default: drop)',
      ).choices(['drop', 'refuse']),
    )
    .option('--hooks <dir>', "hooks for this volume's snapshots, or none (docs/HOOKS.md)")
    .option('--writeback', 'kernel write-back caching: faster small writes, see docs/SEMANTICS.md')
    .option('--no-writeback', 'write-through: each write is one change, in order (the default)')
    .option('--workers <n>', 'request threads (default: chosen by the data plane)', countArgument)
    .addOption(
      new Option(
        '--transport <how>',
        'how requests travel: io_uring where the kernel has it, or not',
      )
        .choices(['auto', 'device'])
        .default('auto'),
    )
    .option('--force', 'although processes or mounts inside DIR bypass the capture')
    .option('--foreground', 'stay in the foreground; for a service manager (Type=notify)')
    .option('--json', 'print the status as JSON')
    .addHelpText(
      'after',
      `
Examples:
  holdfast mount /srv/data                        protect /srv/data in place
  holdfast mount /srv/data --at /mnt/data         show it at /mnt/data instead
  holdfast mount /srv/db --retain-age 7d --retain-size 200G
  holdfast mount data                             start the volume "data" again`,
    )
    .action(async (directory: string, flags: MountFlags, command: Command) => {
      const volume = planMount({
        directory,
        at: flags.at,
        name: flags.name,
        stateDirectory: flags.state,
        options: optionsOf(flags, command),
      })
      const force = flags.force === true
      if (flags.foreground === true) {
        await runInForeground(volume, force)
      }
      const launched = await launchDaemon({ volume, force })
      if (flags.json === true) printJson(launched)
      else print(mountedText(launched))
    })

  program
    .command('unmount')
    .alias('umount')
    .summary('stop protecting a directory')
    .description(
      'Unmounts a volume in order: what is captured is journaled first. Refused while processes use ' +
        'it; --force detaches it all the same, and they keep the files they have open until they ' +
        'close them.',
    )
    .argument('<volume>', 'name, mountpoint or directory of the volume')
    .option('--force', 'although processes use it')
    .addHelpText(
      'after',
      `
Examples:
  holdfast unmount data
  holdfast unmount /srv/data --force`,
    )
    .action(async (which: string, { force = false }: { force?: boolean }) => {
      const { config } = findVolume(which)
      const { inRingBytes } = await new ControlClient(config.name).stop({ force })
      print(`${out.bold(config.name)} unmounted; ${config.backing} is no longer protected`)
      if (inRingBytes === 0) return
      remark(
        `the journal takes nothing: ${formatBytes(inRingBytes)} of changes stay in the ring, in memory. ` +
          `Free space for it and mount ${config.name} again before this machine restarts.`,
      )
    })
}

/** Loaded here only: the daemon's modules take longer than most commands run. */
async function runInForeground(volume: Volume, force: boolean): Promise<never> {
  const { runDaemon } = await import('../../daemon/run.js')
  const { makeLogger } = await import('../../lib/log.js')
  const log = makeLogger({ fd: 2, base: { volume: volume.config.name } })
  const daemon = await runDaemon({ volume, force, log })
  process.exit(await daemon.ended)
}

/** Only what was given: the rest keeps its stored or default value. */
function optionsOf(flags: MountFlags, command: Command): Partial<VolumeOptions> {
  const given = <T>(name: string, value: T | undefined): value is T =>
    value !== undefined && command.getOptionValueSource(name) === 'cli'
  return {
    ...(given('ring', flags.ring) ? { ringDirectory: resolveAhead(flags.ring) } : {}),
    ...(given('ringSize', flags.ringSize) ? { ringBytes: flags.ringSize } : {}),
    ...(given('writeback', flags.writeback) ? { writeback: flags.writeback } : {}),
    ...(given('workers', flags.workers) ? { workers: flags.workers } : {}),
    ...(given('transport', flags.transport) ? { transport: flags.transport } : {}),
    ...(given('ringWait', flags.ringWait) ? { ringWaitMs: flags.ringWait } : {}),
    ...(given('history', flags.history) ? { history: flags.history } : {}),
    ...(given('historyDir', flags.historyDir)
      ? { historyDirectory: resolveAhead(flags.historyDir) }
      : {}),
    ...(given('historySize', flags.historySize) ? { historyBytes: flags.historySize } : {}),
    ...(given('historyAge', flags.historyAge) ? { historyAgeMs: flags.historyAge } : {}),
    ...(given('historyFull', flags.historyFull) ? { historyFull: flags.historyFull } : {}),
    ...(given('retainSize', flags.retainSize) ? { retainBytes: flags.retainSize } : {}),
    ...(given('retainAge', flags.retainAge) ? { retainAgeMs: flags.retainAge } : {}),
    ...(given('hooks', flags.hooks)
      ? { hooks: flags.hooks === 'none' ? null : resolveAhead(flags.hooks) }
      : {}),
  }
}

function mountedText({ status, start }: Launched): string {
  const { name, mountpoint, backing, stateDirectory, journal } = status
  const where = mountpoint === backing ? mountpoint : `${backing} at ${mountpoint}`
  const lines = [`${out.green('protected')}  ${out.bold(name)}  ${where}`]
  lines.push(`  journal  ${stateDirectory}/journal (${formatBytes(journal.fileBytes)})`)
  if (start.isNew) lines.push('  new volume: replay starts from a copy of the tree as it is now')
  if (start.recoveredMount) lines.push('  recovered in place over a dead mount')
  if (start.ring === 'recovered') {
    const { pendingRecords, intents } = start
    lines.push(
      `  recovered ${pendingRecords} captured changes from the ring; ${intents} operations were in flight`,
    )
  }
  if (start.recapture !== null) lines.push(`  ${out.yellow('re-capturing')}: ${start.recapture}`)
  lines.push(out.dim(`  follow it: holdfast status ${name} --watch`))
  return lines.join('\n')
}
