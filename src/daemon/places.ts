/**
 * Where things are: state (kept), run directory (until reboot), ring (tmpfs).
 * HOLDFAST_STATE_ROOT and HOLDFAST_RUN_DIR move the roots; tests use them.
 */
import { join } from 'node:path'

/** Directory whose entries are the volumes: state directories, or symbolic links to them. */
export function stateRoot(): string {
  return process.env.HOLDFAST_STATE_ROOT ?? '/var/lib/holdfast'
}

/** Directory of control sockets and pid files. */
export function runDirectory(): string {
  return process.env.HOLDFAST_RUN_DIR ?? '/run/holdfast'
}

/** Hooks of all volumes; HOLDFAST_HOOKS_DIR moves it. */
export function hooksDirectory(): string {
  return process.env.HOLDFAST_HOOKS_DIR ?? '/etc/holdfast/hooks.d'
}

/** Programs that coordinators of groups may have run here; HOLDFAST_GROUP_EXEC_DIR moves it. */
export function groupExecDirectory(): string {
  return process.env.HOLDFAST_GROUP_EXEC_DIR ?? '/etc/holdfast/group-exec.d'
}

/** What this host is to others: its identity, its peers. No volume can be named so. */
export function hostDirectory(): string {
  return join(stateRoot(), '.host')
}

export function socketPath(name: string): string {
  return join(runDirectory(), `${name}.sock`)
}

/** Control socket of the replica host. */
export function replicaSocketPath(): string {
  return join(runDirectory(), '.replica-host.sock')
}

/** Says which process serves replicas on this host. */
export function replicaPidPath(): string {
  return join(runDirectory(), '.replica-host.pid')
}

export function pidPath(name: string): string {
  return join(runDirectory(), `${name}.pid`)
}

export function journalPath(stateDirectory: string): string {
  return join(stateDirectory, 'journal')
}

/** Codes of what the volume's files hold. */
export function codesPath(stateDirectory: string): string {
  return join(stateDirectory, 'codes')
}

export function historyPath({ config, stateDirectory }: HistoryPlace): string {
  const { historyDirectory } = config.options
  return historyDirectory === null
    ? join(stateDirectory, 'history')
    : join(historyDirectory, `holdfast-${config.uuid}`)
}

interface HistoryPlace {
  config: { uuid: string; options: { historyDirectory: string | null } }
  stateDirectory: string
}

/** Where views are shown, unless somebody says otherwise: the same place every time. */
export function viewPath(volume: string, name: string): string {
  return join(runDirectory(), 'views', volume, name)
}

/** Which processes serve browse trees, and their logs. */
export function browseDirectory(): string {
  return join(runDirectory(), 'browse')
}

/** Where commands see the snapshot that was taken for them: by volumes, whatever their order. */
export function execPath(...volumes: string[]): string {
  return join(runDirectory(), 'exec', [...new Set(volumes)].sort().join('+'))
}

export function logPath(stateDirectory: string): string {
  return join(stateDirectory, 'daemon.log')
}

export function ringPath(ringDirectory: string, uuid: string): string {
  return join(ringDirectory, `holdfast-${uuid}.ring`)
}
