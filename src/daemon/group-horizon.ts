/**
 * What an operator may ask of the commit horizon of a group, whether or not somebody serves it: freeze, thaw,
 * an end of it, and how it stands. Each changes what the coordinator keeps first, and tells the hosts then;
 * who cannot be reached is told by `holdfast group serve`, as soon as he can be.
 */
import { type Group, type GroupMember, Groups, volumesOn } from '../group/definition.js'
import {
  freeze,
  type GroupHorizon,
  HorizonStore,
  mutualCut,
  orderOf,
  type ReportedReplica,
  type Stands,
  standsAt,
} from '../group/horizon.js'
import type { Answer, Question } from '../group/wire.js'
import { takeLock } from '../lib/abstract-lock.js'
import { HoldfastError } from '../lib/errors.js'
import { ControlClient } from './client.js'
import { allOf, askEach, type GroupOptions, hostsOf, withLinks } from './group-links.js'
import { hostDirectory } from './places.js'
import { findVolume } from './registry.js'
import { takeHorizonTurn } from './taking.js'

const op = 'group.horizon'

/** A replica, and where its tree is. */
export interface ReplicaAt extends ReportedReplica {
  stands: Stands
}

export interface MemberAt extends GroupMember {
  /** Why nothing is known of it; null: all that follows is. */
  error: string | null
  /** What it was told last: it follows this; 0: nothing. */
  revision: number
  frozen: boolean
  replicas: ReplicaAt[]
}

/** How the horizon of a group stands. JSON values only. */
export interface HorizonView extends Omit<GroupHorizon, 'version'> {
  /** The newest cut that all replicas have applied, and whether every tree is it; null: there is none. */
  mutual: {
    at: string
    snapshot: string | null
    seqs: Record<string, number>
    exact: boolean
  } | null
  members: MemberAt[]
}

/** Hosts that could not be told. */
export interface Untold {
  host: string
  message: string
}

export function horizonStore(group: string): HorizonStore {
  return new HorizonStore(hostDirectory(), group)
}

/** Changes what is kept, one after the other; nothing changes where `change` gives nothing. BUSY. */
export async function changeHorizon(
  group: string,
  change: (state: GroupHorizon | undefined) => GroupHorizon | undefined,
): Promise<GroupHorizon | undefined> {
  const turn = await takeHorizonTurn(group)
  try {
    const store = horizonStore(group)
    const changed = change(store.read())
    if (changed !== undefined) store.write(changed)
    return changed
  } finally {
    turn.close()
  }
}

/** One process moves the horizon of a group, or ends it. BUSY. */
export async function takeServing(group: string): Promise<{ close(): unknown }> {
  try {
    return await takeLock('group-serve', `${hostDirectory()}/${group}`)
  } catch (cause) {
    throw new HoldfastError('BUSY', `${group} is served`, {
      op,
      cause,
      hint: `Stop that first: the process of holdfast group serve ${group}`,
    })
  }
}

export interface FreezeOptions extends GroupOptions {
  why: string
  /** For how long applications are held at most, unless the group is thawed before; 0: not. ms. */
  holdApplicationsMs?: number
}

/** Stops shipping at all members, where the replicas are. GROUP_NOT_FOUND, GROUP_NO_HORIZON. */
export async function freezeGroup(
  name: string,
  { why, holdApplicationsMs = 0, ...options }: FreezeOptions,
): Promise<Untold[]> {
  const group = new Groups(hostDirectory()).get(name)
  await changeHorizon(name, (state) => {
    return freeze(requireHorizon(name, state), { why, holdMs: holdApplicationsMs })
  })
  return tellAll(group, options)
}

/** Has all members ship again what they have kept. GROUP_NOT_FOUND, GROUP_NO_HORIZON. */
export async function thawGroup(name: string, options: GroupOptions = {}): Promise<Untold[]> {
  const group = new Groups(hostDirectory()).get(name)
  await changeHorizon(name, (state) => {
    const known = requireHorizon(name, state)
    if (known.frozen === null) return undefined
    return { ...known, revision: known.revision + 1, frozen: null }
  })
  return tellAll(group, options)
}

