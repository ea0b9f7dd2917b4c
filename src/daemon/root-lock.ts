/**
 * One server for the replicas below a root, and one on a host: a log and a replay have one writer.
 * Abstract Unix sockets named after both are the lock: the kernel frees them when their holder dies.
 * A file in each place says who holds it, also to processes in another network namespace.
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import type { Server } from 'node:net'
import { dirname, join } from 'node:path'
import { takeLock } from '../lib/abstract-lock.js'
import { HoldfastError } from '../lib/errors.js'
import { startTicks } from '../lib/process-id.js'
import { replicaPidPath } from './places.js'

const FILE = '.serving'

/** Who serves the replicas. */
export interface RootHolder {
  pid: number
  startTicks: string
  root: string
  /** How it was started: as a service, or at the end of an ssh connection. */
  way: 'serve' | 'ssh'
}

export class RootLock {
  readonly #servers: Server[]
  readonly #files: string[]

  private constructor(servers: Server[], files: string[]) {
    this.#servers = servers
    this.#files = files
  }

  /** VOLUME_RUNNING, naming who has it. */
  static async acquire(root: string, way: RootHolder['way']): Promise<RootLock> {
    const files = [replicaPidPath(), join(root, FILE)]
    for (const path of files) mkdirSync(dirname(path), { recursive: true, mode: 0o755 })
    const holder = () => files.map(readHolder).find((each) => each !== undefined)
    const found = holder()
    if (found !== undefined) throw heldError(root, found)
    const servers: Server[] = []
    try {
      for (const path of files) servers.push(await takeLock('replicas', path))
    } catch {
      for (const server of servers) server.close()
      throw heldError(root, holder())
    }
    const own: RootHolder = {
      pid: process.pid,
      startTicks: startTicks(process.pid) ?? '',
      root,
      way,
    }
    for (const path of files) writeFileSync(path, `${JSON.stringify(own)}\n`, { mode: 0o644 })
    return new RootLock(servers, files)
  }

  /** Idempotent. */
  release(): void {
    for (const path of this.#files.splice(0)) rmSync(path, { force: true })
    for (const server of this.#servers.splice(0)) server.close()
  }
}

/** Who serves replicas on this host; undefined when nobody does. */
export function replicaServer(): RootHolder | undefined {
  return readHolder(replicaPidPath())
}

function readHolder(path: string): RootHolder | undefined {
  try {
    const found = JSON.parse(readFileSync(path, 'utf8')) as RootHolder
    return startTicks(found.pid) === found.startTicks ? found : undefined
  } catch {
    return undefined
  }
}

function heldError(root: string, holder: RootHolder | undefined): HoldfastError {
  const by =
    holder === undefined
      ? 'another process'
      : `process ${holder.pid} (${holder.way === 'ssh' ? 'started over ssh' : 'replica serve'})`
  const what =
    holder === undefined || holder.root === root ? root : `${holder.root}, not in ${root},`
  return new HoldfastError('VOLUME_RUNNING', `the replicas in ${what} are served by ${by}`, {
    op: 'replica.serve',
    hint:
      holder?.way === 'ssh'
        ? 'It ends when the connections over ssh do: stop them, or wait.'
        : 'A host has one replica server; see: holdfast replica list',
    ...(holder === undefined ? {} : { details: { ...holder } }),
  })
}
