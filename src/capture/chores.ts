/**
 * Blocking calls of the data plane off the main thread, so that the control socket answers while a
 * sync or a re-capture takes its time. One worker; calls run in order.
 */
import { Worker } from 'node:worker_threads'
import { programUrl } from '../lib/code.js'
import { type ErrorReport, HoldfastError } from '../lib/errors.js'
import type { Native } from '../lib/native.js'

/** The calls that may take long. */
export type ChoreName =
  | 'syncBacking'
  | 'recapturePaths'
  | 'unmountVolume'
  | 'takeCut'
  | 'writeOut'
  | 'mountView'
  | 'unmountView'
  | 'historyOfPath'
  | 'historyChanged'
  | 'historySeqAt'

export interface ChoreRequest {
  id: number
  name: ChoreName
  args: unknown[]
}

export type ChoreReply = { id: number; result: unknown } | { id: number; error: ErrorReport }

export class Chores {
  readonly #worker: Worker
  readonly #waiting = new Map<number, (reply: ChoreReply) => void>()
  #nextId = 1

  constructor() {
    this.#worker = new Worker(programUrl('capture/chores-worker'), { name: 'chores' })
    this.#worker.on('message', (reply: ChoreReply) => this.#waiting.get(reply.id)?.(reply))
    this.#worker.on('error', (cause) => {
      for (const [id, settle] of this.#waiting) {
        const options = { op: 'chores', cause }
        settle({ id, error: new HoldfastError('INTERNAL', String(cause), options).toJSON() })
      }
    })
  }

  /** Calls `native[name](...args)` in the worker. */
  async run<Name extends ChoreName>(
    name: Name,
    ...args: Parameters<Native[Name]>
  ): Promise<ReturnType<Native[Name]>> {
    const id = this.#nextId
    this.#nextId += 1
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, (reply) => {
        this.#waiting.delete(id)
        if ('error' in reply) reject(HoldfastError.from(reply.error))
        else resolve(reply.result as ReturnType<Native[Name]>)
      })
      this.#worker.postMessage({ id, name, args } satisfies ChoreRequest)
    })
  }

  async close(): Promise<void> {
    await this.#worker.terminate()
  }
}
