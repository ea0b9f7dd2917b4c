/** `holdfast group serve|freeze|thaw|leave`, and how `group show` tells of a commit horizon. */
import type { Command } from 'commander'
import type { HorizonView, MemberAt, ReplicaAt, Untold } from '../../daemon/group-horizon.js'
import { formatCount, formatDuration } from '../../lib/format.js'
import { hostName } from '../../lib/host-name.js'
import {
  APPLICATION_HOLD_MS_MAX,
  COPY_TIMEOUT_MS_DEFAULT,
  HOLD_MS_MAX,
  HORIZON_HOLD_MS_DEFAULT,
  HORIZON_INTERVAL_MS_DEFAULT,
  HORIZON_INTERVAL_MS_MIN,
} from '../../lib/limits.js'
import { durationArgument } from '../arguments.js'
import { err, interruptSignal, out, print, remark, table, usageError } from '../output.js'

const daemon = () => import('../../daemon/group-horizon.js')

interface ServeFlags {
  interval?: number
  maxHold?: number
  copyTimeout?: number
  holdApplications?: number
  off?: boolean
}

export function addGroupHorizonCommands(group: Command): void {
  addServe(group)
  addFreeze(group)
  group
    .command('leave')
    .summary('a volume of this host has no commit horizon any more')
    .description(
      'For when the host that coordinates its group is gone for good: else `holdfast group serve ' +
        'GROUP --off` there. Its replicas apply everything again.',
    )
    .argument('<volume>')
    .action(async (volume: string) => {
      const { leaveHorizon } = await daemon()
      const left = await leaveHorizon(volume)
      print(left ? `replicas of ${out.bold(volume)} apply everything` : `${volume} has no horizon`)
    })
}

function addServe(group: Command): void {
  group
    .command('serve')
    .summary('keep its replicas at one instant: a commit horizon')
    .description(
      'Replicas of the members then apply up to markers only that all of them have logged, and no ' +
        'further. When a copy fails, or a member is not heard, it freezes the group. Runs in the foreground; ' +
        'logs to stderr. Once begun, nothing more is applied while it does not run: replicas only log.',
    )
    .argument('<name>')
    .option(
      '--interval <time>',
      `pause between two markers (default: ${HORIZON_INTERVAL_MS_DEFAULT / 1000}s)`,
      durationArgument,
    )
    .option(
      '--max-hold <time>',
      `longest time that one may hold I/O anywhere (default: ${HORIZON_HOLD_MS_DEFAULT}ms)`,
      durationArgument,
    )
    .option(
      '--copy-timeout <time>',
      `a copy that gets no further for so long has failed (default: ${COPY_TIMEOUT_MS_DEFAULT / 1000}s)`,
      durationArgument,
    )
    .option(
      '--hold-applications <time>',
      'when a copy fails, hold changes on all members until a thaw, for so long at most (default: not)',
      durationArgument,
    )
    .option('--off', 'no horizon any more: replicas apply everything; then end')
    .addHelpText('after', '\nExample:\n  holdfast group serve shop --interval 500ms')
    .action(async (name: string, flags: ServeFlags) => {
      if (flags.off === true) {
        const { endHorizon } = await daemon()
        await endHorizon(name, { signal: interruptSignal() })
        return print(`replicas of ${out.bold(name)} apply everything`)
      }
      await serve(name, flags)
    })
}

async function serve(group: string, flags: ServeFlags): Promise<void> {
  const {
    interval: intervalMs = HORIZON_INTERVAL_MS_DEFAULT,
    maxHold: maxHoldMs = HORIZON_HOLD_MS_DEFAULT,
    copyTimeout: copyTimeoutMs = COPY_TIMEOUT_MS_DEFAULT,
    holdApplications: holdApplicationsMs = 0,
  } = flags
  if (intervalMs < HORIZON_INTERVAL_MS_MIN) {
    throw usageError(`--interval is at least ${HORIZON_INTERVAL_MS_MIN}ms`)
  }
  if (maxHoldMs < 1 || maxHoldMs > HOLD_MS_MAX) {
    throw usageError(`--max-hold is 1 to ${HOLD_MS_MAX} ms`)
  }
  requireHold(holdApplicationsMs)
  const { HorizonServer } = await import('../../daemon/horizon-server.js')
  const { makeLogger } = await import('../../lib/log.js')
  const log = makeLogger({ fd: 2, base: { role: 'group' } })
  const signal = interruptSignal()
  const times = { intervalMs, maxHoldMs, copyTimeoutMs, holdApplicationsMs }
  await HorizonServer.run({ group, ...times, log }, signal)
  log.info('stopped in order')
  process.exit(0)
}

