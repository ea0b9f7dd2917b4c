/**
 * Groups of volumes over hosts, and snapshots of them: what this host, as a coordinator, keeps of both,
 * and what the hosts themselves have. Whoever orders something does the work; nothing runs in between.
 */
import { randomUUID } from 'node:crypto'
import type { ClockEstimate } from '../group/clock.js'
import {
  type Group,
  type GroupMember,
  type GroupSnapshot,
  Groups,
  membersOn,
  volumesOn,
} from '../group/definition.js'
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import { hostName } from '../lib/host-name.js'
import {
  CUT_ATTEMPTS_DEFAULT,
  CUT_HOLD_MS_DEFAULT,
  GROUP_TIMEOUT_MS_DEFAULT,
  GROUP_TIMEOUT_MS_MAX,
} from '../lib/limits.js'
import { NAME } from '../lib/names.js'
import { GroupCut, type GroupCutOrder, type SaidOfCut } from './group-cut.js'
import { endHorizon } from './group-horizon.js'
import type { GroupLink } from './group-link.js'
import { askEach, type GroupOptions, hostsOf, withLinks } from './group-links.js'
import { hostDirectory } from './places.js'
import { takeGroupTurn } from './taking.js'

/** HOST/VOLUME; a volume alone is of this host. */
export interface MemberName {
  host: string
  volume: string
}

export interface GroupMemberStatus extends GroupMember {
  state: string
  error: string | null
}

export interface GroupHostStatus {
  host: string
  /** null: this host itself, or one that does not answer. */
  clock: ClockEstimate | null
  error: string | null
}

export interface GroupStatus extends Group {
  status: GroupMemberStatus[]
  hosts: GroupHostStatus[]
}

/** A snapshot of a group, and whether all its hosts still have their part. */
export interface KnownGroupSnapshot extends Omit<GroupSnapshot, 'state'> {
  state: 'complete' | 'incomplete' | 'unknown'
}

export type GroupSnapshotRequest = SaidOfCut & { group: string } & GroupOptions

const groups = () => new Groups(hostDirectory())

/** USAGE. */
export function parseMember(text: string): MemberName {
  const [first = '', second, ...more] = text.split('/')
  const [host, volume] = second === undefined ? ['', first] : [first, second]
  if (more.length === 0 && NAME.test(volume) && (host === '' || NAME.test(host))) {
    return { host: host === hostName() ? '' : host, volume }
  }
  throw new HoldfastError('USAGE', `${JSON.stringify(text)} is no member`, {
    op: 'group.member',
    hint: 'Write HOST/VOLUME with the name of a peer, or VOLUME for one of this host.',
  })
}

/** USAGE, GROUP_EXISTS, PEER_NOT_FOUND, NOT_FOUND, NOT_ALLOWED, CONNECTION. */
export async function createGroup(
  name: string,
  members: readonly MemberName[],
  options: GroupOptions = {},
): Promise<Group> {
  if (!NAME.test(name)) {
    throw new HoldfastError('USAGE', `${JSON.stringify(name)} is no name for a group`, {
      op: 'group.create',
      hint: 'Letters, digits, dot, dash and underscore, at most 64.',
    })
  }
  if (groups().has(name)) {
    throw new HoldfastError('GROUP_EXISTS', `there is a group ${name} already`, {
      op: 'group.create',
      hint: `Add members to it: holdfast group add ${name} HOST/VOLUME`,
    })
  }
  const group: Group = {
    version: 1,
    id: randomUUID(),
    name,
    created: new Date().toISOString(),
    members: await findMembers(members, options),
  }
  groups().store(group)
  return group
}

export function listGroups(): Group[] {
  return groups().list()
}

/** GROUP_NOT_FOUND, and as `createGroup`; members that are in it already stay. */
export async function addMembers(
  name: string,
  members: readonly MemberName[],
  options: GroupOptions = {},
): Promise<Group> {
  const group = groups().get(name)
  const found = await findMembers(members, options)
  const news = found.filter(({ uuid }) => !group.members.some((known) => known.uuid === uuid))
  const changed = { ...group, members: [...group.members, ...news] }
  groups().store(changed)
  return changed
}

/** Replicas of these apply everything again. GROUP_NOT_FOUND, NOT_FOUND, BUSY and CONNECTION as `endHorizon`. */
export async function removeMembers(
  name: string,
  members: readonly MemberName[],
  options: GroupOptions = {},
): Promise<Group> {
  const group = groups().get(name)
  const leaving = members.map(({ host, volume }) => {
    const found = group.members.find((each) => each.host === host && each.volume === volume)
    if (found !== undefined) return found
    const shown = host === '' ? volume : `${host}/${volume}`
    throw new HoldfastError('NOT_FOUND', `${shown} is no member of ${name}`, { op: 'group.remove' })
  })
  if (leaving.length > 0) await endHorizon(name, { members: leaving, ...options })
  const changed = { ...group, members: group.members.filter((each) => !leaving.includes(each)) }
  groups().store(changed)
  return changed
}

