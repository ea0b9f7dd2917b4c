/**
 * One daemon per volume. The lock is an abstract Unix socket named after the state directory: the
 * kernel frees it when its holder dies, however it dies, so it is never stale. Abstract names belong
 * to a network namespace; the pid file covers daemons in another one.
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import type { Server } from 'node:net'
import { takeLock } from '../lib/abstract-lock.js'
import { HoldfastError } from '../lib/errors.js'
import { startTicks } from '../lib/process-id.js'
import { pidPath, runDirectory } from './places.js'
import type { Volume } from './registry.js'

/** What a pid file says. */
export interface DaemonProcess {
  pid: number
  /** Start time in clock ticks since boot: tells a reused pid apart. */
  startTicks: string
  stateDirectory: string
}

export class VolumeLock {
  readonly #server: Server
  readonly #pidFile: string | undefined

  private constructor(server: Server, pidFile: string | undefined) {
    this.#server = server
    this.#pidFile = pidFile
  }

  /** Takes the lock and writes the pid file; VOLUME_RUNNING when another process has it. */
  static async acquire({ config, stateDirectory }: Volume): Promise<VolumeLock> {
    const running = runningDaemon(config.name)
    if (running !== undefined && running.stateDirectory === stateDirectory) {
      throw runningError(config.name, running.pid)
    }
    const server = await bindName(config.name, stateDirectory)
    const pidFile = pidPath(config.name)
    const own: DaemonProcess = {
      pid: process.pid,
      startTicks: startTicks(process.pid) ?? '',
      stateDirectory,
    }
    mkdirSync(runDirectory(), { recursive: true, mode: 0o755 })
    writeFileSync(pidFile, `${JSON.stringify(own)}\n`, { mode: 0o644 })
    return new VolumeLock(server, pidFile)
  }

  /** Takes the lock for a moment without becoming the volume's daemon: no pid file. */
  static async acquireOffline({ config, stateDirectory }: Volume): Promise<VolumeLock> {
    return new VolumeLock(await bindName(config.name, stateDirectory), undefined)
  }

  /** Idempotent. */
  release(): void {
    if (this.#pidFile !== undefined) rmSync(this.#pidFile, { force: true })
    this.#server.close()
  }
}

async function bindName(name: string, stateDirectory: string): Promise<Server> {
  try {
    return await takeLock('volume', stateDirectory)
  } catch (cause) {
    throw runningError(name, runningDaemon(name)?.pid, cause)
  }
}

function runningError(name: string, pid: number | undefined, cause?: unknown): HoldfastError {
  const by = pid === undefined ? 'another process' : `process ${pid}`
  return new HoldfastError('VOLUME_RUNNING', `volume ${name} is served by ${by}`, {
    op: 'volume.lock',
    cause,
    hint: `See: holdfast status ${name}`,
    ...(pid === undefined ? {} : { details: { pid } }),
  })
}

/** The daemon that serves volume `name`, from its pid file; undefined when none is alive. */
export function runningDaemon(name: string): DaemonProcess | undefined {
  try {
    const found = JSON.parse(readFileSync(pidPath(name), 'utf8')) as DaemonProcess
    return startTicks(found.pid) === found.startTicks ? found : undefined
  } catch {
    return undefined
  }
}
