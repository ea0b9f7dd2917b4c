/**
 * What an operator has said of a volume's replicas, as `replicas.json` in the state directory keeps it.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { HoldfastError } from '../lib/errors.js'
import { writeFileDurably } from '../lib/files.js'
import { formatDuration } from '../lib/format.js'
import {
  APPLY_DELAY_MS_MAX,
  RATE_BYTES_MIN,
  REPLICA_HOLD_BYTES_MAX,
  SCRUB_INTERVAL_MS,
  SYNC_LOSS_MS,
  SYNC_LOSS_MS_MAX,
} from '../lib/limits.js'
import { readStored } from '../lib/stored.js'
import {
  ACKS,
  type Acknowledge,
  AcknowledgeSchema,
  AckPathsSchema,
} from '../replication/ack-options.js'

const FILE = 'replicas.json'

const Fields = z.strictObject({
  peer: z.string().min(1),
  /** When a reply is held until the replica has it: never, logged, or applied. */
  ack: z.enum(ACKS),
  /** Where it is another: the longest path wins. */
  ackPaths: AckPathsSchema,
  /** What becomes of replies that wait for a synchronous replica that is lost, after `lossMs`. */
  onLoss: z.enum(['continue', 'refuse']),
  lossMs: z.int().min(0).max(SYNC_LOSS_MS_MAX),
  holdBytes: z.int().min(0),
  /** How often everything is compared with it; 0: never. */
  scrubMs: z.int().min(0),
  /** Bytes per second that are sent to it at most. */
  rateBytes: z.int().min(RATE_BYTES_MIN).nullable(),
  /** Beyond so much captured and not logged there, changes are slowed down. */
  maxLagBytes: z.int().min(1).nullable(),
  maxLagMs: z.int().min(1).nullable(),
  /** Its tree is kept so far behind. */
  applyDelayMs: z.int().min(0).max(APPLY_DELAY_MS_MAX),
  /** HOST:PORT where the replica connects to; null: this side connects. */
  listen: z.string().min(1).nullable(),
})
export type ReplicaOptions = z.infer<typeof Fields>

const DEFAULTS: Omit<StoredReplica, 'peer'> = {
  ack: 'async',
  ackPaths: [],
  onLoss: 'continue',
  lossMs: SYNC_LOSS_MS,
  holdBytes: REPLICA_HOLD_BYTES_MAX,
  scrubMs: SCRUB_INTERVAL_MS,
  rateBytes: null,
  maxLagBytes: null,
  maxLagMs: null,
  applyDelayMs: 0,
  listen: null,
  established: false,
}

/** What is asked for: what is not named stays as it was. */
export const ReplicaChangeSchema = Fields.partial().required({ peer: true })
export type ReplicaRequest = z.infer<typeof ReplicaChangeSchema>

/** `established`: it has been waited for. */
export type StoredReplica = ReplicaOptions & { established: boolean }

const FileSchema = z.strictObject({
  version: z.literal(1),
  replicas: z.array(ReplicaChangeSchema.extend({ established: z.boolean().optional() })),
  acknowledge: AcknowledgeSchema.prefault({}),
})

export interface StoredReplicas {
  replicas: StoredReplica[]
  acknowledge: Acknowledge
}

/** What a replica is to be like after `change`. USAGE: that cannot be. */
export function changed(known: StoredReplica | undefined, change: ReplicaRequest): StoredReplica {
  const options = { ...DEFAULTS, ...known, ...given(change) }
  const { ack, ackPaths, applyDelayMs, peer } = options
  const applies = [ack, ...ackPaths.map((each) => each.ack)].includes('sync-apply')
  if (!applies || applyDelayMs === 0) return options
  const delay = formatDuration(applyDelayMs * 1e6)
  const message = `${peer} cannot be sync-apply and apply ${delay} late: every fsync would wait that long`
  throw new HoldfastError('USAGE', message, {
    op: 'replicate',
    hint: 'Take --ack sync-log with --apply-delay, or --apply-delay 0s.',
  })
}

/** The volume is shipped to somebody. */
export function isReplicated(stateDirectory: string): boolean {
  return existsSync(join(stateDirectory, FILE))
}

/** UNKNOWN_FORMAT. */
export function readReplicas(stateDirectory: string): StoredReplicas {
  const path = join(stateDirectory, FILE)
  if (!existsSync(path)) return { replicas: [], acknowledge: AcknowledgeSchema.parse({}) }
  const stored = readStored(path, FileSchema, {
    op: 'replicas.read',
    hint: 'Correct it, or remove it and replicate again.',
  })
  const replicas = stored.replicas.map((each) => ({ ...DEFAULTS, ...given(each) }))
  return { ...stored, replicas }
}

export function writeReplicas(stateDirectory: string, stored: StoredReplicas): void {
  const text = JSON.stringify({ version: 1, ...stored }, null, 2)
  writeFileDurably(join(stateDirectory, FILE), `${text}\n`)
}

/** Without what is undefined: that would replace what is known. */
function given<T extends { peer: string }>(change: T): Given<T> {
  const entries = Object.entries(change).filter(([, value]) => value !== undefined)
  return Object.fromEntries(entries) as Given<T>
}

type Given<T> = { [Name in keyof T]: Exclude<T[Name], undefined> }
