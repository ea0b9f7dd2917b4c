/**
 * Making a journal whole again when it cannot prove that it is: after power loss (the ring is gone)
 * or on request. The data plane walks the tree and images what may have changed; until it has done
 * so, the need stays in the journal's state record, also over restarts.
 */
import type { Drain } from '../capture/drain.js'
import type { JournalMeta, RecaptureNeed } from '../journal/meta.js'
import { Journal } from '../journal/store.js'
import { RECAPTURE_RETRY_MS, RECAPTURE_SLACK_MS } from '../lib/limits.js'
import { native, type OpenVolumeResult } from '../lib/native.js'
import { lower } from '../lib/seqs.js'
import { Oids } from '../record/oids.js'

/** What the start sequence found. */
export interface Found {
  meta: JournalMeta
  /** Last seq of the journal. */
  lastSeq: bigint
  ring: OpenVolumeResult['ring']
  /** Nobody could change the tree since the daemon ended: its dead mount was still over it. */
  sealed: boolean
}

/**
 * Whether, and from where on, a re-capture is needed:
 *
 * - one was under way or asked for already;
 * - the ring was lost without an orderly stop: it may have held records that nobody has now, and
 *   the journal may have records whose effects the backing file system lost;
 * - the tree was open to others while no interceptor was over it.
 */
export function recaptureNeed(found: Found): RecaptureNeed | null {
  const { recapture } = found.meta
  const fresh = freshNeed(found)
  if (recapture === null || fresh === null) return recapture ?? fresh
  // One was under way when the machine or the process died: what either asks for.
  return {
    reason: fresh.reason,
    sinceNs: lower(recapture.sinceNs, fresh.sinceNs),
    afterSeq: lower(recapture.afterSeq, fresh.afterSeq),
  }
}

function freshNeed({ meta, lastSeq, ring, sealed }: Found): RecaptureNeed | null {
  const { checkpoint, ctimeUnreliable } = meta
  const lost = !meta.clean && ring === 'created'
  if (checkpoint === null && lastSeq === 0n && !lost) return null
  if (!lost && sealed) return null
  const provable = checkpoint !== null && !ctimeUnreliable
  const slackNs = BigInt(RECAPTURE_SLACK_MS) * 1_000_000n
  const sinceNs = provable && checkpoint.timeNs > slackNs ? checkpoint.timeNs - slackNs : 0n
  if (lost) {
    const why = provable ? '' : '; change times prove nothing, so everything is compared'
    const reason = `the capture ring was lost: power loss or reboot without unmount${why}`
    return { reason, sinceNs, afterSeq: checkpoint?.seq ?? 0n }
  }
  const reason = 'looking for changes made while the volume was not mounted'
  return { reason, sinceNs, afterSeq: lastSeq }
}

/** Objects that records after `afterSeq` mention, as [ino, gen, …]. Reads the journal. */
export async function objectsAfter(journalPath: string, afterSeq: bigint): Promise<BigUint64Array> {
  const journal = Journal.open({ path: journalPath, readOnly: true })
  try {
    const oids = new Oids()
    for (const frame of journal.frames({ from: afterSeq + 1n })) {
      for (const record of frame.records()) if (record.seq > afterSeq) oids.addAllOf(record)
      // The control socket answers meanwhile.
      await new Promise(setImmediate)
    }
    return oids.toArray()
  } finally {
    await journal.close()
  }
}

/** Where a re-capture stands. */
export type RecaptureState = 'needed' | 'running' | 'done'

export class Recapture {
  readonly #handle: number
  readonly #drain: Drain
  #need: RecaptureNeed | null
  #started = false
  #errorsBefore = 0n
  #retryAt = 0

  constructor(handle: number, drain: Drain, need: RecaptureNeed | null) {
    this.#handle = handle
    this.#drain = drain
    this.#need = need
  }

  get need(): RecaptureNeed | null {
    return this.#need
  }

  /** Records the need durably: a crash before the scan's end must not forget it. */
  async require(need: RecaptureNeed): Promise<void> {
    this.#need = need
    this.#started = false
    await this.#drain.updateMeta({ recapture: need })
  }

  /**
   * Starts the scan when one is needed and none runs (one of recovered intents may); clears the
   * need once it is done and durable. Call it again and again.
   */
  async advance(journalPath: string): Promise<RecaptureState> {
    if (this.#need === null) return 'done'
    const stats = native.volumeStats(this.#handle)
    if (stats.scanning) return 'running'
    if (!this.#started) {
      if (Date.now() < this.#retryAt) return 'needed'
      this.#errorsBefore = stats.scanErrors
      const objects = await objectsAfter(journalPath, this.#need.afterSeq)
      native.startScan(this.#handle, {
        changedSinceNs: this.#need.sinceNs,
        kind: 'recapture',
        objects,
        data: 'whole',
        bytesPerS: 0,
      })
      this.#started = true
      return 'running'
    }
    if (stats.journaledSeq < stats.capturedSeq) {
      // Applications wait for a volume that is whole: not for the next flush in its own time.
      await this.#drain.sync()
      return 'running'
    }
    if (stats.scanErrors > this.#errorsBefore) {
      // Not whole: from the start again, but not at once.
      this.#started = false
      this.#retryAt = Date.now() + RECAPTURE_RETRY_MS
      return 'needed'
    }
    this.#need = null
    await this.#drain.updateMeta({ recapture: null })
    return 'done'
  }
}
