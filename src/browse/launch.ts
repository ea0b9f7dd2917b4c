/** Starting the process of a browse tree, which outlives its starter, and waiting until it is ready. */
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, mkdirSync, openSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { browseDirectory } from '../daemon/places.js'
import { programUrl } from '../lib/code.js'
import { type ErrorReport, HoldfastError } from '../lib/errors.js'
import { BROWSE_START_MS_MAX, BROWSE_THREADS } from '../lib/limits.js'
import { browseLogPath } from './place.js'

/** Process of the tree → starter. */
export type BrowseReply = { kind: 'ready'; pid: number } | { kind: 'failed'; error: ErrorReport }

/** Its pid. Throws what it refused with; START_FAILED, TIMEOUT. */
export async function launchBrowse(path: string): Promise<number> {
  mkdirSync(browseDirectory(), { recursive: true, mode: 0o755 })
  const log = openSync(browseLogPath(path), 'a', 0o600)
  const script = fileURLToPath(programUrl('browse/main'))
  const child = spawn(process.execPath, [script, path], {
    cwd: '/',
    detached: true,
    stdio: ['ignore', log, log, 'ipc'],
    env: { ...process.env, UV_THREADPOOL_SIZE: `${BROWSE_THREADS}` },
  })
  closeSync(log)
  try {
    return await untilReady(child, path)
  } finally {
    if (child.connected) child.disconnect()
    child.unref()
  }
}

function untilReady(child: ChildProcess, path: string): Promise<number> {
  const hint = `See ${browseLogPath(path)}`
  return new Promise((resolve, reject) => {
    const fail = (code: 'START_FAILED' | 'TIMEOUT', message: string, cause?: unknown) => {
      clearTimeout(timer)
      reject(new HoldfastError(code, message, { op: 'browse', hint, cause }))
    }
    const timer = setTimeout(() => {
      child.kill('SIGTERM')
      fail('TIMEOUT', `the browse tree was not ready after ${BROWSE_START_MS_MAX / 1000} s`)
    }, BROWSE_START_MS_MAX)
    child.once('error', (cause) => {
      fail('START_FAILED', 'the process of the browse tree could not be started', cause)
    })
    child.once('exit', (code, signal) => {
      fail('START_FAILED', `it ended at its start (${signal ?? `exit code ${code}`})`)
    })
    child.once('message', (reply: BrowseReply) => {
      clearTimeout(timer)
      child.removeAllListeners('exit')
      if (reply.kind === 'ready') resolve(reply.pid)
      else reject(HoldfastError.from(reply.error))
    })
  })
}
