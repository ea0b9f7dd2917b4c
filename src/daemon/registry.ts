/**
 * The volumes of this machine: one state directory each, with `volume.json` in it.
 *
 * A volume made with `--state DIR` lives in DIR; the state root then holds a symbolic link to it,
 * so that every volume is found by its name.
 */
import { createHash, randomUUID } from 'node:crypto'
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
} from 'node:fs'
import { basename, dirname, isAbsolute, join, resolve } from 'node:path'
import { z } from 'zod'
import { HoldfastError } from '../lib/errors.js'
import { writeFileDurably } from '../lib/files.js'
import {
  HISTORY_BYTES_DEFAULT,
  HISTORY_BYTES_MIN,
  RETAIN_BYTES_DEFAULT,
  RING_BYTES_DEFAULT,
  RING_BYTES_MIN,
  RING_WAIT_MS,
} from '../lib/limits.js'
import { NAME } from '../lib/names.js'
import { stateRoot } from './places.js'

export const VOLUME_VERSION = 1
const FILE = 'volume.json'

const absolute = z.string().refine(isAbsolute, 'must be an absolute path')

const OptionsSchema = z.object({
  /** Bytes of the capture ring. */
  ringBytes: z.int().min(RING_BYTES_MIN).default(RING_BYTES_DEFAULT),
  /** tmpfs directory of the ring. */
  ringDirectory: absolute.default('/dev/shm'),
  /** How long a writer waits for ring space before ENOSPC. */
  ringWaitMs: z.int().min(0).default(RING_WAIT_MS),
  /** Kernel write-back caching, see docs/SEMANTICS.md. */
  writeback: z.boolean().default(false),
  /** Request threads; 0: the data plane chooses. */
  workers: z.int().min(0).max(256).default(0),
  /** How requests travel: over io_uring where the kernel has it, or by /dev/fuse alone. */
  transport: z.enum(['auto', 'device']).default('auto'),
  /** What the history keeps: nothing, the state at each snapshot, or at every moment. */
  history: z.enum(['none', 'snapshots', 'continuous']).default('snapshots'),
  /** Where it is; null: with the rest of the state. */
  historyDirectory: absolute.nullable().default(null),
  historyBytes: z.int().min(HISTORY_BYTES_MIN).default(HISTORY_BYTES_DEFAULT),
  /** Moments kept by a continuous history, besides snapshots; null: no limit of age. */
  historyAgeMs: z.int().min(0).nullable().default(null),
  /** Where there is no room for more: the oldest moments go, or changes are refused. */
  historyFull: z.enum(['drop', 'refuse']).default('drop'),
  /** Journal size kept; null: no limit. */
  retainBytes: z.int().min(0).nullable().default(RETAIN_BYTES_DEFAULT),
  /** Journal age kept; null: no limit. */
  retainAgeMs: z.int().min(0).nullable().default(null),
  /** Directory of this volume's own hooks; docs/HOOKS.md. */
  hooks: absolute.nullable().default(null),
})

const VolumeSchema = z.object({
  version: z.literal(VOLUME_VERSION),
  uuid: z.uuid(),
  name: z.string().regex(NAME),
  backing: absolute,
  mountpoint: absolute,
  created: z.iso.datetime(),
  options: OptionsSchema,
})

export type VolumeOptions = z.infer<typeof OptionsSchema>
/** The contents of volume.json. */
export type VolumeConfig = z.infer<typeof VolumeSchema>

/** A volume and where its state is. */
export interface Volume {
  config: VolumeConfig
  stateDirectory: string
}

/** Defaults for what is not given; USAGE for values out of range. */
export function volumeOptions(given: Partial<VolumeOptions>): VolumeOptions {
  const parsed = OptionsSchema.safeParse(given)
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  const message = `${issue?.path.join('.')}: ${issue?.message}`
  throw new HoldfastError('USAGE', message, { op: 'volume.options' })
}

/** Reads volume.json; undefined when there is none. UNKNOWN_FORMAT for another version. */
export function readVolume(stateDirectory: string): Volume | undefined {
  const path = join(stateDirectory, FILE)
  if (!existsSync(path)) return undefined
  const op = 'volume.read'
  let stored: unknown
  try {
    stored = JSON.parse(readFileSync(path, 'utf8'))
  } catch (cause) {
    const options = { op, cause, hint: `Restore ${path} from a backup.` }
    throw new HoldfastError('UNKNOWN_FORMAT', `${path} is no JSON`, options)
  }
  const version = (stored as { version?: unknown }).version
  if (version !== VOLUME_VERSION) {
    const message = `${path} has version ${String(version)}; this holdfast reads ${VOLUME_VERSION}`
    throw new HoldfastError('UNKNOWN_FORMAT', message, {
      op,
      hint: 'Use the holdfast that wrote it, or a newer one.',
    })
  }
  const parsed = VolumeSchema.safeParse(stored)
  if (!parsed.success) {
    const [issue] = parsed.error.issues
    const message = `${path}: ${issue?.path.join('.')}: ${issue?.message}`
    throw new HoldfastError('UNKNOWN_FORMAT', message, { op, hint: `Correct ${path}.` })
  }
  return { config: parsed.data, stateDirectory }
}

