/**
 * What readers of a stopped volume's journal do first. After power loss LMDB's file may point to
 * pages that never reached the disk; the next start goes back to what is durable, and so does
 * whoever reads before it.
 */
import { existsSync } from 'node:fs'
import { isAtSnapshot, restoreSnapshot } from '../journal/snapshot.js'
import { Journal } from '../journal/store.js'
import { missingFileBytes } from '../journal/verify.js'
import { parseUuid } from '../record/frame.js'
import { runningDaemon, VolumeLock } from './lock.js'
import { journalPath, ringPath } from './places.js'
import type { Volume } from './registry.js'

/**
 * The directory of the volume's journal, fit to be read. Changes nothing unless the machine died
 * while the volume ran: then the volume has no ring, and its journal is not as a stop leaves it.
 */
export async function settleJournal(volume: Volume): Promise<string> {
  const { config, stateDirectory } = volume
  const path = journalPath(stateDirectory)
  const ring = ringPath(config.options.ringDirectory, config.uuid)
  const settled = () => existsSync(ring) || isAtSnapshot(path)
  if (runningDaemon(config.name) !== undefined || settled()) return path
  const lock = await VolumeLock.acquireOffline(volume)
  try {
    // Somebody may have been quicker.
    if (settled()) return path
    restoreSnapshot(path)
    // Mapping a file that is cut short may end the process: its reader says what it lacks.
    if (missingFileBytes(path) > 0) return path
    await Journal.open({ path, uuid: parseUuid(config.uuid), afterPowerLoss: true }).close()
  } finally {
    lock.release()
  }
  return path
}
