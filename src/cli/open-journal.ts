/** Opening the journal of a volume for reading, whether its daemon runs or not. */

import { ControlClient } from '../daemon/client.js'
import { runningDaemon } from '../daemon/lock.js'
import { findVolume, type Volume } from '../daemon/registry.js'
import { settleJournal } from '../daemon/settle.js'
import { Journal } from '../journal/store.js'
import { requireReadable } from '../journal/verify.js'
import { parseUuid } from '../record/frame.js'

export interface OpenedJournal {
  volume: Volume
  journal: Journal
  /** The volume's daemon is alive. */
  running: boolean
}

/**
 * The journal of volume `which`, read-only. With `flush`, a running daemon first journals what it
 * has captured, so that the latest changes are seen.
 */
export async function openJournal(which: string, { flush = false } = {}): Promise<OpenedJournal> {
  const volume = findVolume(which)
  const running = runningDaemon(volume.config.name) !== undefined
  if (flush && running) {
    // A daemon that cannot flush (journal full) still has a journal to read.
    await new ControlClient(volume.config.name).flush().catch(() => {})
  }
  const path = await settleJournal(volume)
  const uuid = parseUuid(volume.config.uuid)
  await requireReadable(path)
  return { volume, running, journal: Journal.open({ path, uuid, readOnly: true }) }
}
