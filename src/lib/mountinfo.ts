/** /proc/self/mountinfo, proc(5). Reading it touches no mount. */
import { readFileSync } from 'node:fs'

export interface Mount {
  id: number
  parent: number
  /** `major:minor` */
  device: string
  /** Path inside the mounted file system that is the root of this mount. */
  root: string
  mountpoint: string
  type: string
  source: string
  options: string[]
}

/** `\040` and the like, as the kernel escapes blanks and backslashes. */
function plain(text: string): string {
  if (!text.includes('\\')) return text
  const bytes: number[] = []
  const raw = Buffer.from(text)
  for (let at = 0; at < raw.length; at += 1) {
    const octal = raw.toString('latin1', at, at + 4)
    if (/^\\[0-7]{3}$/.test(octal)) {
      bytes.push(Number.parseInt(octal.slice(1), 8))
      at += 3
    } else bytes.push(raw[at] ?? 0)
  }
  return Buffer.from(bytes).toString('utf8')
}

export function parseMountinfo(text: string): Mount[] {
  const mounts: Mount[] = []
  for (const line of text.split('\n')) {
    const [before, after] = line.split(' - ')
    if (before === undefined || after === undefined) continue
    const [id, parent, device, root, mountpoint, options] = before.split(' ')
    const [type, source] = after.split(' ')
    mounts.push({
      id: Number(id),
      parent: Number(parent),
      device: device ?? '',
      root: plain(root ?? ''),
      mountpoint: plain(mountpoint ?? ''),
      type: type ?? '',
      source: plain(source ?? ''),
      options: (options ?? '').split(','),
    })
  }
  return mounts
}

export function readMounts(): Mount[] {
  return parseMountinfo(readFileSync('/proc/self/mountinfo', 'utf8'))
}

/** The mount that is visible at exactly `path`: the newest one. */
export function mountAt(path: string, mounts = readMounts()): Mount | undefined {
  return mounts.findLast(({ mountpoint }) => mountpoint === path)
}

/** The mount that holds `path`. */
export function mountOf(path: string, mounts = readMounts()): Mount | undefined {
  return mounts
    .filter(({ mountpoint }) => isWithin(path, mountpoint))
    .reduce<Mount | undefined>(
      (best, mount) =>
        best === undefined || mount.mountpoint.length >= best.mountpoint.length ? mount : best,
      undefined,
    )
}

/** Whether `path` is `directory` or below it; both absolute and normalised. */
export function isWithin(path: string, directory: string): boolean {
  return path === directory || path.startsWith(directory === '/' ? '/' : `${directory}/`)
}
