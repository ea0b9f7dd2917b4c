/**
 * What must hold before a volume may start. Each check refuses with its own code and says what to
 * do. The checks run before anything is changed; none touches a live mount of ours.
 */
import { accessSync, constants, readFileSync, statfsSync, statSync } from 'node:fs'
import { HoldfastError } from '../lib/errors.js'
import { formatBytes } from '../lib/format.js'
import { OCCUPANTS_SHOWN_MAX } from '../lib/limits.js'
import { isWithin, type Mount, mountAt, mountOf, readMounts } from '../lib/mountinfo.js'
import { runningDaemon } from './lock.js'
import { describeOccupants, findOccupants } from './occupants.js'
import { runDirectory } from './places.js'
import type { Volume } from './registry.js'

export const MOUNT_TYPE = 'fuse.holdfast'
const CAP_SYS_ADMIN = 21n
/** Character device 10:229. */
const FUSE_DEVICE = (10 << 8) | 229
const TMPFS_MAGIC = 0x01021994
const RAMFS_MAGIC = 0x858458f6
const op = 'mount'

/** /dev/fuse and the privilege to mount: NO_FUSE, NO_PRIVILEGE. */
export function checkMachine(): void {
  if (!hasCapability(CAP_SYS_ADMIN)) {
    throw new HoldfastError('NO_PRIVILEGE', 'mounting needs CAP_SYS_ADMIN', {
      op,
      hint: 'Run as root; in a container add --privileged, or --cap-add SYS_ADMIN --device /dev/fuse.',
    })
  }
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK)
    if (statSync('/dev/fuse').rdev !== FUSE_DEVICE) throw new Error('not the FUSE device')
  } catch (cause) {
    throw new HoldfastError('NO_FUSE', '/dev/fuse is missing or cannot be opened', {
      op,
      cause,
      hint: 'Load the module: modprobe fuse. In a container: --device /dev/fuse.',
    })
  }
}

/** Whether this process has capability number `capability` in its effective set. */
export function hasCapability(capability: bigint): boolean {
  const status = readFileSync('/proc/self/status', 'utf8')
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0'
  return ((BigInt(`0x${effective}`) >> capability) & 1n) === 1n
}

/** NOT_A_DIRECTORY for anything else than an existing directory. */
export function checkDirectory(path: string, what: string): void {
  const found = statSync(path, { throwIfNoEntry: false })
  if (found?.isDirectory()) return
  const state = found === undefined ? 'does not exist' : 'is not a directory'
  throw new HoldfastError('NOT_A_DIRECTORY', `${what} ${path} ${state}`, {
    op,
    hint: found === undefined ? `Make it first: mkdir -p ${path}` : 'Give a directory.',
  })
}

/** ALREADY_MOUNTED while a daemon serves the volume; looks at /proc alone. */
export function checkNotServed({ config }: Volume): void {
  if (runningDaemon(config.name) === undefined) return
  if (mountAt(config.mountpoint)?.type !== MOUNT_TYPE) return
  throw new HoldfastError('ALREADY_MOUNTED', `${config.mountpoint} is mounted already`, {
    op,
    hint: `See: holdfast status ${config.name}`,
  })
}

/**
 * The mount at the volume's mountpoint: none, or a dead one of the same volume to replace.
 * ALREADY_MOUNTED for a live one of ours; another file system mounted there is an ordinary base.
 */
export function checkMountpoint({ config }: Volume): { dead: boolean } {
  const mount = mountAt(config.mountpoint)
  if (mount === undefined || mount.type !== MOUNT_TYPE) return { dead: false }
  if (mount.source !== mountSource(config.name)) {
    const other = mount.source.replace(/^holdfast:/, '')
    throw new HoldfastError('ALREADY_MOUNTED', `${config.mountpoint} shows volume ${other}`, {
      op,
      hint: `Unmount it first: holdfast unmount ${other}`,
    })
  }
  if (isConnected(mount)) {
    throw new HoldfastError('ALREADY_MOUNTED', `${config.mountpoint} is mounted already`, {
      op,
      hint: `See: holdfast status ${config.name}`,
    })
  }
  return { dead: true }
}

