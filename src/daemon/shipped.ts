/** What the replicas of a volume need of its daemon. */
import { existsSync, rmSync } from 'node:fs'
import type { Drain } from '../capture/drain.js'
import { errnoOf, toHoldfastError } from '../lib/errors.js'
import { hostName } from '../lib/host-name.js'
import {
  BASELINE_RETRY_MS_MAX,
  BASELINE_RETRY_MS_MIN,
  CODES_SWEEP_PAUSE_MS,
  CONTROL_TIMEOUT_MS,
} from '../lib/limits.js'
import type { Logger } from '../lib/log.js'
import { native, type OpenVolumeResult, type ScanOptions } from '../lib/native.js'
import { parseUuid } from '../record/frame.js'
import { Retry } from '../replication/retry.js'
import type { BaselineData, ShippedVolume } from '../replication/shipped-volume.js'
import type { Captured } from './captured.js'
import { waitJournaled } from './checkpoint.js'
import type { VolumeHorizon } from './horizon.js'
import { codesPath, journalPath } from './places.js'
import type { Recapture } from './recapture.js'
import type { Volume } from './registry.js'
import { isReplicated } from './replica-options.js'
import type { VerifiedVolume } from './verification.js'

/** A scan of everything. */
export const WHOLE: ScanOptions = {
  kind: 'baseline',
  changedSinceNs: 0n,
  objects: new BigUint64Array(),
  data: 'whole',
  bytesPerS: 0,
}
/** A time after which nothing has changed. */
const NEVER_NS = 2n ** 64n - 1n

/** The baselines of a volume: one serves all replicas that were reset before it. */
class Baselines {
  readonly #handle: number
  readonly #retry = new Retry({ minMs: BASELINE_RETRY_MS_MIN, maxMs: BASELINE_RETRY_MS_MAX })
  /** The last one, and what was captured when it began. */
  #begun: { after: bigint; data: BaselineData } | undefined
  #failure: string | null = null

  constructor(handle: number) {
    this.#handle = handle
  }

  /** While no scan runs: sees to it that there is one; else says why there is none now. */
  want(after: bigint, { data }: { data: BaselineData }): string | null {
    const { scanErrors, capturedSeq } = native.volumeStats(this.#handle)
    // The data serves everybody.
    const begun = this.#begun
    const fits = begun?.data === 'whole' || begun?.data === data
    const serves = begun !== undefined && begun.after >= after && fits
    if (serves && scanErrors === 0n) {
      this.#retry.succeeded()
      this.#failure = null
      return null
    }
    if (serves) this.#failed(`the scan of the tree ended with ${scanErrors} errors`)
    if (!this.#retry.isDue(Date.now())) return this.#failure
    try {
      native.startScan(this.#handle, { ...WHOLE, data })
      this.#begun = { after: capturedSeq, data }
    } catch (error) {
      this.#failed(toHoldfastError(error, 'replication.baseline').message)
    }
    return this.#failure
  }

  #failed(what: string): void {
    this.#begun = undefined
    const seconds = this.#retry.failed(Date.now()) / 1000
    this.#failure = `no baseline: ${what}; tried again after ${seconds} s`
  }
}

/** The volume, as a shipper sees it. */
export function shipped(parts: {
  volume: Volume
  handle: number
  drain: Drain
  recapture: Recapture
  captured: Captured
  horizon: VolumeHorizon
}): ShippedVolume & VerifiedVolume {
  const { volume, handle, drain, recapture, captured, horizon } = parts
  const baselines = new Baselines(handle)
  const scanning = () => recapture.need !== null || native.volumeStats(handle).scanning
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
    wantBaseline: async (after, { data }) => (scanning() ? null : baselines.want(after, { data })),
    canFill: (object) => native.canFill(handle, object),
    readFill: (range, into) => native.readFill(handle, range, into),
    startRepair: async (objects) =>
      native.startScan(handle, { ...WHOLE, kind: 'repair', changedSinceNs: NEVER_NS, objects }),
    startVerify: ({ bytesPerS }) =>
      native.startScan(handle, { ...WHOLE, kind: 'verify', bytesPerS }),
    scanned: () => {
      const { scanObjects, scanBytes } = native.volumeStats(handle)
      return { objects: Number(scanObjects), bytes: Number(scanBytes) }
    },
    scanning,
    scanErrors: () => Number(native.volumeStats(handle).scanErrors),
    // A baseline is no moment's tree before its end: there is nothing to keep it back from.
    horizon: (end, { baseline }) => ({ end, authorised: baseline ? end : (horizon.seq ?? end) }),
    frozen: () => horizon.frozen,
  }
}

/**
 * Before the mount: a volume with replicas has codes from its first change on. They are kept over a
 * crash only: then the mount was dead, and nobody could change a file past it.
 */
export function openCodes(volume: Volume, open: OpenVolumeResult, log: Logger): void {
  const kept = existsSync(codesPath(volume.stateDirectory))
  if (!kept) return
  if (isReplicated(volume.stateDirectory)) {
    keepCodes(volume, { handle: open.handle, keep: open.ring === 'recovered', log })
  } else rmSync(codesPath(volume.stateDirectory))
}

/** Codes are kept from now on, if there is space; without them a resync reads all. Idempotent. */
export function keepCodes(
  { config, stateDirectory }: Volume,
  { handle, keep, log }: { handle: number; keep: boolean; log: Logger },
): void {
  try {
    native.openCodes(handle, {
      path: codesPath(stateDirectory),
      uuid: parseUuid(config.uuid) ?? Buffer.alloc(16),
      keep,
      sweepPauseMs: CODES_SWEEP_PAUSE_MS,
    })
  } catch (error) {
    if (errnoOf(error) !== 'ENOSPC') throw error
    log.warn({ error: toHoldfastError(error, 'codes.open') }, 'no space for codes: none are kept')
  }
}