/** Writes volume.json durably: a new file renamed over the old one. */
export function writeVolume({ config, stateDirectory }: Volume): void {
  mkdirSync(stateDirectory, { recursive: true, mode: 0o700 })
  const path = join(stateDirectory, FILE)
  writeFileDurably(path, `${JSON.stringify(config, null, 2)}\n`)
  link(config.name, stateDirectory)
}

/** A name in the state root that leads to a state directory elsewhere. */
function link(name: string, stateDirectory: string): void {
  const entry = join(stateRoot(), name)
  if (resolve(entry) === resolve(stateDirectory)) return
  mkdirSync(stateRoot(), { recursive: true, mode: 0o755 })
  const found = lstatSync(entry, { throwIfNoEntry: false })
  if (found?.isSymbolicLink()) rmSync(entry)
  else if (found !== undefined) {
    throw new HoldfastError('VOLUME_EXISTS', `a volume named ${name} exists at ${entry}`, {
      op: 'volume.create',
      hint: 'Choose another name with --name.',
    })
  }
  symlinkSync(stateDirectory, entry)
}

/** All volumes of the state root. Unreadable ones are left out; `readVolume` says why. */
export function listVolumes(): Volume[] {
  if (!existsSync(stateRoot())) return []
  const volumes: Volume[] = []
  for (const name of readdirSync(stateRoot()).sort()) {
    try {
      const volume = readVolume(realpathSync(join(stateRoot(), name)))
      if (volume !== undefined) volumes.push(volume)
    } catch {
      // A broken link or an unknown version: not a volume that can be listed.
    }
  }
  return volumes
}

/**
 * The volume called `which`: a name, its mountpoint, its backing directory or its state directory.
 * Paths are compared as text first, so that a mount that does not answer is not touched; a symbolic
 * link is followed only when that finds nothing. VOLUME_NOT_FOUND.
 */
export function findVolume(which: string): Volume {
  const volumes = listVolumes()
  const path = resolve(which)
  const found =
    volumes.find(({ config }) => config.name === which) ??
    findByPath(volumes, path) ??
    findByPath(volumes, resolveAhead(which))
  if (found !== undefined) return found
  if (which.includes('/')) {
    const volume = readVolume(path)
    if (volume !== undefined) return volume
  } else if (NAME.test(which)) {
    // Says what is wrong with a volume that exists but cannot be read.
    const volume = readVolume(join(stateRoot(), which))
    if (volume !== undefined) return volume
  }
  throw new HoldfastError('VOLUME_NOT_FOUND', `no volume ${which}`, {
    op: 'volume.find',
    hint: 'See what there is: holdfast list',
  })
}

function findByPath(volumes: readonly Volume[], path: string): Volume | undefined {
  return (
    volumes.find(({ config }) => config.mountpoint === path) ??
    volumes.find(({ config }) => config.backing === path) ??
    volumes.find(({ stateDirectory }) => stateDirectory === path)
  )
}

export interface NewVolume {
  backing: string
  mountpoint: string
  name?: string | undefined
  /** Default: `<state root>/<name>`. */
  stateDirectory?: string | undefined
  options: VolumeOptions
}

/** A new volume's identity; nothing is written yet. */
export function newVolume({
  backing,
  mountpoint,
  name,
  stateDirectory,
  options,
}: NewVolume): Volume {
  const chosen = name ?? freeName(backing)
  if (!NAME.test(chosen)) {
    throw new HoldfastError('USAGE', `${JSON.stringify(chosen)} is no name for a volume`, {
      op: 'volume.create',
      hint: 'Letters, digits, dot, dash and underscore, at most 64.',
    })
  }
  const config: VolumeConfig = {
    version: VOLUME_VERSION,
    uuid: randomUUID(),
    name: chosen,
    backing,
    mountpoint,
    created: new Date().toISOString(),
    options,
  }
  return { config, stateDirectory: stateDirectory ?? join(stateRoot(), chosen) }
}

/** `/srv/my data` → `my-data`; with a piece of its hash when that name is taken. */
function freeName(backing: string): string {
  const plain = basename(backing)
    .replaceAll(/[^A-Za-z0-9._-]+/g, '-')
    .replace(/^[^A-Za-z0-9]+/, '')
    .slice(0, 48)
  const name = plain === '' ? 'root' : plain
  // A directory without a volume is what a refused start left behind.
  if (!existsSync(join(stateRoot(), name, FILE))) return name
  return `${name}-${createHash('sha256').update(backing).digest('hex').slice(0, 6)}`
}

/** The real path of the nearest existing directory of `path`, with the rest appended. */
export function resolveAhead(path: string): string {
  const absolutePath = resolve(path)
  try {
    return realpathSync(absolutePath)
  } catch {
    // It does not exist, or it is a dead mount: its parent can be resolved.
  }
  const parent = dirname(absolutePath)
  if (parent === absolutePath) return absolutePath
  return join(resolveAhead(parent), basename(absolutePath))
}