/** Whether a mount of this volume answers. */
export function isServed({ config }: Volume): boolean {
  const mount = mountAt(config.mountpoint)
  return mount !== undefined && mount.source === mountSource(config.name) && isConnected(mount)
}

export function mountSource(name: string): string {
  return `holdfast:${name}`
}

/** What a FUSE mount whose daemon is gone answers, at once; over io_uring first the last. */
const DEAD = new Set(['ENOTCONN', 'ECONNABORTED', 'ECANCELED'])

function isConnected({ mountpoint }: Mount): boolean {
  try {
    statfsSync(mountpoint)
    return true
  } catch (error) {
    return !DEAD.has((error as NodeJS.ErrnoException).code ?? '')
  }
}

/** DESIGN 5.7: the daemon's own files are never inside a volume. STATE_INSIDE_VOLUME. */
export function checkPlaces({ config, stateDirectory }: Volume): void {
  const places: [string, string][] = [
    ['the state directory', stateDirectory],
    ['the run directory', runDirectory()],
    ['the capture ring', config.options.ringDirectory],
  ]
  for (const [what, path] of places) {
    for (const tree of [config.backing, config.mountpoint]) {
      if (!isWithin(path, tree)) continue
      throw new HoldfastError('STATE_INSIDE_VOLUME', `${what} ${path} is inside ${tree}`, {
        op,
        hint: 'Put it elsewhere: --state DIR, --ring DIR.',
      })
    }
  }
  if (config.backing !== config.mountpoint && isWithin(config.mountpoint, config.backing)) {
    const message = `the mountpoint ${config.mountpoint} is inside ${config.backing}`
    throw new HoldfastError('STATE_INSIDE_VOLUME', message, {
      op,
      hint: 'Mount elsewhere, or in place (without --at).',
    })
  }
}

/** The ring must outlive the process in memory, and fit: RING_NOT_TMPFS, RING_SPACE. */
export function checkRing({ config }: Volume, present: boolean): void {
  const { ringDirectory, ringBytes } = config.options
  const { type, bavail, bsize } = statfsSync(ringDirectory)
  if (type !== TMPFS_MAGIC && type !== RAMFS_MAGIC) {
    throw new HoldfastError('RING_NOT_TMPFS', `${ringDirectory} is not on a tmpfs`, {
      op,
      hint: 'Give a tmpfs directory: --ring /dev/shm',
    })
  }
  const free = bavail * bsize
  if (!present && type === TMPFS_MAGIC && free < ringBytes) {
    const message = `the capture ring needs ${formatBytes(ringBytes)}, ${ringDirectory} has ${formatBytes(free)}`
    throw new HoldfastError('RING_SPACE', message, {
      op,
      hint: 'Give a smaller ring (--ring-size), another tmpfs (--ring), or enlarge that one.',
    })
  }
}

/** Mounts below the tree would stay visible but unprotected. NESTED_MOUNT. */
export function checkNestedMounts({ config }: Volume, mounts = readMounts()): void {
  const nested = mounts.find(
    ({ mountpoint }) => mountpoint !== config.backing && isWithin(mountpoint, config.backing),
  )
  if (nested === undefined) return
  const message = `${nested.mountpoint} (${nested.type}) is mounted inside ${config.backing}`
  throw new HoldfastError('NESTED_MOUNT', message, {
    op,
    hint: 'Protect it as a volume of its own, or unmount it first.',
  })
}

/** In place: processes that are already in the tree would bypass the capture. OCCUPIED. */
export function checkOccupants({ config }: Volume): void {
  if (config.backing !== config.mountpoint) return
  const occupants = findOccupants(config.backing)
  if (occupants.length === 0) return
  const who = describeOccupants(occupants, OCCUPANTS_SHOWN_MAX)
  throw new HoldfastError('OCCUPIED', `${config.backing} is in use: ${who}`, {
    op,
    hint: 'Their changes would not be captured: stop them or leave the directory, or --force.',
    details: { occupants },
  })
}

/** Type and device of the file system below `path`, for messages. */
export function describeFileSystem(path: string): string {
  const mount = mountOf(path)
  return mount === undefined ? 'unknown' : `${mount.type} (${mount.source})`
}
