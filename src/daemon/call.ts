/** One request over a control socket, whoever serves it. */
import { request as httpRequest } from 'node:http'
import { type ErrorReport, errnoOf, HoldfastError } from '../lib/errors.js'
import { CONTROL_TIMEOUT_MS } from '../lib/limits.js'

export interface CallOptions {
  signal?: AbortSignal | undefined
  timeoutMs?: number
}

export interface Call {
  socket: string
  method: string
  path: string
  body: unknown
  options: CallOptions
  /** Who serves it, for messages. */
  daemon: string
  /** The error when nobody serves it. */
  absent(): HoldfastError
}

/** The answer's JSON, or its text. Errors are those the daemon reports, TIMEOUT, ABORTED, CONTROL. */
export function callControl<T>(call: Call): Promise<T> {
  const { socket: socketPath, method, path, body, options } = call
  const { timeoutMs = CONTROL_TIMEOUT_MS } = options
  const deadline = AbortSignal.timeout(timeoutMs)
  const signal =
    options.signal === undefined ? deadline : AbortSignal.any([options.signal, deadline])
  return new Promise((resolve, reject) => {
    const fail = (error: Error) => reject(callError(error, call, timeoutMs))
    const request = httpRequest(
      {
        socketPath,
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

function callError(error: Error, call: Call, timeoutMs: number): HoldfastError {
  const { daemon, path, options, absent } = call
  const op = `control ${path.slice('/v1/'.length)}`
  const errno = errnoOf(error)
  if (errno === 'ENOENT' || errno === 'ECONNREFUSED') return absent()
  if (options.signal?.aborted === true) {
    return new HoldfastError('ABORTED', 'stopped', { op, cause: error })
  }
  if (error.name === 'TimeoutError' || error.name === 'AbortError') {
    const message = `${daemon} did not answer within ${timeoutMs / 1000} s`
    return new HoldfastError('TIMEOUT', message, { op, cause: error })
  }
  return new HoldfastError('CONTROL', `cannot speak to ${daemon}: ${error.message}`, {
    op,
    cause: error,
    hint: errno === 'EACCES' ? 'Run as root: the control socket is for root only.' : undefined,
  })
}
