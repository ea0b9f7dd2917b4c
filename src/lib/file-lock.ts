/** One process at a time changes what is kept in a file; the kernel ends the lock with its holder. */
import { closeSync } from 'node:fs'
import { HoldfastError } from './errors.js'
import { FILE_LOCK_MS } from './limits.js'
import { native } from './native.js'

const POLL_MS = 5
const NEVER = new Int32Array(new SharedArrayBuffer(4))

/** Runs `work` while nobody else does so for this path. BUSY: another one takes too long. */
export function whileLocked<Result>(path: string, work: () => Result): Result {
  const end = performance.now() + FILE_LOCK_MS
  let fd = native.lockFile(`${path}.lock`)
  while (fd === null) {
    if (performance.now() > end) {
      throw new HoldfastError('BUSY', `another process is changing ${path}`, { op: 'file.lock' })
    }
    Atomics.wait(NEVER, 0, 0, POLL_MS)
    fd = native.lockFile(`${path}.lock`)
  }
  try {
    return work()
  } finally {
    closeSync(fd)
  }
}
