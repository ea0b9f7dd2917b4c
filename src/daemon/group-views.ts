/** Views of a snapshot of a group: each host shows its own part, where it always shows it. */
import { Groups } from '../group/definition.js'
import { toHoldfastError } from '../lib/errors.js'
import { type GroupOptions, hostsOf, withLinks } from './group-links.js'
import { hostDirectory } from './places.js'

/** Where a host shows a volume. */
export interface GroupView {
  host: string
  volume: string
  path: string
}

/** All of them, or none. GROUP_NOT_FOUND, SNAPSHOT_NOT_FOUND, HISTORY_RANGE, BUSY, CONNECTION. */
export async function mountGroupSnapshot(
  group: string,
  name: string,
  options: GroupOptions = {},
): Promise<GroupView[]> {
  const { id, hosts } = new Groups(hostDirectory()).snapshot(group, name)
  return withLinks(hostsOf(hosts), options, async (links) => {
    const asked = links.map(async (link) => {
      const { views } = await link.ask('mount', { id })
      return views.map((view) => ({ host: link.shownName, ...view }))
    })
    const ended = await Promise.allSettled(asked)
    const failed = ended.find((each) => each.status === 'rejected')
    if (failed === undefined) {
      return ended.flatMap((each) => (each.status === 'fulfilled' ? each.value : []))
    }
    const mounted = links.filter((_link, n) => ended[n]?.status === 'fulfilled')
    await Promise.allSettled(mounted.map((link) => link.ask('unmount', { id, force: true })))
    throw toHoldfastError(failed.reason, 'group.mount')
  })
}

/** How many views there were. GROUP_NOT_FOUND, SNAPSHOT_NOT_FOUND, BUSY, CONNECTION. */
export async function unmountGroupSnapshot(
  group: string,
  name: string,
  { force = false, ...options }: { force?: boolean } & GroupOptions = {},
): Promise<number> {
  const { id, hosts } = new Groups(hostDirectory()).snapshot(group, name)
  return withLinks(hostsOf(hosts), options, async (links) => {
    const ended = await Promise.all(links.map((link) => link.ask('unmount', { id, force })))
    return ended.reduce((sum, { views }) => sum + views, 0)
  })
}
