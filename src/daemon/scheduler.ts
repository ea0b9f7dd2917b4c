/**
 * Runs the schedules of a volume, in its daemon. Each snapshot is taken by a process of its own
 * (`scheduled.ts`): what it looks at and waits for is nothing that a daemon may do to its own mount.
 *
 * One run at a time; that it was begun is on disk before it is, so a crash repeats nothing. Whatever goes
 * wrong is told, and ends nothing: with this process the mount would go.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { programUrl } from '../lib/code.js'
import { type ErrorReport, toHoldfastError } from '../lib/errors.js'
import { SCHEDULE_END_MS, SCHEDULE_LOOK_MS, SCHEDULE_RUN_MS_MAX } from '../lib/limits.js'
import type { Logger } from '../lib/log.js'
import { isDue, type Schedule, snapshotName } from '../snapshot/schedule.js'
import type { Volume } from './registry.js'
import type { ScheduledReply, ScheduledRequest } from './scheduled.js'
import {
  interrupted,
  lastOf,
  NEVER_RUN,
  readRuns,
  readSchedules,
  type ScheduleRun,
  withRun,
  writeRuns,
} from './schedules.js'
import type { VolumeState } from './status.js'

/** What the status tells of a schedule. */
export interface ScheduleStatus {
  name: string
  volumes: string[]
  /** ISO time; null: never again. */
  next: string | null
  running: boolean
  /** What it has taken last, and when. */
  snapshot: string | null
  succeeded: string | null
  runs: number
  failures: number
  /** Why there is no snapshot of the last time; null: there is one. */
  problem: string | null
}

export interface SchedulerOptions {
  volume: Volume
  log: Logger
  /** Of the volume: a snapshot takes one that is protected. */
  state(): VolumeState
}

export class Scheduler {
  readonly #options: SchedulerOptions
  #timer: NodeJS.Timeout | undefined
  #schedules: Schedule[] = []
  #runs: Record<string, ScheduleRun> = {}
  /** By name: why one that is due does not run. */
  #waiting = new Map<string, string>()
  /** By name: what has been told of one that cannot be run. */
  readonly #wrong = new Map<string, string>()
  #running: { name: string; child: ChildProcess; ended: Promise<void> } | undefined
  #unreadable: string | null = null
  #closed = false

  constructor(options: SchedulerOptions) {
    this.#options = options
  }

  start(): void {
    this.#access(() => {
      const runs = Object.entries(readRuns(this.#options.volume.stateDirectory))
      this.#runs = Object.fromEntries(runs.map(([name, run]) => [name, this.#recovered(name, run)]))
    })
    this.#timer = setInterval(() => this.#look(Date.now()), SCHEDULE_LOOK_MS)
    this.#look(Date.now())
  }

