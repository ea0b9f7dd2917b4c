/**
 * The detached process of a browse tree: its place is its argument, so that `ps` tells it; answers
 * `ready` or `failed` over the IPC channel and lives on alone.
 */
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import { makeLogger } from '../lib/log.js'
import type { BrowseReply } from './launch.js'
import { runBrowse } from './run.js'

function answer(reply: BrowseReply): Promise<void> {
  return new Promise((resolve) => {
    if (process.send === undefined) resolve()
    else process.send(reply, () => resolve())
  })
}

const [, , path] = process.argv
const log = makeLogger({ fd: 2, base: { browse: path } })
try {
  if (path === undefined) throw new HoldfastError('USAGE', 'no path', { op: 'browse' })
  const browse = await runBrowse(path, log)
  await answer({ kind: 'ready', pid: process.pid })
  process.disconnect?.()
  process.exit(await browse.ended)
} catch (error) {
  const known = toHoldfastError(error, 'browse')
  log.error({ error: known, cause: known.cause, stack: known.stack }, 'not started')
  await answer({ kind: 'failed', error: known.toJSON() })
  process.exit(known.exitCode)
}
