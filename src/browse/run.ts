/**
 * The life of a process that serves a browse tree: mount, serve, end on a signal or when somebody
 * unmounts it. However it ends, its views end too: here in order, or by the volumes' daemons.
 */
import { takeLock } from '../lib/abstract-lock.js'
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import { removeEmpty } from '../lib/files.js'
import { BROWSE_LOOK_MS } from '../lib/limits.js'
import type { Logger } from '../lib/log.js'
import { mountTree } from './fuse.js'
import {
  detach,
  forgetBrowse,
  isStillMounted,
  mountId,
  preparePlace,
  recordBrowse,
} from './place.js'
import { BrowseTree } from './tree.js'

export interface RunningBrowse {
  /** Resolves with the exit code when the tree is gone. */
  readonly ended: Promise<number>
}

/** Serves the browse tree at `path` in this process. Errors as of `preparePlace` and `mountTree`. */
export async function runBrowse(path: string, log: Logger): Promise<RunningBrowse> {
  process.chdir('/')
  const lock = await takeLock('browse', path).catch((cause: unknown) => {
    throw new HoldfastError('ALREADY_MOUNTED', `another process serves ${path}`, {
      op: 'browse',
      cause,
      hint: `End it: holdfast browse --stop ${path}`,
    })
  })
  // From here on: a signal must not leave a mount that nobody serves.
  const asked = untilAsked(log)
  const made = preparePlace(path)
  const tree = new BrowseTree(log)
  try {
    await mountTree(path, tree.root, log)
  } catch (error) {
    if (made) removeEmpty(path)
    throw error
  }
  recordBrowse(path)
  log.info({ path }, 'browse tree mounted')
  const clean = async () => {
    detach(path)
    await tree.close()
    forgetBrowse(path)
    if (made) removeEmpty(path)
    lock.close()
    log.info({ path }, 'browse tree ended')
  }
  return {
    ended: untilEnded({ path, tree, log, asked })
      .then(clean)
      .then(() => 0),
  }
}

/** Resolves at the first signal that asks for an end. */
function untilAsked(log: Logger): Promise<void> {
  process.on('SIGHUP', () => log.info('SIGHUP ignored'))
  return new Promise((resolve) => {
    process.once('SIGTERM', () => resolve())
    process.once('SIGINT', () => resolve())
  })
}

interface Serving {
  path: string
  tree: BrowseTree
  log: Logger
  asked: Promise<void>
}

/** Until it is asked to end, or its mount is gone; meanwhile lets go of what rests. */
async function untilEnded({ path, tree, log, asked }: Serving): Promise<void> {
  const mounted = mountId(path)
  let timer: NodeJS.Timeout | undefined
  const unmounted = new Promise<void>((resolve) => {
    let looking = false
    timer = setInterval(async () => {
      if (mounted === undefined || !isStillMounted(mounted)) return resolve()
      if (looking) return
      looking = true
      await tree.look().catch((error: unknown) => {
        log.warn({ error: toHoldfastError(error, 'browse') }, 'looking after views failed')
      })
      looking = false
    }, BROWSE_LOOK_MS)
  })
  await Promise.race([asked, unmounted])
  clearInterval(timer)
}
