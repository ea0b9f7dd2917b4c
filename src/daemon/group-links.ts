/** Connections to the hosts of a group, for as long as something takes. */
import { membersOn } from '../group/definition.js'
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import { type Logger, silentLogger } from '../lib/log.js'
import { GroupLink } from './group-link.js'

export interface GroupOptions {
  log?: Logger | undefined
  signal?: AbortSignal | undefined
}

/** Each once, in the order of the members. */
export function hostsOf(members: readonly { host: string }[]): string[] {
  return [...new Set(members.map(({ host }) => host))]
}

/** Connects to the hosts for as long as the work takes. */
export async function withLinks<Result>(
  hosts: readonly string[],
  { log = silentLogger(), signal }: GroupOptions,
  work: (links: GroupLink[]) => Promise<Result>,
): Promise<Result> {
  const given = new AbortController()
  const stop = signal === undefined ? given.signal : AbortSignal.any([given.signal, signal])
  const opened = await Promise.allSettled(
    hosts.map((host) => GroupLink.open(host, { log, signal: stop })),
  )
  const links = opened.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []))
  try {
    const failed = opened.find((each) => each.status === 'rejected')
    if (failed !== undefined) throw failed.reason
    return await work(links)
  } finally {
    for (const link of links) link.close()
  }
}

/** What one host has said of its members; or why it says nothing. */
export type Heard<Member, Said> = { host: string; own: Member[] } & (
  | { said: Said; error: null }
  | { said: null; error: HoldfastError }
)

/** Asks every host on a connection of its own: one that cannot be reached keeps no other from being asked. */
export function askEach<Member extends { host: string }, Said>(
  members: readonly Member[],
  options: GroupOptions,
  ask: (link: GroupLink, own: Member[]) => Promise<Said>,
): Promise<Heard<Member, Said>[]> {
  const asked = hostsOf(members).map(async (host): Promise<Heard<Member, Said>> => {
    const own = membersOn(members, host)
    try {
      const said = await withLinks([host], options, ([link]) => ask(link as GroupLink, own))
      return { host, own, said, error: null }
    } catch (error) {
      return { host, own, said: null, error: toHoldfastError(error, 'group.ask') }
    }
  })
  return Promise.all(asked)
}

/** All of them end, one way or the other, before the first error is thrown; it names its host. */
export async function allOf<Result>(
  links: readonly GroupLink[],
  work: (link: GroupLink) => Promise<Result>,
): Promise<Result[]> {
  const ended = await Promise.allSettled(links.map(work))
  return ended.map((each, n) => {
    if (each.status === 'fulfilled') return each.value
    const { code, message, hint, op } = toHoldfastError(each.reason, 'group.ask')
    const said = `${links[n]?.shownName}: ${message}`
    throw new HoldfastError(code, said, { op, hint, cause: each.reason })
  })
}
