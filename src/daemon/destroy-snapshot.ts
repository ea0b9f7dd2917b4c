/**
 * The end of a snapshot: its hooks are asked, then every volume of it forgets it. Not while somebody
 * looks at it.
 */
import { HoldfastError } from '../lib/errors.js'
import { Catalogue } from '../snapshot/catalogue.js'
import { type Member, seqIn } from '../snapshot/certificate.js'
import { ControlClient, ifRunning } from './client.js'
import { type HookOptions, openHooks, toldOf } from './hooks.js'
import { viewOf } from './in-use.js'
import { listVolumes } from './registry.js'
import { findSnapshot } from './snapshots.js'

export interface DestroyOptions extends HookOptions {
  /** Although a hook fails. */
  force?: boolean
}

/**
 * Forgets a snapshot, on all its volumes. The journal stays. SNAPSHOT_NOT_FOUND, SNAPSHOT_IN_USE,
 * HOOK_FAILED.
 */
export async function destroySnapshot(name: string, options: DestroyOptions = {}): Promise<void> {
  const { id, members, labels, maxHoldMs } = findSnapshot(name)
  const having = listVolumes().filter(({ stateDirectory }) => {
    return new Catalogue(stateDirectory).find(name)?.id === id
  })
  await requireUnused(name, members)
  const hooks = openHooks(having, { snapshot: name, labels, maxHoldMs, dryRun: false }, options)
  hooks.tell(having.map((each) => toldOf(each, seqIn({ members }, each.config.uuid))))
  await hooks.preDestroy({ force: options.force === true })
  for (const { stateDirectory } of having) new Catalogue(stateDirectory).remove(name)
  for (const { config } of having) await refreshed(config.name)
}

/** SNAPSHOT_IN_USE, naming where it is shown. */
async function requireUnused(name: string, members: Member[]): Promise<void> {
  const path = await viewOf({ name, members })
  if (path === null) return
  throw new HoldfastError('SNAPSHOT_IN_USE', `${name} is shown at ${path}`, {
    op: 'snapshot.destroy',
    hint: `Unmount it first: holdfast snapshot unmount ${name}`,
  })
}

/** What is no longer needed may go; a daemon that does not run looks at its start. */
async function refreshed(volume: string): Promise<void> {
  await ifRunning(new ControlClient(volume).refreshHistory())
}
