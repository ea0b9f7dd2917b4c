/**
 * What every snapshot takes, whoever orders it: a turn, volumes that are protected, what was seen just
 * before, and a certificate that all of them keep.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { Chores } from '../capture/chores.js'
import { takeLock } from '../lib/abstract-lock.js'
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import { CUT_GATHER_MS, CUT_TURN_MS, HOLD_MS_MAX, WRITING_LISTED_MAX } from '../lib/limits.js'
import { mountAt, readMounts } from '../lib/mountinfo.js'
import { NAME } from '../lib/names.js'
import { Catalogue } from '../snapshot/catalogue.js'
import { type Certificate, seqIn } from '../snapshot/certificate.js'
import type { HookSession } from '../snapshot/hook-session.js'
import { ControlClient } from './client.js'
import { notTaken } from './cut.js'
import { toldOf } from './hooks.js'
import { runDirectory } from './places.js'
import { listVolumes, type Volume } from './registry.js'
import { findWitnesses, type Mapping, type Watched, type Witnesses } from './witnesses.js'

const op = 'snapshot.create'
const TURN_POLL_MS = 20

/** One name, one snapshot, whatever its volumes. */
export function requireNew(name: string): void {
  for (const { config, stateDirectory } of listVolumes()) {
    if (new Catalogue(stateDirectory).find(name) === undefined) continue
    throw new HoldfastError('SNAPSHOT_EXISTS', `${config.name} has a snapshot ${name} already`, {
      op,
      hint: `Choose another name, or remove it: holdfast snapshot destroy ${name}`,
    })
  }
}

export function checkRequest(name: string, maxHoldMs: number): void {
  if (!NAME.test(name)) {
    throw new HoldfastError('USAGE', `${JSON.stringify(name)} is no name for a snapshot`, {
      op,
      hint: 'Letters, digits, dot, dash and underscore, at most 64.',
    })
  }
  if (maxHoldMs >= 1 && maxHoldMs <= HOLD_MS_MAX) return
  throw new HoldfastError('USAGE', `I/O can be held for 1 to ${HOLD_MS_MAX} ms`, { op })
}

/** One snapshot at a time on a host. BUSY when the others take too long. */
export function takeTurn(): Promise<{ close(): unknown }> {
  return turnOf('cuts', 'another snapshot is being taken')
}

/** One snapshot of a group at a time by a coordinator. BUSY when the others take too long. */
export function takeGroupTurn(): Promise<{ close(): unknown }> {
  return turnOf('groups', 'another snapshot of a group is being taken')
}

/** One change of a group's horizon at a time. BUSY when the others take too long. */
export function takeHorizonTurn(group: string): Promise<{ close(): unknown }> {
  return turnOf(`horizon-${group}`, 'the horizon is being changed')
}

async function turnOf(kind: string, busy: string): Promise<{ close(): unknown }> {
  const end = Date.now() + CUT_TURN_MS
  for (;;) {
    try {
      return await takeLock(kind, runDirectory())
    } catch (cause) {
      if (Date.now() < end) await sleep(TURN_POLL_MS)
      else throw new HoldfastError('BUSY', busy, { op, cause })
    }
  }
}

/** A journal that is not whole proves nothing; after a start it soon is. SNAPSHOT_FAILED. */
export async function requireProtected(
  volumes: readonly Volume[],
  { waitMs }: { waitMs: number },
): Promise<void> {
  const end = Date.now() + waitMs
  const looks = volumes.map(async ({ config: { name } }) => {
    try {
      const look = () => new ControlClient(name).status({ timeoutMs: CUT_GATHER_MS })
      let { state, reason } = await look()
      while (state === 'recapturing' && Date.now() < end) {
        await sleep(TURN_POLL_MS)
        ;({ state, reason } = await look())
      }
      if (state === 'protected') return
      const message = `${name} is ${state}${reason === null ? '' : `: ${reason}`}`
      throw new HoldfastError('RECAPTURING', message, {
        op,
        hint: `Wait until it is protected: holdfast status ${name} --watch`,
      })
    } catch (error) {
      throw notTaken([{ volume: name, error: toHoldfastError(error, op) }])
    }
  })
  await Promise.all(looks)
}

/** What was seen just before a cut. */
export type Seen = Pick<Certificate, 'mapped' | 'writing' | 'writingCount' | 'locks'>

/** Looks who could tell against the cut, and has what they stored through mappings written out. */
export async function lookAround(volumes: readonly Volume[]): Promise<Seen> {
  const found: Witnesses = findWitnesses(volumes.map(watchedOf))
  return {
    mapped: await writeOut(found.mapped),
    writing: found.writing.slice(0, WRITING_LISTED_MAX),
    writingCount: found.writing.length,
    locks: found.locks,
  }
}

/** The marker is in the journals, durably, and these prove it. SNAPSHOT_FAILED. */
export async function requireMarked(volumes: readonly Volume[]): Promise<void> {
  await Promise.all(volumes.map(({ config }) => new ControlClient(config.name).flush()))
  await requireProtected(volumes, { waitMs: 0 })
}

/** Where a volume is, for whoever looks at processes. */
export function watchedOf({ config }: Volume): Watched {
  const { name: volume, mountpoint } = config
  return { volume, mountpoint, device: mountAt(mountpoint, readMounts())?.device ?? '' }
}

/** Has what was stored through mappings reach the volumes before anything is held. */
async function writeOut(found: readonly Mapping[]): Promise<Certificate['mapped']> {
  if (found.length === 0) return []
  const chores = new Chores()
  const written = new Map<string, boolean>()
  try {
    for (const { file, link } of found) {
      if (written.get(file) === true) continue
      const done = chores.run('writeOut', Buffer.from(link)).then(
        () => true,
        () => false,
      )
      written.set(file, await done)
    }
  } finally {
    await chores.close()
  }
  return found.map(({ pid, command, path, file }) => {
    return { pid, command, path, writtenOut: written.get(file) === true }
  })
}

/** ISO time of an instant of CLOCK_MONOTONIC. */
export function wallClock(instant: bigint): string {
  const ago = process.hrtime.bigint() - instant
  return new Date(Date.now() - Number(ago / 1_000_000n)).toISOString()
}

/** All volumes have it, or none. */
export function store(volumes: readonly Volume[], certificate: Certificate): void {
  const catalogues = volumes.map(({ stateDirectory }) => new Catalogue(stateDirectory))
  try {
    for (const catalogue of catalogues) catalogue.store(certificate)
  } catch (cause) {
    for (const catalogue of catalogues) catalogue.remove(certificate.name)
    const { message } = toHoldfastError(cause, op)
    throw new HoldfastError('SNAPSHOT_FAILED', `the certificate cannot be kept: ${message}`, {
      op,
      cause,
    })
  }
}

/** All volumes have it, and hooks that follow are told where it is. */
export function keep(
  volumes: readonly Volume[],
  certificate: Certificate,
  hooks: Pick<HookSession, 'tell'>,
): void {
  store(volumes, certificate)
  hooks.tell(volumes.map((each) => toldOf(each, seqIn(certificate, each.config.uuid))))
}
