/**
 * Questions and answers between two hosts over a channel: each question has a number, and gets one
 * answer or one error. Both go as JSON bodies; whoever takes a question checks what is in it.
 */
import { type ErrorReport, HoldfastError, toHoldfastError } from '../lib/errors.js'
import type { Channel } from '../replication/channel.js'
import type { Message } from '../replication/message.js'

/** Who answers. `close`: nobody asks any more. */
export interface Service {
  answer(method: string, params: unknown): Promise<unknown>
  close(): void
}

export interface AskOptions {
  timeoutMs: number
  signal?: AbortSignal | undefined
}

type Settle = (result: { value: unknown } | { error: HoldfastError }) => void

/** The side that asks. */
export class Calls {
  readonly #channel: Channel
  readonly #waiting = new Map<number, Settle>()
  #next = 1
  #closed: HoldfastError | undefined

  constructor(channel: Channel) {
    this.#channel = channel
  }

  /** The error of the other side, TIMEOUT, CONNECTION, ABORTED. */
  ask(method: string, params: unknown, { timeoutMs, signal }: AskOptions): Promise<unknown> {
    if (this.#closed !== undefined) return Promise.reject(this.#closed)
    if (signal?.aborted === true) return Promise.reject(aborted(method))
    const id = this.#next
    this.#next += 1
    return new Promise((resolve, reject) => {
      const stop = () => settle({ error: aborted(method) })
      const late = () =>
        settle({
          error: new HoldfastError('TIMEOUT', `no answer within ${timeoutMs / 1000} s`, {
            op: `group.${method}`,
          }),
        })
      const timer = setTimeout(late, timeoutMs)
      const settle: Settle = (result) => {
        clearTimeout(timer)
        signal?.removeEventListener('abort', stop)
        this.#waiting.delete(id)
        if ('error' in result) reject(result.error)
        else resolve(result.value)
      }
      signal?.addEventListener('abort', stop)
      this.#waiting.set(id, settle)
      this.#channel.send({ type: 'ask', id, method }, encode(params))
    })
  }

  receive({ header, body }: Message): void {
    if (header.type !== 'answer') return
    const settle = this.#waiting.get(header.id)
    const value = decode(body)
    if (header.failed) settle?.({ error: HoldfastError.from(value as ErrorReport) })
    else settle?.({ value })
  }

  /** What is asked now gets no answer any more. */
  close(error: HoldfastError): void {
    this.#closed = error
    for (const settle of [...this.#waiting.values()]) settle({ error })
  }
}

/** The side that answers: takes one question, and sends what comes of it. */
export function serveAsk(channel: Channel, service: Service, { header, body }: Message): void {
  if (header.type !== 'ask') return
  const { id, method } = header
  const send = (failed: boolean, value: unknown) =>
    channel.send({ type: 'answer', id, failed }, encode(value))
  Promise.resolve()
    .then(() => service.answer(method, decode(body)))
    .then(
      (value) => send(false, value ?? null),
      (error: unknown) => send(true, toHoldfastError(error, `group.${method}`).toJSON()),
    )
}

/** What is asked does not fit what was asked before. */
export function outOfTurn(op: string): HoldfastError {
  return new HoldfastError('PROTOCOL', 'the coordinator asks out of turn', { op })
}

function encode(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value ?? null))
}

function decode(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString())
  } catch (cause) {
    throw new HoldfastError('PROTOCOL', 'the peer sent what is no JSON', { op: 'group', cause })
  }
}

function aborted(method: string): HoldfastError {
  return new HoldfastError('ABORTED', 'stopped', { op: `group.${method}` })
}
