/** What `status` says of the replicas of a volume. JSON values only. */

import type { Acknowledge } from '../replication/ack-options.js'
import { type CopyState, needsBaseline } from '../replication/copy-state.js'
import { isResyncing, type ShipperState } from '../replication/ship-state.js'
import type { BaselineStatus } from './baseline-progress.js'
import type { CapturedView } from './captured.js'
import type { ReplicaOptions, StoredReplica } from './replica-options.js'

/** What `status` says of one replica. Sizes in bytes. */
export interface ReplicaStatus {
  peer: string
  ack: ReplicaOptions['ack']
  ackPaths: ReplicaOptions['ackPaths']
  connection: ShipperState['connection']
  copy: CopyState
  sent: number
  logged: number
  applied: number
  /** The farthest that it may ever have been told to apply. */
  authorised: number
  /**
   * What is captured and not yet logged, or not yet applied, there: records, bytes of them, and the
   * age of the oldest. `seconds` is of what is not applied.
   */
  lag: {
    logged: number
    applied: number
    loggedBytes: number
    appliedBytes: number
    loggedSeconds: number
    seconds: number
  }
  /** A baseline that is under way; null otherwise. */
  baseline: BaselineStatus | null
  /** Its baseline has ended. */
  whole: boolean
  /** A synchronous replica: replies wait for it now. */
  waitedFor: boolean
  onLoss: ReplicaOptions['onLoss']
  lossMs: number
  /** Limits, null where there is none: bytes per second sent, and the lag from which changes wait. */
  rateBytes: number | null
  maxLagBytes: number | null
  maxLagMs: number | null
  /** It lags further than it may: changes are slowed down now. */
  slowing: boolean
  applyDelayMs: number
  bytesSent: number
  connections: number
  /** Baselines begun since the daemon started. */
  resyncs: number
  problem: { code: string; message: string } | null
  /** Objects of which its tree lacks something. */
  needs: number
  /** When it was compared last (ISO), and how many differences there were; null: never. */
  verified: { at: string; seq: number; differences: number } | null
  /** When it was last proven equal. */
  proven: { at: string; seq: number } | null
  /** The journal keeps for it what it lacks; false: it was down too long, and starts anew. */
  held: boolean
}

/** When replies are held, whichever the replicas are. */
export interface AcknowledgeStatus extends Acknowledge {
  /** Closes are to wait, and will from the next mount on: the kernel does not ask about them now. */
  closeAtNextMount: boolean
}

export function statusOf(replica: {
  options: StoredReplica
  state: ShipperState
  held: boolean
  captured: CapturedView
  baseline: BaselineStatus | null
  waitedFor: boolean
  slowing: boolean
}): ReplicaStatus {
  const { options, state, held, captured, waitedFor, slowing } = replica
  const { established: _, holdBytes: __, scrubMs: ___, ...shown } = options
  const { sent, logged, applied, problem, connection, needs, verdict } = state
  const end = captured.seq()
  const notLogged = captured.behind(logged)
  const notApplied = captured.behind(applied)
  const upToDate = applied >= end && connection === 'connected'
  const failed = needsBaseline(problem) || needs > 0
  return {
    ...shown,
    connection,
    copy: state.baseline || failed ? 'Inconsistent' : upToDate ? 'UpToDate' : 'Consistent',
    sent: Number(sent),
    logged: Number(logged),
    applied: Number(applied),
    authorised: Number(state.authorised),
    lag: {
      logged: Number(end - logged),
      applied: Number(end - applied),
      loggedBytes: notLogged.bytes,
      appliedBytes: notApplied.bytes,
      loggedSeconds: notLogged.seconds,
      seconds: notApplied.seconds,
    },
    baseline: replica.baseline,
    whole: !isResyncing(state),
    waitedFor,
    slowing,
    bytesSent: state.bytesSent,
    connections: state.connections,
    resyncs: state.resyncs,
    problem,
    needs,
    verified: dated(verdict.verified),
    proven: dated(verdict.proven),
    held,
  }
}

function dated<T extends { at: number }>(fact: T | null) {
  return fact && { ...fact, at: new Date(fact.at).toISOString() }
}
