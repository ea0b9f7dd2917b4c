/** What the replicas of a volume need of its daemon; of a chain's middle, the replica server gives it. */
import type { Logger } from '../lib/log.js'
import type { AckReport } from '../lib/native.js'
import type { ShippedVolume } from '../replication/shipped-volume.js'
import type { AckPort } from './acks.js'
import type { CapturedView } from './captured.js'
import type { StoredReplicas } from './replica-options.js'
import type { VerifiedVolume } from './verification.js'

export interface ReplicasOptions {
  stateDirectory: string
  /** What `stateDirectory` keeps of them. */
  stored: StoredReplicas
  volume: ShippedVolume & VerifiedVolume
  /** The kernel collects writes: nobody can hold their replies. */
  writeback: boolean
  captured: CapturedView
  journalBytes(): number
  /** Frames after this seq are kept; undefined: replicas ask for nothing. */
  keepAfter(seq: bigint | undefined): void
  acks: AckPort & { report(): AckReport; slow(on: boolean): void }
  /** Whether frames are shipped: they are committed without delay then. */
  ship(on: boolean): void
  /** Some replica may hold other bytes than the volume. */
  setDiffering(differing: boolean): void
  /** Codes are kept from now on. Idempotent. */
  keepCodes(): void
  /** It is the volume itself that is shipped: replicas are compared with it. */
  compare: boolean
  log: Logger
}