/**
 * The replicas of all members, or of these, apply everything again; nothing happens where there is no
 * horizon. BUSY while it is served; CONNECTION when one cannot be told: the group then keeps its horizon.
 */
export async function endHorizon(
  name: string,
  { members, ...options }: { members?: readonly GroupMember[] } & GroupOptions = {},
): Promise<void> {
  const group = new Groups(hostDirectory()).get(name)
  if (horizonStore(name).read() === undefined) return
  const leaving = members ?? group.members
  const serving = await takeServing(name)
  try {
    await withLinks(hostsOf(leaving), options, (links) =>
      allOf(links, (link) =>
        link.ask('leave', { group: group.id, volumes: volumesOn(leaving, link.host) }),
      ),
    )
    if (members === undefined) horizonStore(name).remove()
  } finally {
    serving.close()
  }
}

/** Ends it for one volume of this host, whoever coordinates it. Whether it had one. VOLUME_NOT_RUNNING. */
export async function leaveHorizon(volume: string): Promise<boolean> {
  return new ControlClient(findVolume(volume).config.name).leaveHorizon()
}

/** Asks all hosts; null: the group has no horizon. GROUP_NOT_FOUND. */
export async function showHorizon(
  name: string,
  options: GroupOptions = {},
): Promise<HorizonView | null> {
  const group = new Groups(hostDirectory()).get(name)
  const state = horizonStore(name).read()
  if (state === undefined) return null
  const heard = await askEach(group.members, options, (link, own) =>
    link.ask('horizon', questionOf(group, own, null)),
  )
  const members = heard.flatMap(({ own, said, error }) => {
    if (error !== null) return own.map((each) => ({ ...each, ...NOTHING, error: error.message }))
    return own.map((each) => memberAt(each, said.members, state))
  })
  const known = members.map(({ uuid, error, replicas }) => {
    return { uuid, replicas: error === null ? replicas : null }
  })
  const found = mutualCut(state, known)
  const { version: _, ...rest } = state
  return { ...rest, mutual: found && { ...found.cut, exact: found.exact }, members }
}

const NOTHING = { revision: 0, frozen: false, replicas: [] }

function memberAt(
  member: GroupMember,
  told: Answer<'horizon'>['members'],
  state: GroupHorizon,
): MemberAt {
  const found = told.find(({ uuid }) => uuid === member.uuid)
  if (found === undefined) return { ...member, ...NOTHING, error: 'it says nothing of it' }
  const replicas = found.replicas.map((each) => {
    return { ...each, stands: standsAt(each, state, member.uuid) }
  })
  const { error, revision, frozen } = found
  return { ...member, error, revision, frozen: frozen !== null, replicas }
}

/** Tells every host what stands now; those that could not be told. */
async function tellAll(group: Group, options: GroupOptions): Promise<Untold[]> {
  const state = horizonStore(group.name).read()
  if (state === undefined) return []
  const heard = await askEach(group.members, options, (link, own) =>
    link.ask('horizon', questionOf(group, own, orderOf(state))),
  )
  return heard.flatMap(({ host, said, error }) => {
    const why = error?.message ?? said?.members.find((each) => each.error !== null)?.error
    return why == null ? [] : [{ host, message: why }]
  })
}

function questionOf(
  { id, name }: Group,
  own: readonly GroupMember[],
  order: Question<'horizon'>['order'],
): Question<'horizon'> {
  return { group: { id, name }, volumes: own.map(({ uuid }) => uuid), order, wait: null }
}

function requireHorizon(name: string, state: GroupHorizon | undefined): GroupHorizon {
  if (state !== undefined) return state
  throw new HoldfastError('GROUP_NO_HORIZON', `${name} has no commit horizon`, {
    op,
    hint: `Give it one: holdfast group serve ${name}`,
  })
}
