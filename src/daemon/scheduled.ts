/**
 * One run of a schedule, in a process of its own: takes the snapshot, then applies the schedule's
 * policy to its own snapshots. Ends, with what it has begun undone, when it is asked to or when the
 * daemon that started it is gone.
 */
import { writeFileSync } from 'node:fs'
import { type ErrorReport, HoldfastError, toHoldfastError } from '../lib/errors.js'
import { makeLogger } from '../lib/log.js'
import { isEmpty } from '../snapshot/retention.js'
import { SCHEDULE_LABEL, type Schedule } from '../snapshot/schedule.js'
import type { HookOptions } from './hooks.js'
import { pruneSnapshots } from './prune-snapshots.js'
import { createSnapshot } from './snapshots.js'

/** Daemon → run. */
export interface ScheduledRequest {
  schedule: Schedule
  /** Its name. */
  snapshot: string
}

/** Run → daemon. With `pruned`, the snapshot was taken. */
export interface ScheduledReply {
  error?: ErrorReport | undefined
  pruned?: string[] | undefined
}

async function run({ schedule, snapshot }: ScheduledRequest, signal: AbortSignal) {
  const { name, volumes, maxHoldMs, keep, hooks } = schedule
  const own = { [SCHEDULE_LABEL]: name }
  const log = makeLogger({ fd: 2, base: { schedule: name } })
  const options: HookOptions = { log, signal, hooks: hooks ? undefined : false }
  try {
    const labels = { ...schedule.labels, ...own }
    await createSnapshot({ volumes, name: snapshot, maxHoldMs, labels, ...options })
  } catch (error) {
    return { error: toHoldfastError(error, 'schedule.run').toJSON() }
  }
  return prune({ keep, own }, options)
}

/** Only after a snapshot: what is no longer taken must not go, too. */
async function prune(
  { keep, own }: { keep: Schedule['keep']; own: Record<string, string> },
  options: HookOptions,
): Promise<ScheduledReply> {
  if (isEmpty(keep)) return { pruned: [] }
  try {
    const results = await pruneSnapshots({ policy: keep, labels: own, per: 'all', ...options })
    const pruned = results.filter((each) => !each.keep && each.error === null)
    const [failed] = results.filter(({ error }) => error !== null)
    const error = failed?.error ?? undefined
    return { pruned: pruned.map(({ name }) => name), error }
  } catch (error) {
    return { pruned: [], error: toHoldfastError(error, 'schedule.prune').toJSON() }
  }
}

/** Hooks find what they would find from the command line. */
function prepareProcess(): void {
  process.umask(0o022)
  try {
    // The daemon is spared when memory is short; what it starts is not.
    writeFileSync('/proc/self/oom_score_adj', '0')
  } catch {
    // Not allowed: then it is what the daemon is.
  }
}

const over = new AbortController()
process.on('SIGTERM', () => over.abort())
process.on('disconnect', () => over.abort())
process.once('message', async (request: ScheduledRequest) => {
  prepareProcess()
  const reply: ScheduledReply = await run(request, over.signal)
  if (process.connected) process.send?.(reply, () => process.disconnect())
  if (reply.error !== undefined) process.exitCode = HoldfastError.from(reply.error).exitCode
})
