/**
 * The hooks of volumes: in which directories they are, in what order, and where it is logged that they
 * have run. `src/snapshot/hook-session.ts` runs them.
 */
import { closeSync, openSync } from 'node:fs'
import { type Logger, makeLogger } from '../lib/log.js'
import type { HookSubject, HookVolume } from '../snapshot/hook-occasion.js'
import type { HookEnd } from '../snapshot/hook-run.js'
import { HookSession } from '../snapshot/hook-session.js'
import { findHooks, type Hook, type HookPlace } from '../snapshot/hooks.js'
import { hooksDirectory, logPath } from './places.js'
import type { Volume } from './registry.js'

export interface HookOptions {
  /** A further directory of hooks; false: none are run at all. */
  hooks?: string | false | undefined
  /** Where it is told that they have run; default: the log of the first volume's daemon. */
  log?: Logger | undefined
  signal?: AbortSignal | undefined
}

/** HOOK_REFUSED. */
export function openHooks(
  volumes: readonly Volume[],
  subject: Omit<HookSubject, 'volumes'>,
  { hooks: further, log, signal }: HookOptions,
): HookSession {
  const onEnd = (end: HookEnd) => tell(end, subject.snapshot, { volume: volumes[0], log })
  const hooks = further === false ? [] : hooksOf(volumes, further)
  return new HookSession({
    hooks,
    subject: { ...subject, volumes: volumes.map((each) => toldOf(each)) },
    onEnd,
    signal,
  })
}

/** Those of all volumes, then those of each of these, then those of `further`. HOOK_REFUSED. */
export function hooksOf(volumes: readonly Volume[], further?: string): Hook[] {
  const own = volumes.flatMap(({ config }) => config.options.hooks ?? [])
  const places: HookPlace[] = [
    { directory: hooksDirectory(), optional: true },
    ...[...new Set(own)].map((directory) => ({ directory, optional: false })),
    ...(further === undefined ? [] : [{ directory: further, optional: false }]),
  ]
  return findHooks(
    places,
    volumes.map(({ config }) => config.name),
  )
}

/** What hooks are told of a volume. */
export function toldOf({ config }: Volume, seq?: number): HookVolume {
  const { name, uuid, mountpoint, backing } = config
  return { name, uuid, mountpoint, backing, ...(seq === undefined ? {} : { seq }) }
}

function tell(
  { run, output }: HookEnd,
  snapshot: string,
  { volume, log }: { volume: Volume | undefined; log: Logger | undefined },
): void {
  const write = (to: Logger) => {
    const level = run.result === 'ok' ? 'info' : 'warn'
    to[level]({ snapshot, ...run, ...output }, `hook ${run.hook}: ${run.phase}: ${run.result}`)
  }
  if (log !== undefined) write(log)
  else if (volume !== undefined) {
    const fd = openSync(logPath(volume.stateDirectory), 'a', 0o600)
    try {
      write(makeLogger({ fd, base: { volume: volume.config.name } }))
    } finally {
      closeSync(fd)
    }
  }
}