  get status(): ScheduleStatus[] {
    return this.#schedules.map((schedule) => {
      const { name, volumes } = schedule
      const run = this.#runs[name] ?? null
      const { snapshot, succeeded, error, runs, failures } = run ?? NEVER_RUN
      const running = this.#running?.name === name
      const problem = this.#waiting.get(name) ?? error?.message ?? null
      const { next } = withRun(schedule, run)
      return { name, volumes, next, running, snapshot, succeeded, runs, failures, problem }
    })
  }

  /** Ends what runs; what it has begun is undone first. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true
    clearInterval(this.#timer)
    const { child, ended } = this.#running ?? {}
    child?.kill('SIGTERM')
    await Promise.race([ended, sleep(SCHEDULE_END_MS, undefined, { ref: false })])
    child?.kill('SIGKILL')
  }

  /** One that was under way when the daemon died has failed. */
  #recovered(name: string, run: ScheduleRun): ScheduleRun {
    if (!run.running) return run
    const failed = interrupted(run)
    const { error } = failed
    this.#options.log.error({ schedule: name, error }, 'a scheduled snapshot has failed')
    return failed
  }

  #look(now: number): void {
    if (this.#closed || this.#running !== undefined) return
    this.#access(() => {
      this.#schedules = readSchedules(this.#options.volume.stateDirectory)
    })
    this.#waiting.clear()
    for (const schedule of this.#schedules) if (this.#tryToAdvance(schedule, now)) return
  }

  /** As `#advance`; what is wrong with one schedule keeps no other from being run. */
  #tryToAdvance(schedule: Schedule, now: number): boolean {
    const { name } = schedule
    try {
      const hasBegun = this.#advance(schedule, now)
      this.#wrong.delete(name)
      return hasBegun
    } catch (error) {
      const known = toHoldfastError(error, 'schedule.run')
      if (this.#wrong.get(name) !== known.message) {
        this.#options.log.error({ schedule: name, error: known }, 'a schedule cannot be run')
      }
      this.#wrong.set(name, known.message)
      this.#waiting.set(name, known.message)
      return false
    }
  }

  /** Whether it has begun a run. */
  #advance(schedule: Schedule, now: number): boolean {
    const { name, since } = schedule
    const known = this.#runs[name] ?? null
    const counted = lastOf(schedule, known)
    const { due, last } = isDue(schedule, { last: counted, now })
    const run: ScheduleRun = { ...(known ?? NEVER_RUN), since, last }
    if (last !== counted) {
      this.#options.log.warn({ schedule: name }, 'the clock was set back: times are counted anew')
      this.#keep(name, run)
    }
    if (!due) return false
    const state = this.#options.state()
    if (state !== 'protected') {
      this.#waiting.set(name, `due, and waiting: the volume is ${state}`)
      return false
    }
    this.#begin(schedule, { ...run, last: now })
    return true
  }

  #begin(schedule: Schedule, before: ScheduleRun): void {
    const { name } = schedule
    const begun = { ...before, running: true, runs: before.runs + 1 }
    if (!this.#keep(name, begun)) return
    const request = { schedule, snapshot: snapshotName(schedule, before.last) }
    let child: ChildProcess
    try {
      child = forkRun()
    } catch (error) {
      // No memory for it: fork() throws some errors, and emits others.
      const known = toHoldfastError(error, 'schedule.run').toJSON()
      this.#finish({ error: known }, request, begun)
      return
    }
    const ended = outcomeOf(child, request)
      .then((outcome) => this.#finish(outcome, request, begun))
      .finally(() => {
        this.#running = undefined
      })
    this.#running = { name, child, ended }
  }

  #finish({ error, pruned }: Outcome, request: ScheduledRequest, run: ScheduleRun): void {
    const { snapshot, schedule } = request
    const taken = pruned !== undefined
    this.#keep(schedule.name, {
      ...run,
      running: false,
      ...(taken ? { snapshot, succeeded: new Date().toISOString() } : {}),
      error: error ?? null,
      failures: run.failures + (error === undefined ? 0 : 1),
    })
    const about = { schedule: schedule.name, snapshot, pruned }
    if (error === undefined) this.#options.log.info(about, 'scheduled snapshot taken')
    else this.#options.log.error({ ...about, error }, 'a scheduled snapshot has failed')
  }

  /** False when it cannot be kept: what is not known to have run would run again and again. */
  #keep(name: string, run: ScheduleRun): boolean {
    const names = new Set([name, ...this.#schedules.map((each) => each.name)])
    const others = Object.entries(this.#runs).filter(([each]) => names.has(each))
    this.#runs = { ...Object.fromEntries(others), [name]: run }
    return this.#access(() => writeRuns(this.#options.volume.stateDirectory, this.#runs))
  }

  /** A file that cannot be read or written is told once, and again when it is another error. */
  #access(work: () => void): boolean {
    try {
      work()
      this.#unreadable = null
      return true
    } catch (error) {
      const known = toHoldfastError(error, 'schedule')
      if (this.#unreadable !== known.message) {
        this.#options.log.error({ error: known }, 'schedules do not run')
      }
      this.#unreadable = known.message
      return false
    }
  }
}

function forkRun(): ChildProcess {
  const script = fileURLToPath(programUrl('daemon/scheduled'))
  // A group of its own: a signal to the daemon's is not one to it. Its log is the daemon's.
  return fork(script, { cwd: '/', detached: true, stdio: ['ignore', 'ignore', 2, 'ipc'] })
}

type Outcome = { error?: ErrorReport | undefined; pruned?: string[] | undefined }

/** Never rejects. */
async function outcomeOf(child: ChildProcess, request: ScheduledRequest): Promise<Outcome> {
  const timer = setTimeout(() => {
    child.kill('SIGTERM')
    setTimeout(() => child.kill('SIGKILL'), SCHEDULE_END_MS).unref()
  }, SCHEDULE_RUN_MS_MAX)
  let reply: Outcome | undefined
  child.once('message', (message: ScheduledReply) => {
    reply = message
  })
  try {
    const ended = once(child, 'close')
    // One that could not be started says so before anybody waits, and has no channel; one that ends
    // early may say that its channel is gone when nobody waits any more.
    ended.catch(() => {})
    child.on('error', () => {})
    if (child.connected) child.send(request)
    const [code, signal] = await ended
    if (reply !== undefined) return reply
    throw new Error(`it ended without a word (${signal ?? `exit code ${code}`})`)
  } catch (error) {
    return { error: toHoldfastError(error, 'schedule.run').toJSON() }
  } finally {
    clearTimeout(timer)
  }
}
