/** What a running volume consists of, put together: the drain, and what looks after journal and replicas. */
import { Chores } from '../capture/chores.js'
import { Drain } from '../capture/drain.js'
import type { JournalMeta } from '../journal/meta.js'
import type { Retention } from '../journal/prune.js'
import type { Logger } from '../lib/log.js'
import { native, type OpenVolumeResult } from '../lib/native.js'
import { parseUuid } from '../record/frame.js'
import { Captured } from './captured.js'
import { Checkpointer } from './checkpoint.js'
import { type Clock, systemClock } from './clock.js'
import type { VolumeHistory } from './history.js'
import { VolumeHorizon } from './horizon.js'
import { journalPath } from './places.js'
import { Recapture } from './recapture.js'
import type { Volume } from './registry.js'
import { readReplicas } from './replica-options.js'
import { Replicas } from './replicas.js'
import { keepCodes, shipped } from './shipped.js'

export interface StartOptions {
  volume: Volume
  /** Start although processes in the tree bypass the capture, or file systems are mounted in it. */
  force: boolean
  log: Logger
  clock?: Clock
  /** The data plane broke an invariant: the process must end, so that a new one can recover. */
  onFatal(error: unknown): void
}

export interface Parts {
  handle: number
  drain: Drain
  chores: Chores
  checkpointer: Checkpointer
  recapture: Recapture
  replicas: Replicas
  captured: Captured
  history: VolumeHistory
  horizon: VolumeHorizon
}

export function startParts(
  volume: Volume,
  { handle }: OpenVolumeResult,
  need: JournalMeta['recapture'],
  { log, onFatal, clock = systemClock }: StartOptions,
): Omit<Parts, 'history'> {
  const { config, stateDirectory } = volume
  const uuid = parseUuid(config.uuid) ?? Buffer.alloc(16)
  const stored = readReplicas(stateDirectory)
  const horizon = new VolumeHorizon(config.name, stateDirectory, {
    hold: (maxMs) => native.holdChanges(handle, maxMs),
    leftMs: () => native.changesHeldMs(handle),
  })
  const retention = retentionOf(volume)
  let onCommitted: (seq: bigint) => void = () => {}
  const chores = new Chores()
  const drain = new Drain(
    { handle, journalPath: journalPath(stateDirectory), uuid, retention },
    {
      onFailure: (error) => {
        if (error === null) log.info('the journal takes frames again')
        else log.error({ error }, 'the journal takes no frames; the capture ring keeps them')
      },
      onCommitted: (seq) => onCommitted(seq),
      onPruned: (result) => log.info({ pruned: result }, 'pruned by retention'),
      onDeath: onFatal,
    },
  )
  const checkpointer = new Checkpointer({ handle, drain, chores, clock })
  const recapture = new Recapture(handle, drain, need)
  const captured = new Captured(handle)
  const replicas = new Replicas({
    stateDirectory,
    stored,
    volume: shipped({ volume, handle, drain, recapture, captured, horizon }),
    writeback: config.options.writeback,
    captured,
    journalBytes: () => drain.report?.journal.usedBytes ?? 0,
    keepAfter: (keepAfter) => void drain.setRetention({ ...retentionOf(volume), keepAfter }),
    acks: {
      setPolicy: (policy) => native.setAckPolicy(handle, policy),
      acknowledged: ({ class: ackClass, seq }) => native.acknowledged(handle, ackClass, seq),
      report: () => native.ackReport(handle),
      slow: (on) => native.slowWriters(handle, on),
    },
    ship: (on) => void drain.ship(on),
    setDiffering: (differing) => native.setDiffering(handle, differing),
    keepCodes: () => keepCodes(volume, { handle, keep: false, log }),
    compare: true,
    log,
  })
  onCommitted = (seq) => replicas.advanced(seq)
  log.info({ uuid: config.uuid }, 'volume opened')
  return { handle, drain, chores, checkpointer, recapture, replicas, captured, horizon }
}

function retentionOf({ config }: Volume): Retention {
  const { retainBytes, retainAgeMs } = config.options
  return { maxBytes: retainBytes ?? undefined, maxAgeMs: retainAgeMs ?? undefined }
}
