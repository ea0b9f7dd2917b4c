/**
 * A whole group brought back to one of its snapshots: every host its own volumes, by the restore that it has.
 * First all are asked whether they can; when one cannot, nothing is changed anywhere. What fails after that
 * fails on its host alone: it is told, and the same order again ends it.
 */
import { Groups } from '../group/definition.js'
import type { Answer, Restored } from '../group/wire.js'
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import type { GroupLink } from './group-link.js'
import { allOf, type GroupOptions, hostsOf, withLinks } from './group-links.js'
import { hostDirectory } from './places.js'

const op = 'group.restore'

export interface GroupRestoreRequest extends GroupOptions {
  group: string
  snapshot: string
  /** Directory on each host, below which a volume's copy gets its name; default: in place. */
  output?: string | undefined
  thorough?: boolean | undefined
}

/** What is about to be done on a host. */
export interface HostRestorePlan {
  host: string
  volumes: Answer<'restorePrepare'>['volumes']
}

/** What was done on a host, as far as it is known. */
export interface HostRestored {
  host: string
  volumes: Restored[]
  /** It could not be followed to the end. */
  error: HoldfastError | null
}

export interface GroupRestoration {
  /** When the snapshot was taken, ISO. */
  created: string
  hosts: HostRestorePlan[]
  /** What would be done; nothing is changed. */
  plan(): Promise<HostRestored[]>
  run(onProgress?: (hosts: readonly HostRestored[]) => void): Promise<HostRestored[]>
}

/**
 * Asks all hosts whether they can; `use` then looks at the plan, or runs it; one of both. GROUP_NOT_FOUND,
 * SNAPSHOT_NOT_FOUND, NOT_ALLOWED, CONNECTION, and whatever refuses a restore on a host, which is named.
 */
export async function restoreGroup<Result>(
  { group, snapshot, output, thorough = false, ...options }: GroupRestoreRequest,
  use: (restoration: GroupRestoration) => Promise<Result>,
): Promise<Result> {
  const { id, created, hosts } = new Groups(hostDirectory()).snapshot(group, snapshot)
  if (output !== undefined && !output.startsWith('/')) {
    throw new HoldfastError('USAGE', `${output}: a directory on every host has to be absolute`, {
      op,
    })
  }
  return withLinks(hostsOf(hosts), options, async (links) => {
    const asked = allOf(links, async (link): Promise<HostRestorePlan> => {
      const members = hosts.find(({ host }) => host === link.host)?.members ?? []
      const volumes = members.map(({ uuid }) => uuid)
      const question = { id, volumes, output: output ?? null, thorough }
      const prepared = await link.ask('restorePrepare', question)
      return { host: link.shownName, volumes: prepared.volumes }
    })
    const ready = await asked.catch((error: unknown) => {
      throw refusal(error)
    })
    const begin = (dryRun: boolean, onProgress?: (all: readonly HostRestored[]) => void) =>
      followAll({ links, dryRun, signal: options.signal, onProgress })
    return use({
      created,
      hosts: ready,
      plan: () => begin(true),
      run: (onProgress) => begin(false, onProgress),
    })
  })
}

interface Following {
  links: readonly GroupLink[]
  dryRun: boolean
  signal: AbortSignal | undefined
  onProgress: ((all: readonly HostRestored[]) => void) | undefined
}

async function followAll(following: Following): Promise<HostRestored[]> {
  const { links, dryRun, signal, onProgress } = following
  const all = links.map(({ shownName: host }): HostRestored => ({ host, volumes: [], error: null }))
  const followed = links.map(async (link, n) => {
    const own = all[n]
    if (own === undefined) return
    try {
      await link.ask('restoreStart', { dryRun }, { signal })
      for (let ended = false; !ended; ) {
        const found = await link.ask('restoreLook', {}, { signal })
        ended = found.ended
        own.volumes = found.volumes
        onProgress?.(all)
      }
    } catch (error) {
      own.error = toHoldfastError(error, op)
    }
  })
  await Promise.all(followed)
  return all
}

function refusal(error: unknown): HoldfastError {
  const { code, message, hint, cause } = toHoldfastError(error, op)
  return new HoldfastError(code, `${message}; nothing was changed on any host`, { op, hint, cause })
}
