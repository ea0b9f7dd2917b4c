/** For what can be stopped in the middle: whether it is still to go on. */
import { HoldfastError } from './errors.js'

/** Between two steps. ABORTED. */
export function requireGoing(signal: AbortSignal | undefined, op: string): void {
  if (signal?.aborted === true) throw stopped(op)
}

/** What comes of `work`, unless it is stopped before; then nobody waits for it any more. ABORTED. */
export async function unlessStopped<Result>(
  work: Promise<Result>,
  { signal, op }: { signal: AbortSignal | undefined; op: string },
): Promise<Result> {
  if (signal === undefined) return work
  let stop = () => {}
  const over = new Promise<never>((_resolve, reject) => {
    stop = () => reject(stopped(op))
    if (signal.aborted) stop()
    else signal.addEventListener('abort', stop, { once: true })
  })
  try {
    return await Promise.race([work, over])
  } finally {
    signal.removeEventListener('abort', stop)
  }
}

function stopped(op: string): HoldfastError {
  return new HoldfastError('ABORTED', 'stopped', { op })
}
