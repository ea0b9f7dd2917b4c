/** Replicas of a volume, and what waits for them, for people. */
import type { AcknowledgeStatus, ReplicaStatus } from '../daemon/replica-status.js'
import { formatBytes, formatCount, formatDuration } from '../lib/format.js'
import { formatAckAt } from '../replication/ack-options.js'
import { baselineText } from './baseline.js'
import { out } from './output.js'

export function replicaText(replica: ReplicaStatus): string {
  const { peer, connection, copy, logged, applied, lag, baseline, problem } = replica
  const parts = [
    `${out.bold(peer)} ${connectionText(connection)}, ${ackText(replica)}, ${copyText(copy)}`,
    ...(baseline === null ? [] : [`baseline ${baselineText(baseline)}`]),
    `logged seq ${formatCount(logged)} (${lagText(lag.logged, lag.loggedBytes, lag.loggedSeconds)})`,
    `applied seq ${formatCount(applied)} (${lagText(lag.applied, lag.appliedBytes, lag.seconds)})`,
    ...limitTexts(replica),
    ...verdictTexts(replica),
    ...(replica.held ? [] : [out.red('cut loose: it starts anew')]),
    ...(problem === null ? [] : [out.red(problem.message)]),
  ]
  return parts.join('; ')
}

/** The mode, that of the paths that have another, and whether that is kept now. */
function ackText(replica: ReplicaStatus): string {
  const { ack, ackPaths, waitedFor, onLoss } = replica
  const paths = ackPaths.map((each) => `${each.path} ${each.ack}`).join(', ')
  const text = paths === '' ? ack : `${ack} (${paths})`
  if (!isSynchronous(replica) || waitedFor) return text
  return `${text} ${out.red(onLoss === 'refuse' ? '(lost: what waits may fail)' : '(not waited for)')}`
}

function limitTexts(replica: ReplicaStatus): string[] {
  const { rateBytes, maxLagBytes, maxLagMs, slowing, applyDelayMs } = replica
  const lag =
    maxLagBytes === null ? maxLagMs && formatDuration(maxLagMs * 1e6) : formatBytes(maxLagBytes)
  return [
    ...(rateBytes === null ? [] : [`sent at most ${formatBytes(rateBytes)}/s`]),
    ...(lag === null
      ? []
      : [`lag at most ${lag}${slowing ? out.yellow(' (changes are slowed)') : ''}`]),
    ...(applyDelayMs === 0
      ? []
      : [`applied ${formatDuration(applyDelayMs * 1e6)} late on purpose`]),
  ]
}

function verdictTexts({ needs, proven }: ReplicaStatus): string[] {
  if (needs > 0) return [out.red(`${formatCount(needs)} objects differ`)]
  return proven === null ? [] : [`proven equal ${proven.at}`]
}

export function isSynchronous({ ack, ackPaths }: ReplicaStatus): boolean {
  return ack !== 'async' || ackPaths.some((each) => each.ack !== 'async')
}

/** Where replies wait, and for how many replicas. */
export function acknowledgeText({ at, quorum, closeAtNextMount }: AcknowledgeStatus): string {
  const next = closeAtNextMount ? out.yellow(' (close from the next mount on)') : ''
  const whom =
    quorum === null ? 'all synchronous replicas' : `${quorum} of the synchronous replicas`
  return `${formatAckAt(at)}${next}, for ${whom}`
}

/** The state of a connection, in colours. */
export function connectionText(connection: string): string {
  return connection === 'connected' ? out.green(connection) : out.yellow(connection)
}

/** `12 behind, 48.0 KiB, 0.2 s` */
export function lagText(records: number, bytes: number, seconds: number): string {
  if (records === 0) return 'nothing behind'
  return `${formatCount(records)} behind, ${formatBytes(bytes)}, ${seconds.toFixed(1)} s`
}

/** A copy state, coloured by how much it is worth. */
export function copyText(copy: ReplicaStatus['copy']): string {
  if (copy === 'UpToDate') return out.green(copy)
  return copy === 'Consistent' ? out.yellow(copy) : out.red(copy)
}
