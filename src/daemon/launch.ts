/** Starting a daemon that outlives its starter, and waiting until it is ready. */
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, mkdirSync, openSync, rmSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { programUrl } from '../lib/code.js'
import { type ErrorReport, HoldfastError } from '../lib/errors.js'
import { removeEmpty } from '../lib/files.js'
import { START_TIMEOUT_MS } from '../lib/limits.js'
import type { OpenVolumeResult } from '../lib/native.js'
import { logPath } from './places.js'
import { readVolume, type Volume } from './registry.js'
import type { Status } from './status.js'

/** Starter → daemon. */
export interface LaunchRequest {
  volume: Volume
  force: boolean
}

/** What the start found and did. */
export interface StartSummary {
  isNew: boolean
  recoveredMount: boolean
  recapture: string | null
  ring: OpenVolumeResult['ring']
  pendingRecords: number
  intents: number
}

/** Daemon → starter. */
export type LaunchReply =
  | { kind: 'ready'; status: Status; start: StartSummary }
  | { kind: 'failed'; error: ErrorReport }

export interface Launched {
  status: Status
  start: StartSummary
}

/** Starts the volume in a process of its own. Throws what the start refused with, or TIMEOUT. */
export async function launchDaemon(request: LaunchRequest): Promise<Launched> {
  const { stateDirectory, config } = request.volume
  mkdirSync(stateDirectory, { recursive: true, mode: 0o700 })
  const log = openSync(logPath(stateDirectory), 'a', 0o600)
  const script = fileURLToPath(programUrl('daemon/main'))
  // Detached is setsid(2): no terminal's signal reaches it. The title names the volume in ps.
  const child = spawn(process.execPath, [script, config.name], {
    cwd: '/',
    detached: true,
    stdio: ['ignore', log, log, 'ipc'],
  })
  closeSync(log)
  try {
    return await untilReady(child, request)
  } catch (error) {
    removeTraces(stateDirectory)
    throw error
  } finally {
    if (child.connected) child.disconnect()
    child.unref()
  }
}

/** A volume that was never made leaves no directory; its log says no more than the error. */
function removeTraces(stateDirectory: string): void {
  if (readVolume(stateDirectory) !== undefined) return
  rmSync(logPath(stateDirectory), { force: true })
  removeEmpty(stateDirectory)
}

async function untilReady(child: ChildProcess, request: LaunchRequest): Promise<Launched> {
  const hint = `See ${logPath(request.volume.stateDirectory)}`
  return new Promise((resolve, reject) => {
    const fail = (message: string, code: 'START_FAILED' | 'TIMEOUT', cause?: unknown) =>
      reject(new HoldfastError(code, message, { op: 'mount', hint, cause }))
    const timer = setTimeout(() => {
      child.kill('SIGTERM')
      fail(`the daemon was not ready after ${START_TIMEOUT_MS / 1000} s`, 'TIMEOUT')
    }, START_TIMEOUT_MS)
    const settle = () => clearTimeout(timer)
    child.once('error', (cause) => {
      settle()
      fail('the daemon could not be started', 'START_FAILED', cause)
    })
    child.once('exit', (code, signal) => {
      settle()
      fail(`the daemon ended at its start (${signal ?? `exit code ${code}`})`, 'START_FAILED')
    })
    child.once('message', (reply: LaunchReply) => {
      settle()
      child.removeAllListeners('exit')
      if (reply.kind === 'ready') resolve({ status: reply.status, start: reply.start })
      else reject(HoldfastError.from(reply.error))
    })
    child.send(request)
  })
}
