/**
 * Whether applications can do without their write locks: new writes wait for a moment, and whoever does not
 * release a lock (flock, POSIX, OFD) meanwhile holds it for longer than a cut may last.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { LOCKS_POLL_MS } from '../lib/limits.js'
import { ControlClient } from './client.js'
import type { Volume } from './registry.js'
import { watchedOf } from './taking.js'
import { holdersOf, type LockHolder, locksOn } from './witnesses.js'

/** Write locks that are held now. */
export function heldLocks(volumes: readonly Volume[]): LockHolder[] {
  const watched = volumes.map(watchedOf)
  const locks = locksOn(watched).filter(({ access }) => access === 'WRITE')
  return locks.length === 0 ? [] : holdersOf(locks, watched)
}

/** Those that are still held when writes have been suspended for `waitMs`; returns as soon as none is. */
export async function stubbornLocks(
  volumes: readonly Volume[],
  waitMs: number,
): Promise<LockHolder[]> {
  const clients = volumes.map(({ config }) => new ControlClient(config.name))
  const holds = await Promise.allSettled(clients.map((client) => client.hold(waitMs)))
  try {
    const refused = holds.find((each) => each.status === 'rejected')
    if (refused !== undefined) throw refused.reason
    const end = performance.now() + waitMs
    const watched = volumes.map(watchedOf)
    for (;;) {
      const held = locksOn(watched).filter(({ access }) => access === 'WRITE')
      if (held.length === 0) return []
      if (performance.now() >= end) return holdersOf(held, watched)
      await sleep(LOCKS_POLL_MS)
    }
  } finally {
    // The watchdog may have been faster.
    await Promise.allSettled(
      holds.map(async (each, n) => {
        if (each.status === 'fulfilled') await clients[n]?.release(each.value.hold)
      }),
    )
  }
}
