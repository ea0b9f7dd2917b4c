/**
 * Where the programs of holdfast are that run in a process or a thread of their own.
 *
 * They come twice: file by file as the compiler makes them, and bundled (`scripts/bundle.mjs`), which starts in
 * a third of the time. Started are the bundled ones, whoever starts them, where they have been made.
 */
import { existsSync } from 'node:fs'

export type Program =
  | 'browse/main'
  | 'capture/chores-worker'
  | 'capture/drain-worker'
  | 'daemon/main'
  | 'daemon/scheduled'
  | 'journal/verify-child'
  | 'replication/apply-worker'
  | 'replication/log-worker'

// This file is dist/src/lib/code.js, or in a piece dist/program/lib/….js.
const bundled = new URL('../../program/', import.meta.url)
const programs = existsSync(bundled) ? bundled : new URL('../', import.meta.url)

export function programUrl(name: Program): URL {
  return new URL(`${name}.js`, programs)
}
