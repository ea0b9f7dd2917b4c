/**
 * Who uses a tree: processes with a working directory, root, open file or mapping in it. Mounting
 * over the tree would leave them on the unprotected directory beneath; unmounting is refused while
 * they are there. Only links in /proc are read: no file of the tree is touched.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { isWithin } from '../lib/mountinfo.js'

export interface Occupant {
  pid: number
  command: string
  kind: 'cwd' | 'root' | 'open file' | 'mapping'
  path: string
}

/** One entry per process (the first use found), `limit` at most; this process is left out. */
export function findOccupants(directory: string, limit = Number.POSITIVE_INFINITY): Occupant[] {
  const occupants: Occupant[] = []
  for (const entry of readdirSync('/proc')) {
    const pid = Number(entry)
    if (!Number.isInteger(pid) || pid === process.pid) continue
    const use = findUse(`/proc/${entry}`, directory)
    if (use === undefined) continue
    occupants.push({ pid, command: commandOf(pid), ...use })
    if (occupants.length >= limit) break
  }
  return occupants
}

type Use = Pick<Occupant, 'kind' | 'path'>

function findUse(proc: string, directory: string): Use | undefined {
  const links: [Occupant['kind'], string][] = [
    ['cwd', `${proc}/cwd`],
    ['root', `${proc}/root`],
    ...entries(`${proc}/fd`).map((fd): [Occupant['kind'], string] => [
      'open file',
      `${proc}/fd/${fd}`,
    ]),
  ]
  for (const [kind, link] of links) {
    const path = target(link)
    // A root of "/" is everybody's.
    if (path !== undefined && isWithin(path, directory) && !(kind === 'root' && path === '/')) {
      return { kind, path }
    }
  }
  const path = mappingWithin(proc, directory)
  return path === undefined ? undefined : { kind: 'mapping', path }
}

function mappingWithin(proc: string, directory: string): string | undefined {
  let maps: string
  try {
    maps = readFileSync(`${proc}/maps`, 'utf8')
  } catch {
    return undefined
  }
  if (!maps.includes(directory)) return undefined
  for (const line of maps.split('\n')) {
    const at = line.indexOf('/')
    if (at > 0 && isWithin(line.slice(at), directory)) return line.slice(at)
  }
  return undefined
}

/** Of a directory of /proc; none when it has gone. */
export function entries(path: string): string[] {
  try {
    return readdirSync(path)
  } catch {
    return []
  }
}

/** Where a link of /proc leads; undefined when it has gone. */
export function target(link: string): string | undefined {
  try {
    return readlinkSync(link)
  } catch {
    return undefined
  }
}

/** Its name, as ps shows it; `?` when it has ended. */
export function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim()
  } catch {
    return '?'
  }
}

/** `1234 postgres (cwd /srv/data), …` */
export function describeOccupants(occupants: readonly Occupant[], shown: number): string {
  const listed = occupants
    .slice(0, shown)
    .map(({ pid, command, kind, path }) => `${command}[${pid}] ${kind} ${path}`)
  const rest = occupants.length - listed.length
  return listed.join('; ') + (rest > 0 ? `; and ${rest} more` : '')
}
