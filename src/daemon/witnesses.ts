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
