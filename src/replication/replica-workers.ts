/** Starting and ending the worker threads of a replica. */
import { Worker } from 'node:worker_threads'
import { programUrl } from '../lib/code.js'
import type { ErrorReport } from '../lib/errors.js'
import type { ApplyOptions, ApplyRequest, LogOptions, LogRequest } from './replica-messages.js'

export function worker(
  program: 'replication/log-worker' | 'replication/apply-worker',
  name: string,
  workerData: LogOptions | ApplyOptions,
): Worker {
  return new Worker(programUrl(program), { name, workerData })
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
