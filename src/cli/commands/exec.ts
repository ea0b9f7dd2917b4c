/** `holdfast exec`: a command that sees one instant. */
import { type ChildProcess, spawn } from 'node:child_process'
import { constants } from 'node:os'
import { resolve } from 'node:path'
import { isatty } from 'node:tty'
import { type Command, InvalidArgumentError, Option } from 'commander'
import { exposedEnvironment } from '../../daemon/exposed.js'
import { groupExecDirectory } from '../../daemon/places.js'
import { HoldfastError } from '../../lib/errors.js'
import { addCutOptions, type CutFlags, cutOrder, MAX_HOLD } from '../cut-arguments.js'
import { catchInterrupts, type Interrupts, usageError } from '../output.js'
import type { GroupExecFlags } from './exec-group.js'

interface ExecFlags extends CutFlags {
  snapshot?: string[]
  group?: string
  here?: boolean
  name?: string
  at?: string
  keep?: boolean
}

/** Passed on to the command. A terminal sends SIGINT and SIGQUIT to both. */
const FORWARDED = ['SIGTERM', 'SIGHUP', 'SIGUSR1', 'SIGUSR2'] as const
const FROM_TERMINAL = ['SIGINT', 'SIGQUIT'] as const

export function addExecCommand(program: Command): void {
  const exec = program
    .command('exec')
    .summary('run a command on a snapshot')
    .description(
      'Takes a snapshot of the volumes, mounts it read-only at a place that is the same every time, ' +
        'runs the command with {} replaced by that place, and clears up, also when it is killed. What ' +
        'the command has started and left running is ended before: it would see the next snapshot. ' +
        'Output, signals and the exit code are those of the command (128 + N: signal N ended it). Of ' +
        'several volumes {} is the directory that has them by name. The command also gets ' +
        'HOLDFAST_SNAPSHOT, HOLDFAST_VIEW and, for each volume, HOLDFAST_VIEW_<NAME> and ' +
        'HOLDFAST_SEQ_<NAME>. One command at a time sees the snapshot at one place.\n\n' +
        'With --group the snapshot is one of a group, and the command runs on every host, on what that ' +
        'host shows, in /, without input; its output comes here, in lines with the name of the host ' +
        'where there are several. The exit code is that of the first host with another than 0. A word ' +
        `of a host's ${groupExecDirectory()} is that program; a peer without ssh may only run what ` +
        '`holdfast peer allow --exec` there allows it.',
    )
    .addOption(
      new Option('--snapshot <volume,...>', 'volumes: all of them at one instant')
        .argParser(listArgument)
        .conflicts('group'),
    )
    .option('--group <name>', 'a group: all its hosts at one instant')
    .option('--here', 'of a group: run the command once, here; the hosts only show their parts')
    .option('--name <name>', 'what the snapshot is called (default: the time)')
    .option('--keep', 'keep the snapshot')
    .option('--at <path>', 'where it is mounted (default: below the run directory); not of a group')
    .option(...MAX_HOLD)
    .argument('<command...>', 'after --: the command, {} where the path goes')
  exec.optionsGroup('With --group only:')
  addCutOptions(exec)
    .addHelpText(
      'after',
      `
With --here, {} is where this host shows its part, {HOST} where that host does; the command gets
HOLDFAST_HOSTS, HOLDFAST_VIEW_<HOST> and HOLDFAST_VIEW_<HOST>_<VOLUME>.

Examples:
  holdfast exec --snapshot data -- restic backup {}
  holdfast exec --snapshot db,mail -- borg create ::{now} {}
  holdfast exec --snapshot data -- sh -c 'cd "$HOLDFAST_VIEW" && tar c .' >data.tar
  holdfast exec --group shop -- backup {}
  holdfast exec --group shop --here -- rsync -a files1:{files1}/ /backup/files1/`,
    )
    .action(async (command: string[], flags: ExecFlags) => {
      const { group, snapshot } = flags
      requireFitting(flags)
      // Until the command runs: hooks may have frozen what has to be thawed.
      const interrupts = catchInterrupts()
      try {
        process.exitCode =
          group === undefined
            ? await execOnHost({ ...flags, volumes: snapshot ?? [] }, command, interrupts)
            : await execOnGroup({ ...flags, group }, command, interrupts)
      } finally {
        interrupts.release()
      }
    })
}

