/**
 * Checkpoints: moments at which everything up to a seq is durable both in the backing tree and in
 * the journal. After a power loss only what changed since the last one has to be looked at.
 *
 * Order matters: note the seq and the time, then sync the backing file system, then wait until the
 * journal has the seq, then store both.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Chores } from '../capture/chores.js'
import type { Drain } from '../capture/drain.js'
import type { Checkpoint } from '../journal/meta.js'
import { HoldfastError } from '../lib/errors.js'
import { CHECKPOINT_WAIT_MS, CLOCK_STEP_MS_MAX } from '../lib/limits.js'
import { native } from '../lib/native.js'
import { type Clock, StepDetector } from './clock.js'

const POLL_MS = 10

export interface CheckpointerOptions {
  handle: number
  drain: Drain
  chores: Chores
  clock: Clock
}

export class Checkpointer {
  readonly #options: CheckpointerOptions
  readonly #steps: StepDetector
  #last: Checkpoint | null = null
  #running: Promise<Checkpoint> | undefined
  #next: Promise<Checkpoint> | undefined
  #unreliable = false

  constructor(options: CheckpointerOptions) {
    this.#options = options
    this.#steps = new StepDetector(options.clock, CLOCK_STEP_MS_MAX)
  }

  get last(): Checkpoint | null {
    return this.#last
  }

  /**
   * Takes a checkpoint that covers everything captured until now. Those who ask while one is under way,
   * which may not cover it, share the next. TIMEOUT, or native errors.
   */
  async take(): Promise<Checkpoint> {
    if (this.#next !== undefined) return this.#next
    if (this.#running === undefined) return this.#begin()
    const begin = () => {
      this.#next = undefined
      return this.#begin()
    }
    this.#next = this.#running.then(begin, begin)
    return this.#next
  }

  #begin(): Promise<Checkpoint> {
    this.#running = this.#take().finally(() => {
      this.#running = undefined
    })
    return this.#running
  }

  /** Whether anything was captured since the last checkpoint. */
  get due(): boolean {
    return (
      this.#last === null || native.volumeStats(this.#options.handle).capturedSeq > this.#last.seq
    )
  }

  /** Looks at the clocks; stores it when the wall clock fell back. Call about once a second. */
  async watchClock(): Promise<boolean> {
    if (!this.#steps.steppedBack() || this.#unreliable) return false
    this.#unreliable = true
    await this.#options.drain.updateMeta({ ctimeUnreliable: true })
    return true
  }

  async #take(): Promise<Checkpoint> {
    const { handle, drain, chores, clock } = this.#options
    this.#steps.steppedBack()
    const checkpoint = { seq: native.volumeStats(handle).capturedSeq, timeNs: clock.wallNs() }
    await chores.run('syncBacking', handle)
    await drain.sync()
    await waitJournaled(handle, checkpoint.seq, CHECKPOINT_WAIT_MS)
    const ctimeUnreliable = this.#steps.steppedBack()
    await drain.updateMeta({ checkpoint, ctimeUnreliable })
    this.#unreliable = ctimeUnreliable
    this.#last = checkpoint
    return checkpoint
  }
}

/** Waits until the journal has `seq` durably; TIMEOUT after `waitMs`. */
export async function waitJournaled(handle: number, seq: bigint, waitMs: number): Promise<void> {
  const end = Date.now() + waitMs
  for (;;) {
    const { journaledSeq, journalError } = native.volumeStats(handle)
    if (journaledSeq >= seq) return
    if (Date.now() >= end) {
      const why = journalError === null ? '' : `: ${journalError}`
      const message = `the journal is at seq ${journaledSeq}, not at ${seq}, after ${waitMs} ms${why}`
      throw new HoldfastError('TIMEOUT', message, {
        op: 'checkpoint',
        hint: 'Look at the space and the speed of the file system of the journal.',
      })
    }
    await sleep(POLL_MS)
  }
}
