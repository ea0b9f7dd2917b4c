/**
 * The page of shared memory in which the volumes of one cut meet (native-bindings:
 * capture/meeting.rs has its layout). Lies in the run directory, a tmpfs, for as long as the cut takes.
 */
import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'

const PAGE_BYTES = 4096
const MAGIC = 'HFMT'
const VERSION = 1
/** Where the page says that a member has given up. */
const FAILED_AT = 20
const PREFIX = '.cut-'
/** Older than any cut can be: whoever made it is dead. */
const STALE_MS = 120_000

/** Makes the page for so many members; returns its path. */
export function makeMeeting(runDirectory: string, id: string, members: number): string {
  const page = Buffer.alloc(PAGE_BYTES)
  page.write(MAGIC, 'latin1')
  page.writeUInt32LE(VERSION, 4)
  page.writeUInt32LE(members, 8)
  const path = join(runDirectory, `${PREFIX}${id}`)
  writeFileSync(path, page, { mode: 0o600, flag: 'wx' })
  return path
}

/** Nobody is to wait any more. Never throws: the cut may be over, and waits end by themselves, too. */
export function failMeeting(path: string): void {
  const one = Buffer.alloc(4)
  one.writeUInt32LE(1)
  try {
    const fd = openSync(path, 'r+')
    try {
      writeSync(fd, one, 0, one.length, FAILED_AT)
    } finally {
      closeSync(fd)
    }
  } catch {
    // The page is gone.
  }
}

/** Idempotent. */
export function removeMeeting(path: string): void {
  rmSync(path, { force: true })
}

/** Removes the pages of those who died in the middle of a cut. */
export function removeStaleMeetings(runDirectory: string, now: number): void {
  mkdirSync(runDirectory, { recursive: true, mode: 0o755 })
  for (const name of readdirSync(runDirectory)) {
    if (!name.startsWith(PREFIX)) continue
    const path = join(runDirectory, name)
    const made = statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? now
    if (now - made > STALE_MS) rmSync(path, { force: true })
  }
}
