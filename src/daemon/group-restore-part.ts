/**
 * The part of this host in bringing a group back to one cut: first everything that can refuse is asked, with
 * nothing changed; then, when all hosts have agreed, the restores of the volumes run beside each other.
 *
 * It ends with its coordinator: what was done stays done, as with a restore that was interrupted, and the
 * same order again ends it.
 */
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { outOfTurn } from '../group/calls.js'
import type { Answer, Question, Restored } from '../group/wire.js'
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import { hostName } from '../lib/host-name.js'
import { GROUP_FAILURES_MAX, GROUP_NEWS_MS } from '../lib/limits.js'
import { isWithin } from '../lib/mountinfo.js'
import { printable } from '../lib/printable.js'
import type { TreeFailure, TreeProgress } from '../lib/tree.js'
import type { Rights } from '../replication/rights.js'
import { resolveAhead, type Volume } from './registry.js'
import { type Restoration, restoreMoment } from './restore.js'
import { listSnapshots, type Snapshot } from './snapshots.js'

const op = 'group.restore'

type Go = { dryRun: boolean }

/** One volume; `done` never rejects. */
interface Job {
  restoration: Restoration
  result: Restored
  done: Promise<void>
}

export interface RestorePartOptions {
  question: Question<'restorePrepare'>
  volumes: readonly Volume[]
  rights: Rights
  caller: string
}

export class GroupRestorePart {
  readonly #options: RestorePartOptions
  readonly #abort = new AbortController()
  /** Undefined: nobody wants it any more. */
  readonly #go: Promise<Go | undefined>
  #begin: (go: Go | undefined) => void = () => {}
  #jobs: Job[] = []
  #begun = false

  constructor(options: RestorePartOptions) {
    this.#options = options
    this.#go = new Promise((resolve) => {
      this.#begin = resolve
    })
  }

  /** NOT_ALLOWED, SNAPSHOT_NOT_FOUND, HISTORY_RANGE, NOT_EMPTY, BUSY, VOLUME_NOT_RUNNING. */
  async prepare(): Promise<Answer<'restorePrepare'>> {
    const { volumes, question } = this.#options
    for (const volume of volumes) this.#requireAllowed(volume)
    const snapshot = snapshotOf(question.id, volumes)
    const prepared = await Promise.allSettled(volumes.map((each) => this.#prepare(each, snapshot)))
    const failed = prepared.find((each) => each.status === 'rejected')
    if (failed !== undefined) {
      this.close()
      throw failed.reason
    }
    this.#jobs = prepared.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []))
    return {
      volumes: this.#jobs.map(({ restoration: { volume, target, inPlace, undoable } }) => {
        return { volume, target, inPlace, undoable }
      }),
    }
  }

  start(go: Go): void {
    if (this.#begun || this.#jobs.length === 0) throw outOfTurn(op)
    this.#begun = true
    this.#begin(go)
  }

  async look(): Promise<Answer<'restoreLook'>> {
    if (!this.#begun) throw outOfTurn(op)
    const ended = Promise.all(this.#jobs.map(({ done }) => done)).then(() => true)
    const isOver = await Promise.race([ended, sleep(LOOK_MS, false, { ref: false })])
    return { ended: isOver, volumes: this.#jobs.map(({ result }) => result) }
  }

  /** Idempotent. */
  close(): void {
    this.#abort.abort()
    this.#begin(undefined)
  }

  /** Resolves when it could begin. */
  #prepare({ config: { name } }: Volume, snapshot: Snapshot): Promise<Job> {
    const { output, thorough } = this.#options.question
    const below = this.#options.rights.copiesBelow
    const failures: TreeFailure[] = []
    let result: Restored | undefined
    const onProgress = ({ done, bytes, totalBytes }: TreeProgress) => {
      Object.assign(result ?? {}, { objects: done, bytes, totalBytes })
    }
    const options = {
      volume: name,
      to: { kind: 'snapshot', name: snapshot.name } as const,
      output: output === null ? undefined : join(output, name),
      outputBelow: below === null || below === '/' ? undefined : below,
      thorough,
      signal: this.#abort.signal,
      onProgress,
      onFailure: (failure: TreeFailure) => failures.push(failure),
    }
    return new Promise((resolve, reject) => {
      const whole = restoreMoment(options, async (restoration) => {
        result = nothingYet(restoration)
        resolve({ restoration, result, done })
        const go = await this.#go
        if (go === undefined) throw new HoldfastError('ABORTED', 'stopped', { op })
        if (go.dryRun) Object.assign(result, { changes: await countChanges(restoration) })
        else Object.assign(result, { undone: await restoration.run() })
      })
      const done = whole.catch((error: unknown) => {
        reject(error)
        if (result !== undefined) result.error = toHoldfastError(error, op).toJSON()
      })
      void done.then(() => {
        const said = failures.map(({ path, message }) => `${printable(path)}: ${message}`)
        result?.failures.push(...said.slice(0, GROUP_FAILURES_MAX))
      })
    })
  }

  #requireAllowed({ config: { name } }: Volume): void {
    const { rights, caller, question } = this.#options
    const self = hostName()
    const { output } = question
    if (output === null) {
      if (rights.mayRestore(name)) return
      throw new HoldfastError('NOT_ALLOWED', `${caller} may not restore ${name} on ${self}`, {
        op,
        hint: `Allow it on ${self}: holdfast peer allow ${caller} ${name} --restore`,
      })
    }
    const below = rights.copiesBelow
    if (below !== null && isWithin(resolveAhead(join(output, name)), resolveAhead(below))) return
    throw new HoldfastError(
      'NOT_ALLOWED',
      `${caller} may not make copies in ${output} on ${self}`,
      {
        op,
        hint: `Allow it on ${self}: holdfast peer allow ${caller} ${name} --restore-to ${output}`,
      },
    )
  }
}

const LOOK_MS = GROUP_NEWS_MS / 10

/** All volumes have it, and its trees can be looked at. SNAPSHOT_NOT_FOUND, HISTORY_RANGE. */
function snapshotOf(id: string, volumes: readonly Volume[]): Snapshot {
  const found = listSnapshots().find((each) => each.id === id)
  const lacking = volumes.find(({ config: { uuid } }) => {
    return found?.members.some((each) => each.uuid === uuid) !== true
  })
  if (found === undefined || lacking !== undefined || found.state === 'incomplete') {
    const what = lacking?.config.name ?? found?.name
    throw new HoldfastError('SNAPSHOT_NOT_FOUND', `${hostName()} has no such snapshot of ${what}`, {
      op,
      hint: 'See which snapshots are complete: holdfast group snapshot list GROUP',
    })
  }
  return found
}

function nothingYet(restoration: Restoration): Restored {
  const { volume, target, inPlace, undoable, before } = restoration
  const undo = inPlace && undoable ? `holdfast restore ${volume} --to-seq ${before}` : null
  const none = { objects: 0, bytes: 0, totalBytes: 0, changes: null, undone: 0, error: null }
  return { volume, target, ...none, failures: [], undo }
}

/** Of a directory of which only the time differs nothing is said: something in it has changed. */
async function countChanges(restoration: Restoration): Promise<Record<string, number>> {
  const counts: Record<string, number> = {}
  for await (const { kind, object, what } of restoration.plan()) {
    if (kind === 'metadata' && object === 'directory' && what.join() === 'mtime') continue
    counts[kind] = (counts[kind] ?? 0) + 1
  }
  return counts
}
