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

export function logPath(stateDirectory: string): string {
  return join(stateDirectory, 'daemon.log')
}

export function ringPath(ringDirectory: string, uuid: string): string {
  return join(ringDirectory, `holdfast-${uuid}.ring`)
}