/**
 * Forgets the group; snapshots of it stay with their hosts, and replicas apply everything again.
 * GROUP_NOT_FOUND, BUSY and CONNECTION as `endHorizon`.
 */
export async function destroyGroup(name: string, options: GroupOptions = {}): Promise<void> {
  await endHorizon(name, options)
  groups().remove(name)
}

/** Asks all hosts how they are; one that does not answer is told of, and no error. GROUP_NOT_FOUND. */
export async function showGroup(name: string, options: GroupOptions = {}): Promise<GroupStatus> {
  const group = groups().get(name)
  const heard = await askEach(group.members, options, async (link, own) => {
    const { volumes } = await link.ask('look', { volumes: own.map(({ uuid }) => uuid) })
    const states = new Map(volumes.map(({ uuid, state }) => [uuid, state]))
    return { states, clock: link.host === '' ? null : link.clock }
  })
  return {
    ...group,
    status: heard.flatMap(({ own, said, error }) =>
      own.map((each) => {
        const state = said?.states.get(each.uuid) ?? 'unknown'
        return { ...each, state, error: error?.message ?? null }
      }),
    ),
    hosts: heard.map(({ host, said, error }) => {
      return { host, clock: said?.clock ?? null, error: error?.message ?? null }
    }),
  }
}

/** A write lock that is kept, and by whom. */
export interface GroupLock {
  host: string
  volume: string
  pid: number
  command: string
  kind: string
  path: string
}

/** Who keeps write locks although writes wait for `waitMs`, on any host. GROUP_NOT_FOUND, CONNECTION. */
export async function checkGroup(
  name: string,
  { waitMs, ...options }: { waitMs: number } & GroupOptions,
): Promise<GroupLock[]> {
  const { members } = groups().get(name)
  return withLinks(hostsOf(members), options, async (links) => {
    const found = links.map(async (link) => {
      const volumes = volumesOn(members, link.host)
      const { locks } = await link.ask('check', { volumes, waitMs })
      return locks.map((lock) => ({ host: link.shownName, ...lock }))
    })
    return (await Promise.all(found)).flat()
  })
}

/** Takes a snapshot of the group. GROUP_NOT_FOUND, GROUP_CUT_FAILED, SNAPSHOT_EXISTS, BUSY, CONNECTION. */
export async function createGroupSnapshot(request: GroupSnapshotRequest): Promise<GroupSnapshot> {
  const group = groupWithMembers(request.group)
  const order = orderOf(request)
  return inGroupTurn(group, order, (take) =>
    withLinks(hostsOf(group.members), request, (links) => take(links)),
  )
}

/** GROUP_NOT_FOUND, USAGE when it has no members. */
export function groupWithMembers(name: string): Group {
  const group = groups().get(name)
  if (group.members.length > 0) return group
  throw new HoldfastError('USAGE', `${name} has no members`, {
    op: 'group.snapshot',
    hint: `Add some: holdfast group add ${name} HOST/VOLUME`,
  })
}

/** With what is usual where nothing is said. */
export function orderOf(given: SaidOfCut): GroupCutOrder {
  // Hosts stay prepared for as long as a moment is waited for, and for what comes before and after.
  const waitedMs = (given.freeWithinMs ?? 0) + (given.checkLocksMs ?? 0)
  const usualMs = Math.min(GROUP_TIMEOUT_MS_DEFAULT + waitedMs, GROUP_TIMEOUT_MS_MAX)
  return {
    name: given.name ?? new Date().toISOString().replace(/[:.]/g, '-'),
    labels: given.labels ?? {},
    maxHoldMs: given.maxHoldMs ?? CUT_HOLD_MS_DEFAULT,
    method: given.method ?? 'auto',
    attempts: given.attempts ?? CUT_ATTEMPTS_DEFAULT,
    timeoutMs: given.timeoutMs ?? usualMs,
    hooks: given.hooks ?? true,
    temporary: given.temporary ?? false,
    checkLocksMs: given.checkLocksMs,
    freeWithinMs: given.freeWithinMs,
    signal: given.signal,
    onState: given.onState,
  }
}

type Take = (links: readonly GroupLink[]) => Promise<GroupSnapshot>

