/** Files that must be whole after any crash, and directories that go when nobody needs them. */
import {
  closeSync,
  constants,
  fsyncSync,
  openSync,
  renameSync,
  rmdirSync,
  writeSync,
} from 'node:fs'
import { dirname } from 'node:path'

/** A link that somebody has put there is not followed. */
const O_WRITE_NEW =
  constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW

/** Replaces the file at `path`: a new one, flushed, renamed over it, and the rename flushed. */
export function writeFileDurably(path: string, contents: string, mode = 0o600): void {
  const fd = openSync(`${path}.new`, O_WRITE_NEW, mode)
  try {
    writeSync(fd, contents)
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
  renameSync(`${path}.new`, path)
  const directory = openSync(dirname(path), 'r')
  try {
    fsyncSync(directory)
  } finally {
    closeSync(directory)
  }
}

/** Idempotent; a directory in which somebody has put something stays. */
export function removeEmpty(path: string): void {
  try {
    rmdirSync(path)
  } catch {
    // In use, or gone.
  }
}
