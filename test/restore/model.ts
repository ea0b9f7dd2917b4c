/**
 * An independent model of what a diff may claim: both trees are listed whole, and the claims, applied
 * to the first, must give the second; what they do not name must be equal.
 */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { lstatSync, readFileSync, readlinkSync } from 'node:fs'
import type { TreeChange } from '../../src/index.js'
import { bytes, everything } from './mutate.js'

interface Object {
  ino: bigint
  type: bigint
  /** By the words that a diff uses. */
  parts: Record<string, string>
  directory: boolean
}

export type Listing = Map<string, Object>

/** Every object of a tree by its relative path (latin1). */
export function list(root: string): Listing {
  const attributes = xattrsBelow(root)
  const listing: Listing = new Map()
  for (const { path } of everything(root)) {
    const stat = lstatSync(bytes(path), { bigint: true })
    const regular = stat.isFile()
    const parts = {
      data: regular
        ? createHash('sha1')
            .update(readFileSync(bytes(path)))
            .digest('hex')
        : '',
      size: regular ? `${stat.size}` : '',
      target: stat.isSymbolicLink() ? readlinkSync(bytes(path), 'latin1') : '',
      device: stat.isCharacterDevice() || stat.isBlockDevice() ? `${stat.rdev}` : '',
      mode: stat.isSymbolicLink() ? '' : `${stat.mode & 0o7777n}`,
      owner: `${stat.uid}:${stat.gid}`,
      mtime: `${stat.mtimeNs}`,
      xattrs: attributes.get(path.slice(root.length + 1)) ?? '',
    }
    const type = stat.mode & 0o170000n
    listing.set(path.slice(root.length + 1), {
      ino: stat.ino,
      type,
      parts,
      directory: stat.isDirectory(),
    })
  }
  return listing
}

function xattrsBelow(root: string): Map<string, string> {
  // Names come as bytes, but for what would break a line.
  const stdout = execFileSync('getfattr', ['-RPhd', '-m', '-', '-e', 'hex', '.'], {
    cwd: root,
    encoding: 'latin1',
  })
  const found = new Map<string, string>()
  for (const block of stdout.split('\n\n')) {
    const [head = '', ...lines] = block.split('\n')
    const escaped = head.replace(/^# file: /, '')
    const name = escaped.replaceAll(/\\([0-7]{3})/g, (_all, octal: string) =>
      String.fromCharCode(Number.parseInt(octal, 8)),
    )
    found.set(name === '.' ? '' : name, lines.sort().join('\n'))
  }
  return found
}

/** What is wrong with the claims; empty when they are exactly right. */
export function judge(a: Listing, b: Listing, claims: readonly TreeChange[]): string[] {
  const wrong: string[] = []
  const text = (path: Buffer) => path.toString('latin1')
  const deleted = new Set(
    claims.filter(({ kind }) => kind === 'deleted').map(({ path }) => text(path)),
  )
  const claimed = new Map(
    claims.filter(({ kind }) => kind !== 'deleted').map((claim) => [text(claim.path), claim]),
  )
  const origin = new Map<string, string>()
  const used = new Set<string>()
  for (const [path, object] of b) {
    const claim = claimed.get(path)
    if (claim?.kind === 'created') continue
    const at = path.lastIndexOf('/')
    const parent = path === '' ? undefined : origin.get(at < 0 ? '' : path.slice(0, at))
    const name = path.slice(at + 1)
    const along = parent === undefined ? path : parent === '' ? name : `${parent}/${name}`
    const from = claim?.from === undefined ? along : text(claim.from)
    const old = a.get(from)
    if (old === undefined) {
      wrong.push(`${path}: it is said to have been there as ${from}`)
      continue
    }
    origin.set(path, from)
    if (used.has(from)) wrong.push(`${from} became two things`)
    used.add(from)
    wrong.push(...judgeOne(path, { old, object, claim }))
  }
  for (const path of a.keys()) {
    if (used.has(path) === deleted.has(path)) wrong.push(`${path}: deleted or not?`)
  }
  for (const path of claimed.keys()) if (!b.has(path)) wrong.push(`${path} is not there`)
  return wrong
}

interface Pair {
  old: Object
  object: Object
  claim: TreeChange | undefined
}

function judgeOne(path: string, { old, object, claim }: Pair): string[] {
  if (old.type !== object.type) return [`${path}: another kind of object`]
  if (claim?.kind === 'renamed' && old.ino !== object.ino) return [`${path}: another object`]
  // Of what was taken apart or together, only that is said.
  const told = claim?.what ?? []
  if (told.includes('links')) return []
  if (told.includes('target') || told.includes('device')) {
    const part = told.includes('target') ? 'target' : 'device'
    return old.parts[part] === object.parts[part] ? [`${path}: ${part} is the same`] : []
  }
  const differing = Object.keys(object.parts).filter(
    (part) => old.parts[part] !== object.parts[part],
  )
  const same = differing.join() === told.filter((part) => part !== 'flags').join()
  return same ? [] : [`${path}: ${told.join()} is said, ${differing.join()} is true`]
}
