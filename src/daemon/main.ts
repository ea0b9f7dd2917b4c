/**
 * The detached daemon process: gets its volume over the IPC channel, answers `ready` or `failed`
 * on it, and lives on alone. stdout and stderr are the log file in the state directory.
 */
import { toHoldfastError } from '../lib/errors.js'
import { makeLogger } from '../lib/log.js'
import type { LaunchReply, LaunchRequest } from './launch.js'
import { runDaemon } from './run.js'

function answer(reply: LaunchReply): Promise<void> {
  return new Promise((resolve) => {
    if (process.send === undefined) resolve()
    else process.send(reply, () => resolve())
  })
}

process.once('message', async ({ volume, force }: LaunchRequest) => {
  const log = makeLogger({ fd: 2, base: { volume: volume.config.name } })
  try {
    const daemon = await runDaemon({ volume, force, log })
    const { isNew, recoveredMount, recapture, open } = daemon.result
    const { ring, pendingRecords, intents } = open
    await answer({
      kind: 'ready',
      status: daemon.status(),
      start: { isNew, recoveredMount, recapture, ring, pendingRecords, intents },
    })
    process.disconnect?.()
    process.exit(await daemon.ended)
  } catch (error) {
    const known = toHoldfastError(error, 'mount')
    log.error({ error: known, cause: known.cause, stack: known.stack }, 'not started')
    await answer({ kind: 'failed', error: known.toJSON() })
    process.exit(known.exitCode)
  }
})
