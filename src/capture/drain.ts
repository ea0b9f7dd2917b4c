/** The main thread's side of the drain: starts the worker, asks it, knows its last report. */
import { Worker } from 'node:worker_threads'
import type { JournalMeta } from '../journal/meta.js'
import type { PruneResult, Retention } from '../journal/prune.js'
import { programUrl } from '../lib/code.js'
import { type ErrorReport, HoldfastError } from '../lib/errors.js'
import { native } from '../lib/native.js'
import type { DrainMessage, DrainOptions, DrainReport, DrainRequest } from './messages.js'

export interface DrainEvents {
  /** The journal refuses frames (an error), or takes them again (null). */
  onFailure(error: ErrorReport | null): void
  onPruned(result: PruneResult): void
  /** While frames are shipped: the journal has everything up to `seq`. */
  onCommitted(seq: bigint): void
  /** The worker died: a broken invariant. What is in the ring stays there. */
  onDeath(cause: unknown): void
}

type Answer = JournalMeta | PruneResult | DrainReport | undefined
/** A request without its id. */
type Ask<T> = T extends { id: number } ? Omit<T, 'id'> : never

export class Drain {
  /** Resolves when the journal is open; rejects with why it is not. */
  readonly opened: Promise<void>
  /** Resolves when the volume is stopped and everything is journaled. */
  readonly drained: Promise<void>
  readonly #handle: number
  readonly #worker: Worker
  readonly #waiting = new Map<number, (message: DrainMessage & { kind: 'reply' }) => void>()
  #last: DrainReport | undefined
  #nextId = 1
  #closed = false

  constructor(options: DrainOptions, events: DrainEvents) {
    this.#handle = options.handle
    this.#worker = new Worker(programUrl('capture/drain-worker'), {
      name: 'drain',
      workerData: options,
    })
    let drained: () => void = () => {}
    this.drained = new Promise((resolve) => {
      drained = resolve
    })
    this.opened = new Promise((resolve, reject) => {
      this.#worker.on('message', (message: DrainMessage) => {
        if (message.kind === 'reply') this.#waiting.get(message.id)?.(message)
        else if (message.kind === 'report') this.#last = message.report
        else if (message.kind === 'committed') events.onCommitted(message.seq)
        else if (message.kind === 'failure') {
          // A blocked drain posts no reports.
          if (this.#last !== undefined) this.#last = { ...this.#last, failure: message.error }
          events.onFailure(message.error)
        } else if (message.kind === 'pruned') events.onPruned(message.result)
        else if (message.kind === 'unopened') {
          this.#closed = true
          reject(HoldfastError.from(message.error))
        } else if (message.kind === 'opened') resolve()
        else drained()
      })
    })
    const died = (cause: unknown) => {
      if (!this.#closed) events.onDeath(cause)
    }
    this.#worker.on('error', died)
    this.#worker.on('exit', (code) => died(new Error(`the drain ended with code ${code}`)))
  }

  /** The last report, at most half a second old while the drain runs. */
  get report(): DrainReport | undefined {
    return this.#last
  }

  /** Changes the journal's state record, durably. */
  async updateMeta(change: Partial<JournalMeta>): Promise<JournalMeta> {
    const meta = (await this.#ask({ kind: 'updateMeta', change })) as JournalMeta
    const result = withBuffers(meta)
    if (this.#last !== undefined) this.#last = { ...this.#last, meta: result }
    return result
  }

  async prune(retention: Retention): Promise<PruneResult> {
    return (await this.#ask({ kind: 'prune', retention })) as PruneResult
  }

  async setRetention(retention: Retention): Promise<void> {
    await this.#ask({ kind: 'setRetention', retention })
  }

  async ship(on: boolean): Promise<void> {
    await this.#ask({ kind: 'ship', on })
  }

  async freshReport(): Promise<DrainReport> {
    this.#last = (await this.#ask({ kind: 'report' })) as DrainReport
    return this.#last
  }

  /** Has everything captured so far made durable soon. */
  async sync(): Promise<void> {
    await this.#ask({ kind: 'sync' })
  }

  /** Ends a drain that cannot empty the ring; what is pending stays there. */
  async abandon(): Promise<void> {
    await this.#ask({ kind: 'abandon' })
  }

  /** Ends it when a start fails, in whatever state it is. */
  async giveUp(): Promise<void> {
    if (this.#closed) return
    await this.abandon()
    await this.close()
  }

  /** Closes the journal and ends the worker; after `drained` or `abandon`. Idempotent. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    await this.#ask({ kind: 'close' })
    await this.#worker.terminate()
  }

  async #ask(request: Ask<DrainRequest>): Promise<Answer> {
    const id = this.#nextId
    this.#nextId += 1
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, ({ result, error }) => {
        this.#waiting.delete(id)
        if (error === undefined) resolve(result)
        else reject(HoldfastError.from(error))
      })
      this.#worker.postMessage({ ...request, id })
      // Its mailbox is looked at between two takes: it is not to wait for records first.
      native.callDrain(this.#handle)
    })
  }
}

/** Buffers cross threads as Uint8Arrays. */
export function withBuffers(meta: JournalMeta): JournalMeta {
  const { horizon } = meta
  return {
    ...meta,
    uuid: Buffer.from(meta.uuid),
    horizon: horizon && { ...horizon, chain: Buffer.from(horizon.chain) },
  }
}
