/** Fills on their way to the replay of a replica: it takes them in its own time, and gives their memory back. */
import type { Worker } from 'node:worker_threads'
import { receiveMemory } from './frame-memory.js'
import type { ApplyReply, ApplyRequest } from './replica-messages.js'

export class FillQueue {
  #bytes = 0

  /** What the replay has not taken yet. */
  get bytes(): number {
    return this.#bytes
  }

  /** A fill, copied, or in memory that is given away here. */
  send(apply: Worker, bytes: Buffer, own?: Buffer<ArrayBuffer>): void {
    const body = own ?? receiveMemory.copy(bytes)
    this.#bytes += body.length
    apply.postMessage({ kind: 'fill', body } satisfies ApplyRequest, [body.buffer])
  }

  taken({ bytes, memory }: Extract<ApplyReply, { kind: 'filled' }>): void {
    this.#bytes -= bytes
    receiveMemory.give(memory)
  }

  /** The replay has died with what it had. */
  forget(): void {
    this.#bytes = 0
  }
}
