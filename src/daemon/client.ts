/** Client of the control socket: what the command line and the library use. */
import { request as httpRequest } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { type ErrorReport, errnoOf, HoldfastError } from '../lib/errors.js'
import { CONTROL_TIMEOUT_MS, STOP_TIMEOUT_MS } from '../lib/limits.js'
import { runningDaemon } from './lock.js'
import { socketPath } from './places.js'
import type { Status } from './status.js'

const GONE_POLL_MS = 10

export interface CallOptions {
  signal?: AbortSignal | undefined
  timeoutMs?: number
}

export interface PruneRequest {
  toSeq?: number | undefined
  maxBytes?: number | undefined
  maxAgeMs?: number | undefined
}

export interface PruneReply {
  frames: number
  bytes: number
  horizon: number
  heldByCheckpoint: boolean
}

/** Speaks to the daemon of one volume. VOLUME_NOT_RUNNING when there is none. */
export class ControlClient {
  readonly name: string

  constructor(name: string) {
    this.name = name
  }

  status(options?: CallOptions): Promise<Status> {
    return this.#call('GET', '/v1/status', undefined, options)
  }

  /** Prometheus text. */
  metrics(options?: CallOptions): Promise<string> {
    return this.#call('GET', '/v1/metrics', undefined, options)
  }

  /** Orderly stop; BUSY unless `force`. Resolves when the daemon is gone. */
  async stop({ force = false, ...options }: CallOptions & { force?: boolean } = {}): Promise<void> {
    await this.#call('POST', '/v1/stop', { force }, { timeoutMs: STOP_TIMEOUT_MS, ...options })
    const end = Date.now() + CONTROL_TIMEOUT_MS
    while (runningDaemon(this.name) !== undefined && Date.now() < end) await sleep(GONE_POLL_MS)
  }

  marker(name: string, options?: CallOptions): Promise<{ name: string; seq: number }> {
    return this.#call('POST', '/v1/marker', { name }, options)
  }

  /** Waits until everything captured now is journaled durably. */
  flush(options?: CallOptions): Promise<{ seq: number }> {
    return this.#call('POST', '/v1/flush', {}, options)
  }

  checkpoint(options?: CallOptions): Promise<{ seq: number; time: string }> {
    return this.#call('POST', '/v1/checkpoint', {}, options)
  }

  prune(request: PruneRequest, options?: CallOptions): Promise<PruneReply> {
    return this.#call('POST', '/v1/prune', request, { timeoutMs: STOP_TIMEOUT_MS, ...options })
  }

  setRetention(
    retention: { maxBytes: number | null; maxAgeMs: number | null },
    options?: CallOptions,
  ): Promise<typeof retention> {
    return this.#call('PUT', '/v1/retention', retention, options)
  }

  /** Images the whole tree; follow `status().recapture`. */
  recapture(reason: string, options?: CallOptions): Promise<Status['recapture']> {
    return this.#call('POST', '/v1/recapture', { reason }, options)
  }

  /** Holds I/O for at most `maxMs`; `startNs` is CLOCK_MONOTONIC as a decimal string. */
  hold(maxMs: number, options?: CallOptions): Promise<{ seq: number; startNs: string }> {
    return this.#call('POST', '/v1/hold', { maxMs }, options)
  }

  /** Ends a hold; HOLD_EXPIRED when its deadline had passed. */
  release(options?: CallOptions): Promise<{ heldNs: number }> {
    return this.#call('POST', '/v1/release', {}, options)
  }

  #call<T>(method: string, path: string, body: unknown, options: CallOptions = {}): Promise<T> {
    const { timeoutMs = CONTROL_TIMEOUT_MS } = options
    const deadline = AbortSignal.timeout(timeoutMs)
    const signal =
      options.signal === undefined ? deadline : AbortSignal.any([options.signal, deadline])
    const op = `control ${path.slice('/v1/'.length)}`
    return new Promise((resolve, reject) => {
      const fail = (error: Error) => reject(this.#error(error, op, options.signal, timeoutMs))
      const request = httpRequest(
        {
          socketPath: socketPath(this.name),
          // A connection of its own: one that is kept may be just then closed by a daemon that ends.
          agent: false,
          method,
          path,
          headers: body === undefined ? {} : { 'content-type': 'application/json' },
          signal,
        },
        (response) => {
          const parts: Buffer[] = []
          response.on('data', (part: Buffer) => parts.push(part))
          response.on('error', fail)
          response.on('end', () => {
            const text = Buffer.concat(parts).toString('utf8')
            const json = response.headers['content-type']?.includes('json') === true
            const value: unknown = json ? JSON.parse(text) : text
            if ((response.statusCode ?? 500) < 400) resolve(value as T)
            else reject(HoldfastError.from(value as ErrorReport))
          })
        },
      )
      request.on('error', fail)
      request.end(body === undefined ? undefined : JSON.stringify(body))
    })
  }

  #error(
    error: Error,
    op: string,
    aborted: AbortSignal | undefined,
    timeoutMs: number,
  ): HoldfastError {
    const errno = errnoOf(error)
    if (errno === 'ENOENT' || errno === 'ECONNREFUSED') {
      return new HoldfastError('VOLUME_NOT_RUNNING', `volume ${this.name} is not mounted`, {
        op,
        cause: error,
        hint: `Start it: holdfast mount ${this.name}`,
      })
    }
    if (aborted?.aborted === true)
      return new HoldfastError('ABORTED', 'stopped', { op, cause: error })
    if (error.name === 'TimeoutError' || error.name === 'AbortError') {
      const message = `the daemon of ${this.name} did not answer within ${timeoutMs / 1000} s`
      return new HoldfastError('TIMEOUT', message, { op, cause: error })
    }
    const message = `cannot speak to the daemon of ${this.name}: ${error.message}`
    return new HoldfastError('CONTROL', message, {
      op,
      cause: error,
      hint: errno === 'EACCES' ? 'Run as root: the control socket is for root only.' : undefined,
    })
  }
}