/** USAGE. */
function requireFitting({ group, snapshot, at, here, ...flags }: ExecFlags): void {
  if (group === undefined && snapshot === undefined) {
    throw usageError('a snapshot of what?', 'One of --snapshot VOLUME,… and --group NAME.')
  }
  if (group !== undefined && at !== undefined) {
    throw usageError('--at is not for groups: every host shows its part where it always does')
  }
  const { maxHoldMs, hooks, ...ofGroups } = cutOrder(flags)
  const isSaid = here || !hooks || Object.values(ofGroups).some((each) => each !== undefined)
  if (group === undefined && isSaid) {
    throw usageError('that option is for groups', 'See which: holdfast exec --help')
  }
}

async function execOnHost(
  flags: ExecFlags & { volumes: string[] },
  command: string[],
  interrupts: Interrupts,
): Promise<number> {
  const { withSnapshot } = await import('../../daemon/snapshot-views.js')
  const { volumes, name, keep, maxHold: maxHoldMs, at } = flags
  const path = at && resolve(at)
  const { signal } = interrupts
  const request = { volumes, name, keep: keep === true, maxHoldMs, path, signal }
  return withSnapshot(request, (exposed) => {
    const placed = command.map((word) => word.replaceAll('{}', exposed.path))
    return runCommand(placed, exposedEnvironment(exposed), interrupts)
  })
}

async function execOnGroup(
  flags: GroupExecFlags,
  command: string[],
  interrupts: Interrupts,
): Promise<number> {
  const { execGroup, execHere } = await import('./exec-group.js')
  if (flags.here !== true) return execGroup(flags, command, interrupts)
  const { signal } = interrupts
  return execHere(flags, { command, signal }, (placed, env) => runCommand(placed, env, interrupts))
}

function listArgument(text: string): string[] {
  const names = text.split(',').filter((name) => name !== '')
  if (names.length === 0) throw new InvalidArgumentError('Give volumes, with commas between them.')
  return names
}

/** Resolves with the exit code to end with: that of the command, or 128 + its signal. */
async function runCommand(
  command: readonly string[],
  env: Record<string, string>,
  interrupts: Interrupts,
): Promise<number> {
  const [file = '', ...args] = command
  // Before the command is there: it may say so at once, and be sent a signal.
  const { attach, stop } = forwardSignals()
  interrupts.release()
  // It ends with this process, however that ends: nobody would clear up behind it.
  const child = spawn('setpriv', ['--pdeathsig', 'TERM', '--', file, ...args], {
    stdio: 'inherit',
    env: { ...process.env, ...env },
  })
  attach(child)
  try {
    return await new Promise((resolve, reject) => {
      child.once('error', (cause) => {
        const message = `cannot run ${file}: ${cause.message}`
        reject(new HoldfastError('START_FAILED', message, { op: 'exec', cause }))
      })
      child.once('exit', (code, signal) => {
        resolve(signal === null ? (code ?? 1) : 128 + constants.signals[signal])
      })
    })
  } finally {
    stop()
  }
}

/** From now on signals go to the process that is attached next. */
function forwardSignals(): { attach(child: ChildProcess): void; stop(): void } {
  let child: ChildProcess | undefined
  const pass = (signal: NodeJS.Signals) => child?.kill(signal)
  const passed: readonly NodeJS.Signals[] = FORWARDED
  const shared: readonly NodeJS.Signals[] = FROM_TERMINAL
  // Not process.stdin: to look at it makes the input non-blocking, for the command too.
  const onShared = isatty(0) ? () => {} : pass
  for (const signal of passed) process.on(signal, pass)
  for (const signal of shared) process.on(signal, onShared)
  return {
    attach: (started) => {
      child = started
    },
    stop: () => {
      for (const signal of passed) process.off(signal, pass)
      for (const signal of shared) process.off(signal, onShared)
    },
  }
}
