/**
 * The steps of a volume's start before anything of it runs: a dead mount goes, the checks, where the
 * journal stands, the data plane. `volume.ts` takes them in order and undoes them on failure.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, rmSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import type { JournalMeta } from '../journal/meta.js'
import { restoreSnapshot } from '../journal/snapshot.js'
import { Journal } from '../journal/store.js'
import { requireReadable } from '../journal/verify.js'
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import { native, type OpenVolumeOptions, type OpenVolumeResult } from '../lib/native.js'
import { checkFrame, type JournalEnd, parseUuid } from '../record/frame.js'
import { historyPath, journalPath, ringPath } from './places.js'
import {
  checkDirectory,
  checkMountpoint,
  checkNestedMounts,
  checkOccupants,
  checkPlaces,
  checkRing,
  isServed,
} from './preflight.js'
import type { Volume } from './registry.js'

/** How long a killed daemon may take to be gone: its requests to the disk come to their end first. */
const DYING_MS_MAX = 10_000
const DYING_POLL_MS = 20

export function ringOf({ config }: Volume): string {
  return ringPath(config.options.ringDirectory, config.uuid)
}

/**
 * Detaches a dead mount of this volume; says whether there was one. Call it with the volume's lock:
 * then a mount that still answers is one whose daemon is just dying.
 */
export async function prepareMountpoint(volume: Volume): Promise<boolean> {
  const end = Date.now() + DYING_MS_MAX
  while (isServed(volume) && Date.now() < end) await sleep(DYING_POLL_MS)
  const { dead } = checkMountpoint(volume)
  // Lazily: applications may still have files of the dead mount open; they get errors until closed.
  if (dead) execFileSync('umount', ['-l', '--', volume.config.mountpoint], { stdio: 'ignore' })
  return dead
}

export function checkVolume(volume: Volume, force: boolean): void {
  const { config } = volume
  checkDirectory(config.backing, 'the directory')
  if (config.mountpoint !== config.backing) checkDirectory(config.mountpoint, 'the mountpoint')
  checkPlaces(volume)
  checkRing(volume, existsSync(ringOf(volume)))
  if (force) return
  checkNestedMounts(volume)
  checkOccupants(volume)
}

/** Reads where the journal stands, then leaves it to the drain: one writer. */
export async function openJournal(
  volume: Volume,
): Promise<{ meta: JournalMeta; end: JournalEnd; clock: bigint }> {
  const uuid = parseUuid(volume.config.uuid)
  if (uuid === undefined) throw new Error(`no UUID: ${volume.config.uuid}`)
  mkdirSync(volume.stateDirectory, { recursive: true, mode: 0o700 })
  const path = journalPath(volume.stateDirectory)
  // The ring is on tmpfs: it goes with the machine, and is removed by an orderly stop.
  const afterPowerLoss = !existsSync(ringOf(volume))
  if (afterPowerLoss) restoreSnapshot(path)
  await requireReadable(path)
  const journal = Journal.open({ path, uuid, create: true, afterPowerLoss })
  try {
    const last = journal.lastFrame()
    // Everything new is chained to it.
    if (last !== undefined) checkLast(last.bytes)
    return { meta: journal.meta(), end: journal.end(), clock: last?.clock ?? 0n }
  } finally {
    await journal.close()
  }
}

/** FRAME_* or RECORD_*, with what to do. */
function checkLast(bytes: Buffer): void {
  try {
    checkFrame(bytes)
  } catch (cause) {
    const { code, message } = toHoldfastError(cause, 'mount')
    throw new HoldfastError(code, `the journal's last frame is damaged: ${message}`, {
      op: 'mount',
      cause,
      hint: 'See all of it with `holdfast journal verify`; put back a whole journal.',
    })
  }
}

/** A history that is not kept any more would have a gap: it goes. */
function openHistory(volume: Volume): Pick<OpenVolumeOptions, 'history'> {
  const { history: mode, historyFull: full, historyBytes: bytesMax } = volume.config.options
  const path = historyPath(volume)
  if (mode === 'none') {
    rmSync(path, { recursive: true, force: true })
    return {}
  }
  return { history: { path, mode, full, bytesMax } }
}

export function openDataPlane(
  volume: Volume,
  meta: JournalMeta,
  end: JournalEnd,
  lastClock: bigint,
): OpenVolumeResult {
  const { config } = volume
  return native.openVolume({
    uuid: meta.uuid,
    name: config.name,
    backing: Buffer.from(config.backing),
    mountpoint: Buffer.from(config.mountpoint),
    ringPath: ringOf(volume),
    ringBytes: config.options.ringBytes,
    epoch: meta.epoch,
    lastSeq: end.lastSeq,
    lastChain: end.chain,
    lastClock,
    writeback: config.options.writeback,
    workers: config.options.workers,
    ringWaitMs: config.options.ringWaitMs,
    exclusive: config.backing === config.mountpoint,
    transport: config.options.transport,
    ...openHistory(volume),
  })
}
