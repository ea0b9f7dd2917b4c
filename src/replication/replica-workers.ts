/** Starting and ending the worker threads of a replica. */
import { Worker } from 'node:worker_threads'
import type { ErrorReport } from '../lib/errors.js'
import type { ApplyOptions, ApplyRequest, LogOptions, LogRequest } from './replica-messages.js'

export function worker(
  script: string,
  name: string,
  workerData: LogOptions | ApplyOptions,
): Worker {
  return new Worker(new URL(script, import.meta.url), { name, workerData })
}

export async function ended(
  worker: Worker,
  close: LogRequest | ApplyRequest,
  dead: boolean,
): Promise<void> {
  if (dead) return
  const exit = new Promise<void>((resolve) => worker.once('exit', () => resolve()))
  worker.postMessage(close)
  await exit
}

export function died(what: string, cause: unknown): ErrorReport {
  return { code: 'INTERNAL', op: 'replica', message: `the worker of the ${what} died: ${cause}` }
}