/** When no other snapshot of a group is being taken here. SNAPSHOT_EXISTS, BUSY. */
export async function inGroupTurn<Result>(
  group: Group,
  order: GroupCutOrder,
  work: (take: Take) => Promise<Result>,
): Promise<Result> {
  const turn = await takeGroupTurn()
  try {
    requireNewInGroup(group.name, order.name)
    return await work(async (links) => {
      await clearUp(group, links)
      return takeAndKeep(group, links, order)
    })
  } finally {
    turn.close()
  }
}

async function takeAndKeep(
  group: Group,
  links: readonly GroupLink[],
  order: GroupCutOrder,
): Promise<GroupSnapshot> {
  const cut = new GroupCut(group, links, order)
  const taken = await cut.take()
  // From here on it is known which hosts may keep a part of it.
  groups().storeSnapshot(group.name, taken)
  try {
    await cut.commit(taken)
  } catch (error) {
    await cut.abort(toHoldfastError(error, 'group.snapshot'))
    await clearUp(group, links)
    throw error
  }
  const complete: GroupSnapshot = { ...taken, state: 'complete' }
  groups().storeSnapshot(group.name, complete)
  await cut.followed()
  return complete
}

/**
 * Parts of snapshots whose coordinator has died: no half snapshot stays. Of one that was to go with it the
 * hosts may be at it themselves: it need not be gone already.
 */
async function clearUp(group: Group, links: readonly GroupLink[]): Promise<void> {
  for (const { id, name, owner } of groups().snapshots(group.name).filter(Groups.isLeft)) {
    const asked = links.map((link) => link.ask('destroy', { id, force: true }))
    const ended = await Promise.allSettled(asked)
    const failed = ended.find((each) => each.status === 'rejected')
    if (failed === undefined) groups().removeSnapshot(group.name, name)
    else if (owner === null) throw failed.reason
  }
}

/** Oldest first; asks the hosts whether they have their parts. GROUP_NOT_FOUND. */
export async function listGroupSnapshots(
  name: string,
  options: GroupOptions = {},
): Promise<KnownGroupSnapshot[]> {
  const group = groups().get(name)
  const heard = await askEach(group.members, options, (link, own) =>
    link.ask('look', { volumes: own.map(({ uuid }) => uuid) }),
  )
  const kept = new Map<string, Set<string> | null>()
  for (const { own, said } of heard) {
    if (said === null) for (const { uuid } of own) kept.set(uuid, null)
    else for (const { uuid, snapshots } of said.volumes) kept.set(uuid, new Set(snapshots))
  }
  return groups()
    .snapshots(name)
    .filter((each) => each.state === 'taking' || !Groups.isLeft(each))
    .map((each) => ({ ...each, state: stateOf(each, kept) }))
}

function stateOf(
  { id, state, hosts }: GroupSnapshot,
  kept: ReadonlyMap<string, Set<string> | null>,
): KnownGroupSnapshot['state'] {
  if (state === 'taking') return 'incomplete'
  const parts = hosts.flatMap(({ members }) => members).map(({ uuid }) => kept.get(uuid))
  if (parts.some((part) => part !== null && part?.has(id) !== true)) return 'incomplete'
  return parts.includes(null) ? 'unknown' : 'complete'
}

/** Forgets a snapshot of a group, on all its hosts. SNAPSHOT_NOT_FOUND, SNAPSHOT_IN_USE, CONNECTION. */
export async function destroyGroupSnapshot(
  which: string,
  name: string,
  { force = false, ...options }: { force?: boolean } & GroupOptions = {},
): Promise<void> {
  const { id, hosts } = groups().snapshot(which, name)
  await withLinks(hostsOf(hosts), options, async (links) => {
    await Promise.all(links.map((link) => link.ask('destroy', { id, force })))
  })
  groups().removeSnapshot(which, name)
}

function requireNewInGroup(group: string, name: string): void {
  const known = groups()
    .snapshots(group)
    .find((each) => each.name === name && !Groups.isLeft(each))
  if (known === undefined) return
  throw new HoldfastError('SNAPSHOT_EXISTS', `${group} has a snapshot ${name} already`, {
    op: 'group.snapshot',
    hint: `Choose another name, or remove it: holdfast group snapshot destroy ${group} ${name}`,
  })
}

async function findMembers(
  named: readonly MemberName[],
  options: GroupOptions,
): Promise<GroupMember[]> {
  return withLinks(hostsOf(named), options, async (links) => {
    const found = links.map(async (link) => {
      const wanted = membersOn(named, link.host)
      const { volumes } = await link.ask('look', { volumes: wanted.map(({ volume }) => volume) })
      return volumes.map(({ name, uuid }) => ({ host: link.host, volume: name, uuid }))
    })
    return (await Promise.all(found)).flat()
  })
}
