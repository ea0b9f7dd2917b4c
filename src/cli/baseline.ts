/** Follows a baseline from the command line: a bar on a terminal, a line now and then elsewhere. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { BaselineStatus } from '../daemon/baseline-progress.js'
import type { ControlClient } from '../daemon/client.js'
import type { ReplicaStatus } from '../daemon/replica-status.js'
import { HoldfastError } from '../lib/errors.js'
import { formatBytes, formatCount, formatDuration } from '../lib/format.js'
import { remark } from './output.js'
import { percentBar } from './progress.js'

const POLL_MS = 250
/** Without a terminal. */
const LINE_MS = 5_000

/** `37%, 1.2 GiB of 3.1 GiB, 12,000 of 40,000 objects, 80 MiB/s, 25 s left` */
export function baselineText(baseline: BaselineStatus): string {
  const { percent, bytes, bytesTotal, objects, objectsTotal } = baseline
  const of = (done: string, all: string | null) => (all === null ? done : `${done} of ${all}`)
  const total = bytesTotal === null ? null : formatBytes(bytesTotal)
  const count = objectsTotal === null ? null : formatCount(objectsTotal)
  return [
    percent === null ? 'counting the tree' : `${percent.toFixed(1)}%`,
    of(formatBytes(bytes), total),
    `${of(formatCount(objects), count)} objects`,
    ...paceText(baseline),
  ].join(', ')
}

function paceText({ bytesPerSecond, secondsLeft }: BaselineStatus): string[] {
  return [
    `${formatBytes(bytesPerSecond)}/s`,
    ...(secondsLeft === null ? [] : [`${formatDuration(secondsLeft * 1e9)} left`]),
  ]
}

/** One line on a replica that has no baseline yet. */
function stateText({ connection, problem, baseline }: ReplicaStatus): string {
  if (problem !== null && (baseline === null || problem.code === 'BASELINE')) return problem.message
  return baseline === null ? connection : baselineText(baseline)
}

/**
 * Returns when the replica of `peer` has its baseline. ABORTED when the user has seen enough: it goes
 * on; NOT_REPLICATED when shipping was stopped meanwhile.
 */
export async function followBaseline(
  client: ControlClient,
  { peer, signal }: { peer: string; signal: AbortSignal },
): Promise<void> {
  const bar = percentBar(`baseline to ${peer}`)
  let nextLine = 0
  try {
    for (;;) {
      const { replicas } = await client.status()
      const replica = replicas.find((each) => each.peer === peer)
      if (replica === undefined) {
        throw new HoldfastError('NOT_REPLICATED', `${client.name} is not shipped to ${peer}`, {
          op: 'replicate',
        })
      }
      if (replica.copy !== 'Inconsistent' && replica.connection === 'connected') return
      const text = stateText(replica)
      if (bar !== undefined) bar.update(replica.baseline?.percent ?? 0, text)
      else if (Date.now() >= nextLine) {
        nextLine = Date.now() + LINE_MS
        remark(`baseline to ${peer}: ${text}`)
      }
      await sleep(POLL_MS, undefined, { signal }).catch(() => {})
      if (!signal.aborted) continue
      throw new HoldfastError('ABORTED', 'not waiting any longer; the baseline goes on', {
        op: 'replicate',
        hint: `Follow it: holdfast status ${client.name} --watch`,
      })
    }
  } finally {
    bar?.stop()
  }
}
