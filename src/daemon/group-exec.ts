/**
 * `exec` over hosts: a snapshot of a group that is there for a command. The command runs on every host, where
 * the data are, on what that host shows; or once, here, while the hosts show theirs.
 *
 * One connection to each host carries all of it: with it, or with this process, everything ends there.
 */
import { type GroupSnapshot, Groups, volumesOn } from '../group/definition.js'
import type { Answer, PASSED_SIGNALS } from '../group/wire.js'
import { type HoldfastError, toHoldfastError } from '../lib/errors.js'
import { requireGoing } from '../lib/going.js'
import type { SaidOfCut } from './group-cut.js'
import type { GroupLink } from './group-link.js'
import { allOf, type GroupOptions, hostsOf, withLinks } from './group-links.js'
import { groupWithMembers, inGroupTurn, orderOf } from './groups.js'
import { hostDirectory } from './places.js'

const op = 'group.exec'

export type PassedSignal = (typeof PASSED_SIGNALS)[number]

export interface GroupExecRequest extends SaidOfCut, GroupOptions {
  group: string
  /** The snapshot stays. */
  keep?: boolean
}

/** What a host shows, for as long as it is needed. */
export interface GroupExposed {
  host: string
  /** It is this one. */
  isHere: boolean
  /** Of one volume its tree; of several the directory that has them by name. */
  path: string
  views: Answer<'execShow'>['views']
}

/** How the command has ended on a host: by its exit code, or not at all. */
export interface HostEnd {
  host: string
  code: number | null
  error: HoldfastError | null
}

export interface ExecEvents {
  /** That host is asked for more when this has resolved; meanwhile its command waits. */
  onOutput(host: string, to: 'stdout' | 'stderr', bytes: Buffer): Promise<void>
  /** The commands run, on so many hosts: `pass` sends them a signal. */
  onStart?(hosts: readonly string[], pass: (signal: PassedSignal) => void): void
}

/**
 * Runs a command on every host, on its part of one snapshot. What has gone wrong on a host is told in its
 * end. GROUP_NOT_FOUND, NOT_ALLOWED, NOT_FOUND, BUSY, GROUP_CUT_FAILED, CONNECTION, ABORTED: nothing was
 * run. Once the commands run, the signal of the request has no bearing on them: `pass` has.
 */
export async function execInGroup(
  request: GroupExecRequest,
  command: readonly string[],
  { onOutput, onStart }: ExecEvents,
): Promise<HostEnd[]> {
  return withGroupParts(request, command, async ({ links, atEnd }) => {
    const pass = (signal: PassedSignal) => {
      for (const link of links) link.ask('execSignal', { signal }).catch(() => {})
    }
    onStart?.(
      links.map((link) => link.shownName),
      pass,
    )
    // While they were started nobody passed signals on.
    if (request.signal?.aborted === true) pass('SIGTERM')
    const ended = links.map(async (link): Promise<HostEnd> => {
      const host = link.shownName
      try {
        const code = await follow(link, (to, bytes) => onOutput(host, to, bytes))
        await atEnd(link)
        return { host, code, error: null }
      } catch (error) {
        return { host, code: null, error: toHoldfastError(error, op) }
      }
    })
    return Promise.all(ended)
  })
}

/**
 * Runs `work` here while every host shows its part of one snapshot. Its errors; those of `execInGroup`; after
 * it HISTORY_RANGE, VIEW_NOT_FOUND or CONNECTION when what a host showed did not last.
 */
export async function withGroupSnapshot<Result>(
  request: GroupExecRequest,
  work: (snapshot: GroupSnapshot, exposed: GroupExposed[]) => Promise<Result>,
): Promise<Result> {
  return withGroupParts(request, null, async ({ snapshot, exposed, links, atEnd }) => {
    const result = await work(snapshot, exposed)
    await allOf(links, (link) => atEnd(link))
    return result
  })
}

interface Parts {
  snapshot: GroupSnapshot
  links: readonly GroupLink[]
  exposed: GroupExposed[]
  /** The host shows it no longer. */
  atEnd(link: GroupLink): Promise<void>
}

async function withGroupParts<Result>(
  { keep = false, ...request }: GroupExecRequest,
  command: readonly string[] | null,
  work: (parts: Parts) => Promise<Result>,
): Promise<Result> {
  const group = groupWithMembers(request.group)
  const order = { ...orderOf(request), temporary: !keep }
  return withLinks(hostsOf(group.members), request, async (links) => {
    await allOf(links, (link) => {
      const volumes = volumesOn(group.members, link.host)
      return link.ask('execPrepare', { volumes, command: command && [...command] })
    })
    const snapshot = await inGroupTurn(group, order, (take) => take(links))
    const open = new Set(links)
    const atEnd = async (link: GroupLink) => {
      open.delete(link)
      await link.ask('execEnd', {})
    }
    try {
      requireGoing(request.signal, op)
      const exposed = await allOf(links, async (link) => {
        const shown = await link.ask('execShow', { id: snapshot.id })
        return { host: link.shownName, isHere: link.host === '', ...shown }
      })
      requireGoing(request.signal, op)
      // Every host shows it, or no command runs.
      if (command !== null) await allOf(links, (link) => link.ask('execStart', {}))
      return await work({ snapshot, links, exposed, atEnd })
    } finally {
      await Promise.allSettled([...open].map(atEnd))
      if (!keep) await forget(group.name, snapshot, links)
    }
  })
}

/** A host that does not hear of it forgets it by itself, with the connection. */
async function forget(
  group: string,
  { id, name }: GroupSnapshot,
  links: readonly GroupLink[],
): Promise<void> {
  await Promise.allSettled(links.map((link) => link.ask('destroy', { id, force: true })))
  new Groups(hostDirectory()).removeSnapshot(group, name)
}

/** To the end of the command on one host; its exit code. */
async function follow(
  link: GroupLink,
  onOutput: (to: 'stdout' | 'stderr', bytes: Buffer) => Promise<void>,
): Promise<number> {
  for (;;) {
    const { stdout, stderr, exit } = await link.ask('execRead', {})
    if (stdout !== '') await onOutput('stdout', Buffer.from(stdout, 'base64'))
    if (stderr !== '') await onOutput('stderr', Buffer.from(stderr, 'base64'))
    if (exit !== null) return exit.code
  }
}
