/** What the replicas of a volume need of its daemon. */
import type { Drain } from '../capture/drain.js'
import { CONTROL_TIMEOUT_MS } from '../lib/limits.js'
import { native } from '../lib/native.js'
import type { ShippedVolume } from '../replication/shipper.js'
import { waitJournaled } from './checkpoint.js'
import { journalPath } from './places.js'
import type { Recapture } from './recapture.js'
import type { Volume } from './registry.js'
import { hostName } from './replicas.js'

/** The volume, as a shipper sees it. */
export function shipped(parts: {
  volume: Volume
  handle: number
  drain: Drain
  recapture: Recapture
}): ShippedVolume {
  const { volume, handle, drain, recapture } = parts
  return {
    name: volume.config.name,
    host: hostName(),
    journalPath: journalPath(volume.stateDirectory),
    flush: async () => {
      const { capturedSeq } = native.volumeStats(handle)
      await drain.sync()
      await waitJournaled(handle, capturedSeq, CONTROL_TIMEOUT_MS)
    },
    startBaseline: async () => {
      native.startScan(handle, {
        changedSinceNs: 0n,
        objects: new BigUint64Array(),
        baseline: true,
      })
    },
    scanning: () => recapture.need !== null || native.volumeStats(handle).scanning,
    scanErrors: () => Number(native.volumeStats(handle).scanErrors),
  }
}
