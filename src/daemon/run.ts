/**
 * The life of a daemon process: start the volume, serve control, stop on request or signal.
 * Used by the detached process (`main.ts`) and by `holdfast mount --foreground`.
 */
import { execFile, execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { toHoldfastError } from '../lib/errors.js'
import { DESCRIPTORS_WANTED } from '../lib/limits.js'
import type { Logger } from '../lib/log.js'
import { ControlServer } from './control.js'
import { socketPath } from './places.js'
import type { Volume } from './registry.js'
import type { Status } from './status.js'
import { ProtectedVolume, type StartResult } from './volume.js'
import { addVolumeRoutes } from './volume-routes.js'

export interface RunOptions {
  volume: Volume
  force: boolean
  log: Logger
}

/** A running daemon. */
export interface Daemon {
  readonly result: StartResult
  status(): Status
  /** Resolves with the exit code when the volume is stopped. */
  readonly ended: Promise<number>
}

/** The kernel kills others first: a dead daemon takes its volume with it. */
const OOM_SCORE = '-900'
/** A second signal within this time detaches a busy volume. */
const INSIST_MS = 10_000

/** Starts a volume and its control socket in this process. */
export async function runDaemon({ volume, force, log }: RunOptions): Promise<Daemon> {
  prepareProcess()
  let end: (code: number) => void = () => {}
  const ended = new Promise<number>((resolve) => {
    end = resolve
  })
  const onFatal = (error: unknown) => {
    // The ring keeps what the journal lacks; the dead mount keeps applications out.
    log.fatal({ error: toHoldfastError(error, 'drain') }, 'the drain died: ending, to be recovered')
    process.exit(1)
  }
  const { protected: running, result } = await ProtectedVolume.start({
    volume,
    force,
    log,
    onFatal,
  })
  let control: ControlServer | undefined
  const stop = async (forced: boolean) => {
    const stopped = await running.stop({ force: forced })
    log.info('stopped in order')
    notifyServiceManager('STOPPING=1')
    // The answer to the request that asked for it goes out first; the lock goes last, so that no
    // other daemon finds this one's socket, or loses its own to it.
    setImmediate(() => void leave())
    return stopped
  }
  const leave = async () => {
    await control?.close()
    running.unlock()
    end(0)
  }
  control = await ControlServer.listen({
    socket: socketPath(volume.config.name),
    addRoutes: (app) => addVolumeRoutes(app, { volume: running, onStop: stop }),
  })
  onSignals(stop, log)
  notifyServiceManager('READY=1')
  log.info({ result }, 'protected')
  return { result, status: () => running.status(), ended }
}

function prepareProcess(): void {
  process.chdir('/')
  process.umask(0o077)
  try {
    writeFileSync('/proc/self/oom_score_adj', OOM_SCORE)
  } catch {
    // Not allowed: the volume then takes its chance with everybody else.
  }
  // Node raises the soft limit to the hard one itself; root may raise that, in most containers not.
  const limit = `--nofile=${DESCRIPTORS_WANTED}:${DESCRIPTORS_WANTED}`
  try {
    execFileSync('prlimit', [limit, '--pid', `${process.pid}`], { stdio: 'ignore' })
  } catch {
    // The data plane keeps its descriptors below whatever limit there is.
  }
}

function onSignals(stop: (force: boolean) => Promise<unknown>, log: Logger): void {
  let refusedAt = 0
  const onSignal = (signal: NodeJS.Signals) => {
    const insist = Date.now() - refusedAt < INSIST_MS
    log.info({ signal, insist }, 'asked to stop')
    stop(insist).catch((error: unknown) => {
      refusedAt = Date.now()
      log.error({ error: toHoldfastError(error, 'stop') }, 'not stopped; signal again to detach')
    })
  }
  process.on('SIGTERM', onSignal)
  process.on('SIGINT', onSignal)
  process.on('SIGHUP', () => log.info('SIGHUP ignored'))
}

/**
 * sd_notify(3) through systemd's own tool: Node has no datagram Unix sockets. As root the tool
 * speaks in its parent's name, so NotifyAccess=main is enough.
 */
function notifyServiceManager(state: string): void {
  if (process.env.NOTIFY_SOCKET === undefined) return
  execFile('systemd-notify', [`--pid=${process.pid}`, state], () => {})
}
