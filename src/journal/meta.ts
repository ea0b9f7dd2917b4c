/**
 * The journal's own state: one JSON record beside the frames. Version 1; an unknown version is
 * refused. Integers that may exceed 2^53 are decimal strings.
 */
import { HoldfastError } from '../lib/errors.js'
import { formatUuid, type JournalEnd, parseUuid } from '../record/frame.js'

export const META_VERSION = 1

/** Everything up to `seq` is durable in the backing tree and in the journal. */
export interface Checkpoint {
  seq: bigint
  /** Wall-clock time when it was begun, ns since the epoch. */
  timeNs: bigint
}

/** Why the volume is not known to be wholly journaled, until a re-capture ends. */
export interface RecaptureNeed {
  reason: string
  /** Objects changed at or after this time (ns) are imaged; 0: all. */
  sinceNs: bigint
  /** Objects that records after this seq mention are imaged as well. */
  afterSeq: bigint
}

export interface JournalMeta {
  uuid: Buffer
  epoch: number
  /** The volume was stopped in order: nothing was pending. */
  clean: boolean
  checkpoint: Checkpoint | null
  recapture: RecaptureNeed | null
  /** The wall clock went backwards since the last checkpoint: change times prove nothing. */
  ctimeUnreliable: boolean
  /** Everything up to here was pruned. */
  horizon: JournalEnd | null
}

/** The state of a journal that was just made. */
export function freshMeta(uuid: Buffer): JournalMeta {
  return {
    uuid,
    epoch: 1,
    clean: true,
    checkpoint: null,
    recapture: null,
    ctimeUnreliable: false,
    horizon: null,
  }
}

interface StoredMeta {
  version: number
  uuid: string
  epoch: number
  clean: boolean
  checkpoint: { seq: string; timeNs: string } | null
  recapture: { reason: string; sinceNs: string; afterSeq: string } | null
  ctimeUnreliable: boolean
  horizon: { lastSeq: string; chain: string } | null
}

export function encodeMeta(meta: JournalMeta): Buffer {
  const { checkpoint, recapture, horizon } = meta
  const stored: StoredMeta = {
    version: META_VERSION,
    uuid: formatUuid(meta.uuid),
    epoch: meta.epoch,
    clean: meta.clean,
    checkpoint: checkpoint && { seq: `${checkpoint.seq}`, timeNs: `${checkpoint.timeNs}` },
    recapture: recapture && {
      reason: recapture.reason,
      sinceNs: `${recapture.sinceNs}`,
      afterSeq: `${recapture.afterSeq}`,
    },
    ctimeUnreliable: meta.ctimeUnreliable,
    horizon: horizon && { lastSeq: `${horizon.lastSeq}`, chain: horizon.chain.toString('hex') },
  }
  return Buffer.from(JSON.stringify(stored))
}

/** UNKNOWN_FORMAT for another version, JOURNAL_UNREADABLE for what is no meta record. */
export function decodeMeta(bytes: Buffer): JournalMeta {
  try {
    const stored = JSON.parse(bytes.toString('utf8')) as StoredMeta
    if (stored.version !== META_VERSION) {
      const message = `journal version ${stored.version}; this holdfast reads ${META_VERSION}`
      throw new HoldfastError('UNKNOWN_FORMAT', message, {
        op: 'journal.open',
        hint: 'Use the holdfast that wrote it, or a newer one.',
      })
    }
    const { checkpoint, recapture, horizon } = stored
    const uuid = parseUuid(stored.uuid)
    if (uuid === undefined) throw new Error(`no UUID: ${stored.uuid}`)
    return {
      uuid,
      epoch: stored.epoch,
      clean: stored.clean,
      checkpoint: checkpoint && {
        seq: BigInt(checkpoint.seq),
        timeNs: BigInt(checkpoint.timeNs),
      },
      recapture: recapture && {
        reason: recapture.reason,
        sinceNs: BigInt(recapture.sinceNs),
        afterSeq: BigInt(recapture.afterSeq),
      },
      ctimeUnreliable: stored.ctimeUnreliable,
      horizon: horizon && {
        lastSeq: BigInt(horizon.lastSeq),
        chain: Buffer.from(horizon.chain, 'hex'),
      },
    }
  } catch (cause) {
    if (cause instanceof HoldfastError) throw cause
    throw new HoldfastError('JOURNAL_UNREADABLE', 'the meta record of the journal is damaged', {
      op: 'journal.open',
      cause,
    })
  }
}
