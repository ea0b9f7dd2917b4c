/** What the replicas of a volume need of its daemon. */
import { existsSync, rmSync } from 'node:fs'
import type { Drain } from '../capture/drain.js'
import { CODES_SWEEP_PAUSE_MS, CONTROL_TIMEOUT_MS } from '../lib/limits.js'
import { native, type OpenVolumeResult, type ScanOptions } from '../lib/native.js'
import { parseUuid } from '../record/frame.js'
import type { ShippedVolume } from '../replication/shipper.js'
import type { Captured } from './captured.js'
import { waitJournaled } from './checkpoint.js'
import { codesPath, journalPath } from './places.js'
import type { Recapture } from './recapture.js'
import type { Volume } from './registry.js'
import { isReplicated } from './replica-options.js'
import { hostName } from './replicas.js'
import type { VerifiedVolume } from './verification.js'

/** A scan of everything. */
export const WHOLE: ScanOptions = {
  kind: 'baseline',
  changedSinceNs: 0n,
  objects: new BigUint64Array(),
  codes: false,
  bytesPerS: 0,
}
/** A time after which nothing has changed. */
const NEVER_NS = 2n ** 64n - 1n

/** The volume, as a shipper sees it. */
export function shipped(parts: {
  volume: Volume
  handle: number
  drain: Drain
  recapture: Recapture
  captured: Captured
}): ShippedVolume & VerifiedVolume {
  const { volume, handle, drain, recapture, captured } = parts
  return {
    name: volume.config.name,
    host: hostName(),
    journalPath: journalPath(volume.stateDirectory),
    flush: async () => {
      const { capturedSeq } = native.volumeStats(handle)
      await drain.sync()
      await waitJournaled(handle, capturedSeq, CONTROL_TIMEOUT_MS)
      return capturedSeq
    },
    bytesAfter: (seq) => captured.behind(seq).bytes,
    startBaseline: async ({ codes }) => native.startScan(handle, { ...WHOLE, codes }),
    startRepair: async (objects) =>
      native.startScan(handle, { ...WHOLE, kind: 'repair', changedSinceNs: NEVER_NS, objects }),
    startVerify: ({ bytesPerS }) =>
      native.startScan(handle, { ...WHOLE, kind: 'verify', bytesPerS }),
    scanned: () => {
      const { scanObjects, scanBytes } = native.volumeStats(handle)
      return { objects: Number(scanObjects), bytes: Number(scanBytes) }
    },
    scanning: () => recapture.need !== null || native.volumeStats(handle).scanning,
    scanErrors: () => Number(native.volumeStats(handle).scanErrors),
  }
}

/**
 * Before the mount: a volume with replicas has codes from its first change on. They are kept over a
 * crash only: then the mount was dead, and nobody could change a file past it.
 */
export function openCodes(volume: Volume, open: OpenVolumeResult): void {
  const kept = existsSync(codesPath(volume.stateDirectory))
  if (!kept) return
  if (isReplicated(volume.stateDirectory)) {
    keepCodes(volume, open.handle, open.ring === 'recovered')
  } else rmSync(codesPath(volume.stateDirectory))
}

/** Codes are kept from now on. Idempotent. */
export function keepCodes({ config, stateDirectory }: Volume, handle: number, keep: boolean): void {
  native.openCodes(handle, {
    path: codesPath(stateDirectory),
    uuid: parseUuid(config.uuid) ?? Buffer.alloc(16),
    keep,
    sweepPauseMs: CODES_SWEEP_PAUSE_MS,
  })
}
