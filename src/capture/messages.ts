/** What the main thread and the drain's worker say to each other. */

import type { JournalMeta } from '../journal/meta.js'
import type { PruneResult, Retention } from '../journal/prune.js'
import type { JournalStat } from '../journal/store.js'
import type { ErrorReport } from '../lib/errors.js'

export interface DrainOptions {
  /** Volume handle of the data plane. */
  handle: number
  journalPath: string
  uuid: Uint8Array
  retention: Retention
}

/** Main thread → worker; each is answered by a reply with its `id`. */
export type DrainRequest =
  | { id: number; kind: 'updateMeta'; change: Partial<JournalMeta> }
  | { id: number; kind: 'prune'; retention: Retention }
  | { id: number; kind: 'setRetention'; retention: Retention }
  | { id: number; kind: 'report' }
  /** Whether frames are shipped: then they are committed without delay, and each commit is told. */
  | { id: number; kind: 'ship'; on: boolean }
  /** Make what is captured durable soon, although no fsync asks for it. */
  | { id: number; kind: 'sync' }
  /** Stop without draining (the journal is full): what is pending stays in the ring. */
  | { id: number; kind: 'abandon' }
  /** Close the journal; the last request. */
  | { id: number; kind: 'close' }

export interface DrainReport {
  /** Frames, bytes and transactions since the start. */
  frames: number
  bytes: number
  commits: number
  /** Duration of the last durable commit, ns. */
  lastCommitNs: number
  /** Why the journal takes no frames now, or null. */
  failure: ErrorReport | null
  journal: JournalStat
  meta: JournalMeta
}

/** Worker → main thread. */
export type DrainMessage =
  | {
      kind: 'reply'
      id: number
      result?: JournalMeta | PruneResult | DrainReport
      error?: ErrorReport
    }
  | { kind: 'report'; report: DrainReport }
  | { kind: 'failure'; error: ErrorReport | null }
  | { kind: 'pruned'; result: PruneResult }
  /** The journal has everything up to this seq; told while frames are shipped. */
  | { kind: 'committed'; seq: bigint }
  /** The journal is open: the drain begins. */
  | { kind: 'opened' }
  /** The journal cannot be opened: there is no drain. */
  | { kind: 'unopened'; error: ErrorReport }
  /** The volume is stopped and everything is journaled. */
  | { kind: 'drained' }
