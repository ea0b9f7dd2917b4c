/** `holdfast group create|list|show|add|remove|destroy`; `group-snapshot.ts` and `group-restore.ts` have the rest. */
import type { Command } from 'commander'
import type { GroupHostStatus, GroupMemberStatus } from '../../daemon/groups.js'
import { ExitCode } from '../../lib/errors.js'
import { hostName } from '../../lib/host-name.js'
import { LOCKS_WAIT_MS_DEFAULT } from '../../lib/limits.js'
import { printable } from '../../lib/printable.js'
import { durationArgument } from '../arguments.js'
import { interruptSignal, out, print, printJson, table } from '../output.js'
import { addGroupHorizonCommands, horizonText } from './group-horizon.js'
import { addGroupRestore } from './group-restore.js'
import { addGroupSnapshotCommands } from './group-snapshot.js'

type JsonFlag = { json?: boolean }

const daemon = () => import('../../daemon/groups.js')

export function addGroupCommands(program: Command): void {
  const group = program
    .command('group')
    .summary('volumes of several hosts, at one instant')
    .description(
      'A group is a set of volumes on this host and on its peers. A snapshot of a group shows all of ' +
        'them at one instant, without stopping anybody for more than milliseconds. The host on which ' +
        'it was made coordinates it; it needs no volume of its own. On the others `holdfast replica ' +
        'serve` answers, and has to allow it: `holdfast peer allow`; where ssh leads, ssh decides.',
    )
    .addHelpText(
      'after',
      `
Example:
  holdfast group create shop db files1/www files2/www
  holdfast group snapshot create shop --name before-upgrade`,
    )
  addMaking(group)
  addLooking(group)
  addCheck(group)
  addGroupSnapshotCommands(group)
  addGroupRestore(group)
  addGroupHorizonCommands(group)
}

function addMaking(group: Command): void {
  const members = 'HOST/VOLUME with the name of a peer, or VOLUME of this host'
  group
    .command('create')
    .summary('make one')
    .argument('<name>')
    .argument('<member...>', members)
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExample:\n  holdfast group create shop db files1/www files2/www')
    .action(async (name: string, named: string[], { json = false }: JsonFlag) => {
      const { createGroup, parseMember } = await daemon()
      const made = await createGroup(name, named.map(parseMember), { signal: interruptSignal() })
      if (json) return printJson(made)
      print(`${out.bold(name)} has ${made.members.length} members`)
    })
  group
    .command('add')
    .summary('more members')
    .argument('<name>')
    .argument('<member...>', members)
    .action(async (name: string, named: string[]) => {
      const { addMembers, parseMember } = await daemon()
      const made = await addMembers(name, named.map(parseMember), { signal: interruptSignal() })
      print(`${out.bold(name)} has ${made.members.length} members`)
    })
  group
    .command('remove')
    .summary('fewer members; their snapshots stay')
    .argument('<name>')
    .argument('<member...>', members)
    .action(async (name: string, named: string[]) => {
      const { parseMember, removeMembers } = await daemon()
      const signal = interruptSignal()
      const { members: left } = await removeMembers(name, named.map(parseMember), { signal })
      print(`${out.bold(name)} has ${left.length} members`)
    })
  group
    .command('destroy')
    .summary('forget a group; what its hosts keep of its snapshots stays there')
    .argument('<name>')
    .action(async (name: string) => {
      const { destroyGroup } = await daemon()
      await destroyGroup(name, { signal: interruptSignal() })
      print(`${out.bold(name)} is forgotten`)
    })
}

function addLooking(group: Command): void {
  group
    .command('list')
    .summary('those that this host coordinates')
    .option('--json', 'as JSON')
    .action(async ({ json = false }: JsonFlag) => {
      const { listGroups } = await daemon()
      const found = listGroups()
      if (json) return printJson({ groups: found })
      if (found.length === 0) return print('no groups')
      const rows = found.map(({ name, members }) => [name, members.map(memberName).join(' ')])
      print(table([['GROUP', 'MEMBERS'], ...rows]))
    })
  group
    .command('show')
    .summary('its members, their clocks, and where their replicas stand')
    .description(
      'Asks every host. A clock is what its monotonic clock shows against the one here, within a ' +
        'bound that is certain: half of what the shortest round trip took, whichever way it was slow.',
    )
    .argument('<name>')
    .option('--json', 'as JSON')
    .action(async (name: string, { json = false }: JsonFlag) => {
      const { showGroup } = await daemon()
      const { showHorizon } = await import('../../daemon/group-horizon.js')
      const signal = interruptSignal()
      const [found, horizon] = await Promise.all([
        showGroup(name, { signal }),
        showHorizon(name, { signal }),
      ])
      if (json) return printJson({ ...found, horizon })
      print(out.bold(name))
      const members = found.status.map((each) => [`  ${memberName(each)}`, stateText(each)])
      print(table([['  MEMBER', 'STATE'], ...members]))
      print('')
      const hosts = found.hosts.map(hostRow)
      print(table([['  HOST', 'CLOCK', 'GIVE OR TAKE', 'ROUND TRIP', 'DRIFT'], ...hosts]))
      if (horizon !== null) print(`\n${horizonText(horizon)}`)
    })
}

function addCheck(group: Command): void {
  group
    .command('check')
    .summary('can its applications do without their locks?')
    .description(
      'On every host new writes wait for --max-wait at most, and it is looked who does not release ' +
        'the write locks (flock, POSIX, OFD) on files of the members meanwhile. Ends with 4 when somebody does not.',
    )
    .argument('<name>')
    .option(
      '--max-wait <time>',
      `for how long writes wait (default: ${LOCKS_WAIT_MS_DEFAULT}ms)`,
      durationArgument,
    )
    .option('--json', 'as JSON')
    .action(async (name: string, flags: { maxWait?: number; json?: boolean }) => {
      const { checkGroup } = await daemon()
      const { maxWait: waitMs = LOCKS_WAIT_MS_DEFAULT, json = false } = flags
      const locks = await checkGroup(name, { waitMs, signal: interruptSignal() })
      if (locks.length > 0) process.exitCode = ExitCode.refused
      if (json) return printJson({ can: locks.length === 0, locks })
      if (locks.length === 0)
        return print(`${out.bold(name)} can be cut: nobody keeps a write lock`)
      print(`${out.bold(name)}: ${locks.length} write locks are kept`)
      const rows = locks.map((each) => [
        `  ${each.host}`,
        `${each.command}[${each.pid}]`,
        each.kind,
        printable(Buffer.from(each.path)),
      ])
      print(table([['  HOST', 'PROCESS', 'LOCK', 'PATH'], ...rows]))
    })
}

function memberName({ host, volume }: { host: string; volume: string }): string {
  return host === '' ? volume : `${host}/${volume}`
}

function stateText({ state, error }: GroupMemberStatus): string {
  if (error !== null) return out.red(error)
  return state === 'protected' ? state : out.yellow(state)
}

function hostRow({ host, clock, error }: GroupHostStatus): string[] {
  const name = `  ${host === '' ? hostName() : host}`
  if (error !== null) return [name, out.red(error), '', '', '']
  if (clock === null) return [name, 'this host', '', '', '']
  const ms = (ns: bigint) => `${(Number(ns) / 1e6).toFixed(3)} ms`
  const drift = clock.driftPpm === null ? '' : `${clock.driftPpm.toFixed(1)} ppm`
  return [name, ms(clock.offsetNs), ms(clock.errorNs), ms(clock.roundTripNs), drift]
}
