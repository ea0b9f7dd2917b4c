/**
 * Where a browse tree may be, and which process serves it: a small file in the run directory tells,
 * and a lock that is never stale makes sure that there is one process only.
 */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { lstatSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { z } from 'zod'
import { browseDirectory } from '../daemon/places.js'
import { checkMachine } from '../daemon/preflight.js'
import { listVolumes, resolveAhead } from '../daemon/registry.js'
import { HoldfastError } from '../lib/errors.js'
import { writeFileDurably } from '../lib/files.js'
import { BROWSE_LOOK_MS, BROWSE_START_MS_MAX } from '../lib/limits.js'
import { isWithin, mountAt, readMounts } from '../lib/mountinfo.js'
import { isAlive, ownerOf, type ProcessId, ProcessIdSchema } from '../lib/process-id.js'
import { BROWSE_TYPE } from './fuse.js'

const op = 'browse'
const RecordSchema = z.object({ path: z.string(), process: ProcessIdSchema })

/** The place of a browse tree as the mount table will name it. */
export function browsePath(given: string): string {
  return resolveAhead(given)
}

function recordPath(path: string): string {
  const hash = createHash('sha256').update(path).digest('hex').slice(0, 16)
  return join(browseDirectory(), `${hash}.json`)
}

export function browseLogPath(path: string): string {
  return recordPath(path).replace(/json$/, 'log')
}

/** The process that serves the tree at `path`; undefined when none is alive. */
export function browseProcess(path: string): ProcessId | undefined {
  try {
    const stored: unknown = JSON.parse(readFileSync(recordPath(path), 'utf8'))
    const { process } = RecordSchema.parse(stored)
    return isAlive(process) ? process : undefined
  } catch {
    return undefined
  }
}

/** Says that this process serves it. */
export function recordBrowse(path: string): void {
  mkdirSync(browseDirectory(), { recursive: true, mode: 0o755 })
  const record = { path, process: ownerOf(process.pid) }
  writeFileDurably(recordPath(path), `${JSON.stringify(record)}\n`)
}

export function forgetBrowse(path: string): void {
  rmSync(recordPath(path), { force: true })
}

export function isMounted(path: string): boolean {
  return mountAt(path)?.type === BROWSE_TYPE
}

/** Detaches the tree: nobody gets in any more. */
export function detach(path: string): void {
  if (isMounted(path)) execFileSync('umount', ['-l', '--', path], { stdio: 'ignore' })
}

/**
 * Makes `path` ready to be mounted on: replaces a dead tree, makes the directory. Whether it made it.
 * NO_PRIVILEGE, NO_FUSE, USAGE (inside a volume), ALREADY_MOUNTED, NOT_A_DIRECTORY.
 */
export function preparePlace(path: string): boolean {
  checkMachine()
  requireOutside(path)
  if (browseProcess(path) !== undefined && isMounted(path)) {
    throw new HoldfastError('ALREADY_MOUNTED', `there is a browse tree at ${path} already`, {
      op,
      hint: `End it: holdfast browse --stop ${path}`,
    })
  }
  detach(path)
  const mount = mountAt(path)
  if (mount !== undefined) {
    throw new HoldfastError('ALREADY_MOUNTED', `${mount.type} is mounted at ${path}`, {
      op,
      hint: 'Choose another directory, or unmount it.',
    })
  }
  return makeDirectory(path)
}

/** A volume's daemon must never meet this tree, nor this tree hide a volume. USAGE. */
function requireOutside(path: string): void {
  for (const { config } of listVolumes()) {
    for (const tree of [config.mountpoint, config.backing]) {
      if (!isWithin(path, tree)) continue
      throw new HoldfastError('USAGE', `${path} is inside the volume ${config.name}`, {
        op,
        hint: 'Show the browse tree somewhere else.',
      })
    }
  }
}

/** Whether it had to be made. NOT_A_DIRECTORY for anything but an empty directory. */
function makeDirectory(path: string): boolean {
  const found = lstatSync(path, { throwIfNoEntry: false })
  if (found === undefined) {
    mkdirSync(path, { recursive: true })
    return true
  }
  if (found.isDirectory() && readdirSync(path).length === 0) return false
  throw new HoldfastError('NOT_A_DIRECTORY', `${path} is no empty directory`, {
    op,
    hint: 'Give an empty directory, or one that does not exist: it is made.',
  })
}

/** Ends the tree at `path`, also a dead one. NOT_FOUND, STOP_FAILED. */
export async function stopBrowse(path: string): Promise<void> {
  const serving = browseProcess(path)
  if (serving === undefined && !isMounted(path)) {
    throw new HoldfastError('NOT_FOUND', `there is no browse tree at ${path}`, { op })
  }
  if (serving === undefined) {
    detach(path)
    forgetBrowse(path)
    return
  }
  process.kill(serving.pid, 'SIGTERM')
  const end = Date.now() + BROWSE_START_MS_MAX
  while (isAlive(serving) && Date.now() < end) await sleep(BROWSE_LOOK_MS / 10)
  if (!isAlive(serving)) return
  throw new HoldfastError('STOP_FAILED', `process ${serving.pid} does not end`, {
    op,
    hint: `See ${browseLogPath(path)}; kill it, and unmount: umount -l ${path}`,
  })
}

/** Number of the mount at `path`, by which it is told from a later one. */
export function mountId(path: string): number | undefined {
  return mountAt(path)?.id
}

export function isStillMounted(id: number): boolean {
  return readMounts().some((mount) => mount.id === id)
}