function requireHold(holdMs: number): void {
  if (holdMs <= APPLICATION_HOLD_MS_MAX) return
  throw usageError(`--hold-applications is at most ${APPLICATION_HOLD_MS_MAX / 60_000}m`)
}

function addFreeze(group: Command): void {
  group
    .command('freeze')
    .summary('stop shipping at all members; applications go on')
    .description(
      'Replicas stay at the commit horizon; journals keep what is not shipped, up to --hold of each ' +
        'replica. It stays so over restarts, until `holdfast group thaw`. With --hold-applications, whoever ' +
        'changes a member waits until then, or until that time is over.',
    )
    .argument('<name>')
    .option('--why <text>', 'a note, shown with it', 'on request')
    .option(
      '--hold-applications <time>',
      'hold changes on all members, for so long at most',
      durationArgument,
    )
    .action(async (name: string, flags: { why: string; holdApplications?: number }) => {
      const { why, holdApplications: holdApplicationsMs = 0 } = flags
      requireHold(holdApplicationsMs)
      const { freezeGroup } = await daemon()
      const untold = await freezeGroup(name, { why, holdApplicationsMs, signal: interruptSignal() })
      const held =
        holdApplicationsMs === 0
          ? ''
          : `; applications are held for ${formatDuration(holdApplicationsMs * 1e6)} at most`
      print(`${out.bold(name)} is frozen${held}`)
      tellUntold(untold)
    })
  group
    .command('thaw')
    .summary('ship again; replicas catch up')
    .argument('<name>')
    .action(async (name: string) => {
      const { thawGroup } = await daemon()
      const untold = await thawGroup(name, { signal: interruptSignal() })
      print(`${out.bold(name)} ships again`)
      tellUntold(untold)
    })
}

/** It is no failure: they are told when they can be reached, and authorise nothing until then. */
function tellUntold(untold: readonly Untold[]): void {
  for (const { host, message } of untold) {
    remark(`${err.yellow('not told yet')}: ${host || hostName()}: ${message}`)
  }
}

/** For `group show`. */
export function horizonText(view: HorizonView): string {
  const { mutual, frozen, horizon, members } = view
  const seconds = (at: string) => formatDuration((Date.now() - Date.parse(at)) * 1e6)
  const which = (cut: { at: string; snapshot: string | null }) =>
    `${cut.at}${cut.snapshot === null ? '' : ` (snapshot ${cut.snapshot})`}, ${seconds(cut.at)} ago`
  const rows = [
    ['  horizon', horizon === null ? 'none yet' : which(horizon)],
    [
      '  mutual cut',
      mutual === null
        ? out.yellow('none yet')
        : `${which(mutual)}${mutual.exact ? ', all trees stand at it' : ''}`,
    ],
    [
      '  shipping',
      frozen === null ? 'yes' : out.red(`frozen since ${frozen.since}: ${frozen.why}`),
    ],
  ]
  const head = ['  MEMBER', 'REPLICA', 'LOGGED', 'APPLIED', 'MUTUAL', 'TREE']
  const seqOf = ({ uuid }: MemberAt) => formatCount(mutual?.seqs[uuid] ?? 0)
  const replicas = members.flatMap((member) => {
    const name = `  ${member.host || hostName()}/${member.volume}`
    if (member.error !== null) return [[name, out.red(member.error), '', '', seqOf(member), '']]
    if (member.replicas.length === 0) return [[name, 'no replica', '', '', seqOf(member), '']]
    return member.replicas.map((each) => [
      name,
      each.peer,
      formatCount(each.logged),
      formatCount(each.applied),
      seqOf(member),
      standsText(each),
    ])
  })
  return `${table(rows)}\n\n${table([head, ...replicas])}`
}

const STANDS: Record<ReplicaAt['stands'], string> = {
  at: out.green('at the horizon'),
  before: 'at the horizon before',
  behind: 'behind',
  beyond: out.yellow('beyond: the next horizon'),
  baseline: out.red('no moment yet: a baseline'),
}

function standsText({ stands, connection }: ReplicaAt): string {
  const known = connection === 'connected' ? '' : out.yellow(', as last known')
  return `${STANDS[stands]}${known}`
}
