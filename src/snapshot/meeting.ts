/**
 * The page of shared memory in which the volumes of one cut meet (native-bindings:
 * capture/meeting.rs has its layout). Lies in the run directory, a tmpfs, for as long as the cut takes.
 */
import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { AT_REST_POLL_MS } from '../lib/limits.js'

const PAGE_BYTES = 4096
const MAGIC = 'HFMT'
const VERSION = 2
/** Words of the page: how many are at rest, */
const AT_REST_AT = 16
/** a member has given up, */
const FAILED_AT = 20
/** members are to stay at rest until they are released, */
const STAYING_AT = 24
/** and that they are. */
const RELEASED_AT = 28
const PREFIX = '.cut-'
/** Older than any cut can be: whoever made it is dead. */
const STALE_MS = 120_000

export interface MeetingOptions {
  id: string
  members: number
  /** They stay at rest until `releaseMeeting`, or until their own deadlines. */
  staying: boolean
}

/** Makes the page of a cut; returns its path. */
export function makeMeeting(
  runDirectory: string,
  { id, members, staying }: MeetingOptions,
): string {
  const page = Buffer.alloc(PAGE_BYTES)
  page.write(MAGIC, 'latin1')
  page.writeUInt32LE(VERSION, 4)
  page.writeUInt32LE(members, 8)
  page.writeUInt32LE(staying ? 1 : 0, STAYING_AT)
  const path = join(runDirectory, `${PREFIX}${id}`)
  writeFileSync(path, page, { mode: 0o600, flag: 'wx' })
  return path
}

/** Nobody is to wait any more. Never throws: the cut may be over, and waits end by themselves, too. */
export function failMeeting(path: string): void {
  raise(path, FAILED_AT)
}

/** Those who stay at rest may go on. */
export function releaseMeeting(path: string): void {
  raise(path, RELEASED_AT)
}

/** Resolves when all are at rest: true; or when that will not be: false. */
export async function untilAtRest(
  path: string,
  { members, over }: { members: number; over: AbortSignal },
): Promise<boolean> {
  const words = Buffer.alloc(RELEASED_AT + 4)
  const fd = openSync(path, 'r')
  try {
    while (!over.aborted) {
      readSync(fd, words, 0, words.length, 0)
      if (words.readUInt32LE(FAILED_AT) !== 0) return false
      if (words.readUInt32LE(AT_REST_AT) >= members) return true
      await sleep(AT_REST_POLL_MS)
    }
    return false
  } finally {
    closeSync(fd)
  }
}

function raise(path: string, at: number): void {
  const one = Buffer.alloc(4)
  one.writeUInt32LE(1)
  try {
    const fd = openSync(path, 'r+')
    try {
      writeSync(fd, one, 0, one.length, at)
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
