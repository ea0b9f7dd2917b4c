/**
 * Who needs a snapshot just now: it is not to be pruned under them. The one place that knows.
 *
 * Whoever takes it, until the hooks that follow it have ended: a backup may be reading it (a lock that
 * the kernel frees, so that nobody who has died keeps a snapshot for ever). Whoever has it mounted. And
 * the process that it was taken for, as long as that lives.
 */
import { takeLock } from '../lib/abstract-lock.js'
import { isAlive } from '../lib/process-id.js'
import type { Certificate } from '../snapshot/certificate.js'
import { ControlClient, ifRunning } from './client.js'

const KIND = 'snapshot'

/** Keeps a snapshot from being pruned until it is closed. Rejects when somebody else does that. */
export function useSnapshot(id: string): Promise<{ close(): unknown }> {
  return takeLock(KIND, id)
}

/** Why it is not to be pruned now; null: it may be. */
export async function isInUse(
  snapshot: Pick<Certificate, 'id' | 'name' | 'members' | 'owner'>,
): Promise<string | null> {
  const { id, owner } = snapshot
  try {
    const lock = await takeLock(KIND, id)
    lock.close()
  } catch {
    return 'its hooks are running'
  }
  if (owner !== null && isAlive(owner)) return `it was taken for process ${owner.pid}`
  const path = await viewOf(snapshot)
  return path === null ? null : `it is shown at ${path}`
}

/** Where it is mounted; null: nowhere. */
export async function viewOf({
  name,
  members,
}: Pick<Certificate, 'name' | 'members'>): Promise<string | null> {
  for (const { volume } of members) {
    const shown = await ifRunning(new ControlClient(volume).history())
    const view = shown?.views.find(({ snapshot }) => snapshot === name)
    if (view !== undefined) return view.path
  }
  return null
}
