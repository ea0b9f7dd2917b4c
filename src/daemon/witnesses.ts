/**
 * Who could tell against a cut: files that are mapped for writing (stores to them are held by
 * nobody), open for writing, or locked. Only /proc is read; no file of a volume is touched.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { isWithin } from '../lib/mountinfo.js'
import type { Certificate } from '../snapshot/certificate.js'
import { commandOf, entries, target } from './occupants.js'

/** A volume's mount. */
export interface Watched {
  volume: string
  mountpoint: string
  /** `major:minor` of the mount, decimal. */
  device: string
}

export interface Mapping {
  pid: number
  command: string
  path: string
  /** Opens the file itself, whatever its name is now and wherever its process lives. */
  link: string
  /** Device and inode. */
  file: string
}

export interface Witnesses {
  mapped: Mapping[]
  writing: Certificate['writing']
  locks: Certificate['locks']
}

const O_ACCMODE = 0o3
const O_PATH = 0o10000000

/** Looks at all processes but this one. */
export function findWitnesses(watched: readonly Watched[]): Witnesses {
  const byDevice = new Map(watched.map((each) => [hexDevice(each.device), each]))
  const found: Witnesses = { mapped: [], writing: [], locks: findLocks(byDevice) }
  for (const entry of readdirSync('/proc')) {
    const pid = Number(entry)
    if (!Number.isInteger(pid) || pid === process.pid) continue
    found.mapped.push(...mappings(pid, byDevice))
    found.writing.push(...openForWriting(pid, watched))
  }
  return found
}

/** Locks on files of the volumes, as the kernel lists them. */
export function locksOn(watched: readonly Watched[]): Certificate['locks'] {
  return findLocks(new Map(watched.map((each) => [hexDevice(each.device), each])))
}

/** A lock, by whoever has the file open with it. */
export interface LockHolder {
  pid: number
  command: string
  kind: Certificate['locks'][number]['kind']
  volume: string
  path: string
}

/**
 * Who holds these locks, and on what path. An OFD lock belongs to an open file, which several processes
 * may share: each is named.
 */
export function holdersOf(locks: Certificate['locks'], watched: readonly Watched[]): LockHolder[] {
  const byFile = new Map(
    locks.map((lock) => {
      const device = watched.find(({ volume }) => volume === lock.volume)?.device ?? ''
      return [`${hexDevice(device)}:${lock.inode}`, lock]
    }),
  )
  const found = new Map<string, LockHolder>()
  for (const entry of readdirSync('/proc')) {
    const pid = Number(entry)
    if (!Number.isInteger(pid)) continue
    for (const fd of entries(`/proc/${pid}/fd`)) {
      const info = read(`/proc/${pid}/fdinfo/${fd}`)
      for (const [, kind = '', file = ''] of info.matchAll(LOCK_OF_FD)) {
        const lock = byFile.get(file)
        const path = target(`/proc/${pid}/fd/${fd}`)
        if (lock === undefined || path === undefined || lock.kind !== kind) continue
        const { volume } = lock
        const holder = { pid, command: commandOf(pid), kind: lock.kind, volume, path }
        found.set(`${pid} ${kind} ${path}`, holder)
      }
    }
  }
  return [...found.values()]
}

/** `lock:  1: FLOCK  ADVISORY  WRITE 708 00:2f:1234 0 EOF` */
const LOCK_OF_FD = /^lock:\s+\d+: (POSIX|FLOCK|OFDLCK) +\S+ +WRITE -?\d+ ([0-9a-f:]+) /gm

/** `0:47` as /proc/PID/maps and /proc/locks write it: `00:2f`. */
function hexDevice(device: string): string {
  return device
    .split(':')
    .map((part) => Number(part).toString(16).padStart(2, '0'))
    .join(':')
}

/** `7f12-7f34 rw-s 00000000 00:2f 1234    /path` */
function mappings(pid: number, byDevice: ReadonlyMap<string, Watched>): Mapping[] {
  const text = read(`/proc/${pid}/maps`)
  const found = new Map<string, Mapping>()
  for (const line of text.split('\n')) {
    const [range = '', access = '', , device = '', inode = ''] = line.split(/ +/, 5)
    if (!access.startsWith('rw') || access[3] !== 's' || !byDevice.has(device)) continue
    const file = `${device}:${inode}`
    const path = line.slice(line.indexOf('/'))
    const link = `/proc/${pid}/map_files/${range}`
    if (!found.has(file)) found.set(file, { pid, command: commandOf(pid), path, link, file })
  }
  return [...found.values()]
}

function openForWriting(pid: number, watched: readonly Watched[]): Certificate['writing'] {
  const found = new Set<string>()
  for (const fd of entries(`/proc/${pid}/fd`)) {
    const path = target(`/proc/${pid}/fd/${fd}`)
    if (path === undefined || !watched.some((each) => isWithin(path, each.mountpoint))) continue
    const flags = Number.parseInt(
      /^flags:\s+(\d+)/m.exec(read(`/proc/${pid}/fdinfo/${fd}`))?.[1] ?? '0',
      8,
    )
    if ((flags & O_ACCMODE) !== 0 && (flags & O_PATH) === 0) found.add(path)
  }
  return [...found].map((path) => ({ pid, command: commandOf(pid), path }))
}

/** `1: POSIX  ADVISORY  WRITE 708 00:2f:1234 0 EOF`; those who wait for a lock have `->` in front. */
function findLocks(byDevice: ReadonlyMap<string, Watched>): Certificate['locks'] {
  const line = /^\d+: (POSIX|FLOCK|OFDLCK) +\S+ +(READ|WRITE) (-?\d+) ([0-9a-f]+:[0-9a-f]+):(\d+) /
  const found: Certificate['locks'] = []
  for (const text of read('/proc/locks').split('\n')) {
    const [, kind, access, pid = '', device = '', inode = ''] = line.exec(text) ?? []
    const volume = byDevice.get(device)?.volume
    if (kind === undefined || volume === undefined) continue
    found.push({
      kind: kind as 'POSIX',
      access: access as 'READ',
      pid: Number(pid),
      command: commandOf(Number(pid)),
      volume,
      inode,
    })
  }
  return found
}

/** Empty when it cannot be read: the process has ended. */
function read(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
