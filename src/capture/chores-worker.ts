/** The worker of `chores.ts`. */
import { parentPort } from 'node:worker_threads'
import { toHoldfastError } from '../lib/errors.js'
import { native } from '../lib/native.js'
import type { ChoreReply, ChoreRequest } from './chores.js'

const port = parentPort
if (port === null) throw new Error('chores run in a worker thread only')

/** Byte names cross threads as Uint8Arrays; the module wants Buffers. */
function revive(value: unknown): unknown {
  if (value instanceof Uint8Array) return Buffer.from(value)
  if (Array.isArray(value)) return value.map(revive)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, revive(each)]))
}

port.on('message', ({ id, name, args }: ChoreRequest) => {
  let reply: ChoreReply
  try {
    const call = native[name] as (...args: unknown[]) => unknown
    reply = { id, result: call(...args.map(revive)) }
  } catch (error) {
    reply = { id, error: toHoldfastError(error, `native.${name}`).toJSON() }
  }
  port.postMessage(reply)
})
