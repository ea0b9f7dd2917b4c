/**
 * Snapshots of volumes of this host: orders the cut, proves that it is one instant, and keeps the
 * certificate with every volume. Whoever orders it may die at any moment: a hold ends by itself, and
 * a marker without a certificate is no snapshot.
 */
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { Chores } from '../capture/chores.js'
import { Journal } from '../journal/store.js'
import { missingFileBytes } from '../journal/verify.js'
import { takeLock } from '../lib/abstract-lock.js'
import { type ErrorReport, HoldfastError, toHoldfastError } from '../lib/errors.js'
import {
  CUT_ANSWER_MS,
  CUT_GATHER_MS,
  CUT_HOLD_MS_DEFAULT,
  CUT_TURN_MS,
  HOLD_MS_MAX,
  WRITING_LISTED_MAX,
} from '../lib/limits.js'
import { mountAt, readMounts } from '../lib/mountinfo.js'
import { NAME } from '../lib/names.js'
import { Catalogue } from '../snapshot/catalogue.js'
import {
  CERTIFICATE_VERSION,
  type Certificate,
  commonInstant,
  type Member,
} from '../snapshot/certificate.js'
import {
  failMeeting,
  makeMeeting,
  removeMeeting,
  removeStaleMeetings,
} from '../snapshot/meeting.js'
import { ControlClient } from './client.js'
import { journalPath, runDirectory } from './places.js'
import { findVolume, listVolumes, type Volume } from './registry.js'
import { findWitnesses, type Mapping, type Watched } from './witnesses.js'

const op = 'snapshot.create'
const TURN_POLL_MS = 20

export interface SnapshotRequest {
  /** Names, mountpoints or directories: all of them at one instant. */
  volumes: readonly string[]
  /** Default: the time. */
  name?: string | undefined
  /** Longest time that I/O is held on any of them, ms. */
  maxHoldMs?: number | undefined
  labels?: Readonly<Record<string, string>> | undefined
}

/** A snapshot of this host. */
export interface Snapshot extends Certificate {
  /** Incomplete: not all its volumes have it. Pruned: the journal of one begins after it. */
  state: 'complete' | 'incomplete' | 'pruned'
}

/** Takes a snapshot. USAGE, SNAPSHOT_EXISTS, SNAPSHOT_FAILED with the reason, BUSY. */
export async function createSnapshot(request: SnapshotRequest): Promise<Certificate> {
  const volumes = chooseVolumes(request.volumes)
  const name = request.name ?? new Date().toISOString().replace(/[:.]/g, '-')
  const { maxHoldMs = CUT_HOLD_MS_DEFAULT, labels = {} } = request
  checkRequest(name, maxHoldMs)
  const turn = await takeTurn()
  try {
    removeStaleMeetings(runDirectory(), Date.now())
    requireNew(name)
    await requireProtected(volumes, { waitMs: CUT_GATHER_MS })
    const found = findWitnesses(volumes.map(watched))
    const mapped = await writeOut(found.mapped)
    const id = randomUUID()
    const { members, instant } = await cut(volumes, { id, name, maxHoldMs })
    const created = wallClock(instant)
    await Promise.all(volumes.map(({ config }) => new ControlClient(config.name).flush()))
    await requireProtected(volumes, { waitMs: 0 })
    const certificate: Certificate = {
      version: CERTIFICATE_VERSION,
      id,
      name,
      created,
      labels: { ...labels },
      maxHoldMs,
      members,
      mapped,
      writing: found.writing.slice(0, WRITING_LISTED_MAX),
      writingCount: found.writing.length,
      locks: found.locks,
    }
    store(volumes, certificate)
    return certificate
  } finally {
    turn.close()
  }
}

/** All snapshots of the volumes of this host, oldest first. */
export function listSnapshots(which?: string): Snapshot[] {
  const byId = new Map<string, { certificate: Certificate; having: number; pruned: boolean }>()
  for (const { config, stateDirectory } of listVolumes()) {
    const certificates = new Catalogue(stateDirectory).list()
    const horizon = certificates.length === 0 ? 0n : horizonOf(stateDirectory)
    for (const certificate of certificates) {
      const { id, members } = certificate
      const known = byId.get(id) ?? { certificate, having: 0, pruned: false }
      const seq = members.find(({ uuid }) => uuid === config.uuid)?.seq ?? 0
      known.having += 1
      known.pruned ||= BigInt(seq) <= horizon
      byId.set(id, known)
    }
  }
  const all = [...byId.values()]
    .map(({ certificate, having, pruned }): Snapshot => {
      const whole = having === certificate.members.length
      return { ...certificate, state: pruned ? 'pruned' : whole ? 'complete' : 'incomplete' }
    })
    .sort((a, b) => a.created.localeCompare(b.created))
  if (which === undefined) return all
  const { uuid } = findVolume(which).config
  return all.filter(({ members }) => members.some((member) => member.uuid === uuid))
}

/** SNAPSHOT_NOT_FOUND. */
export function findSnapshot(name: string): Snapshot {
  const found = listSnapshots().find((each) => each.name === name)
  if (found !== undefined) return found
  throw new HoldfastError('SNAPSHOT_NOT_FOUND', `there is no snapshot ${name}`, {
    op: 'snapshot.find',
    hint: 'See what there is: holdfast snapshot list',
  })
}

/** The seq of a snapshot in the journal of one volume. SNAPSHOT_NOT_FOUND. */
export function snapshotSeq(name: string, { config }: Volume): bigint {
  const member = findSnapshot(name).members.find(({ uuid }) => uuid === config.uuid)
  if (member !== undefined) return BigInt(member.seq)
  throw new HoldfastError('SNAPSHOT_NOT_FOUND', `${name} is no snapshot of ${config.name}`, {
    op: 'snapshot.find',
    hint: `See what there is: holdfast snapshot list ${config.name}`,
  })
}

/** Forgets a snapshot, on all its volumes. The journal stays. SNAPSHOT_NOT_FOUND. */
export function destroySnapshot(name: string): void {
  const { id } = findSnapshot(name)
  for (const { stateDirectory } of listVolumes()) {
    const catalogue = new Catalogue(stateDirectory)
    if (catalogue.find(name)?.id === id) catalogue.remove(name)
  }
}

/** Everything up to this seq is gone from a journal; 0 when nothing is, or when it cannot be read now. */
function horizonOf(stateDirectory: string): bigint {
  try {
    const path = journalPath(stateDirectory)
    // Mapping a file that is cut short may end the process.
    if (missingFileBytes(path) > 0) return 0n
    const journal = Journal.open({ path, readOnly: true })
    const { horizon } = journal.meta()
    void journal.close()
    return horizon?.lastSeq ?? 0n
  } catch {
    return 0n
  }
}

function chooseVolumes(named: readonly string[]): Volume[] {
  const byUuid = new Map(named.map(findVolume).map((each) => [each.config.uuid, each]))
  if (byUuid.size > 0) return [...byUuid.values()]
  throw new HoldfastError('USAGE', 'no volume is named', { op })
}

/** One name, one snapshot, whatever its volumes. */
function requireNew(name: string): void {
  for (const { config, stateDirectory } of listVolumes()) {
    if (new Catalogue(stateDirectory).find(name) === undefined) continue
    throw new HoldfastError('SNAPSHOT_EXISTS', `${config.name} has a snapshot ${name} already`, {
      op,
      hint: `Choose another name, or remove it: holdfast snapshot destroy ${name}`,
    })
  }
}

function checkRequest(name: string, maxHoldMs: number): void {
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
async function takeTurn(): Promise<{ close(): unknown }> {
  const end = Date.now() + CUT_TURN_MS
  for (;;) {
    try {
      return await takeLock('cuts', runDirectory())
    } catch (cause) {
      if (Date.now() < end) await sleep(TURN_POLL_MS)
      else throw new HoldfastError('BUSY', 'another snapshot is being taken', { op, cause })
    }
  }
}

/** A journal that is not whole proves nothing; after a start it soon is. SNAPSHOT_FAILED. */
async function requireProtected(
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

function watched({ config }: Volume): Watched {
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

interface CutOrder {
  id: string
  name: string
  maxHoldMs: number
}

interface Failure {
  volume: string
  error: HoldfastError
}

/** Every volume's part of one cut, proven to be one. SNAPSHOT_FAILED. */
async function cut(
  volumes: readonly Volume[],
  { id, name, maxHoldMs }: CutOrder,
): Promise<{ members: Member[]; instant: bigint }> {
  const meeting = volumes.length > 1 ? makeMeeting(runDirectory(), id, volumes.length) : null
  const request = { name, maxHoldMs, meeting, gatherMs: CUT_GATHER_MS }
  const failed: Failure[] = []
  const over = new AbortController()
  let timer: NodeJS.Timeout | undefined
  const part = async ({ config }: Volume): Promise<Member[]> => {
    const { name: volume, uuid } = config
    try {
      const reply = await new ControlClient(volume).cut(request, { signal: over.signal })
      return [{ volume, uuid, ...reply }]
    } catch (error) {
      failed.push({ volume, error: toHoldfastError(error, op) })
      // It may have died: those who wait for it go on, and soon say so.
      if (meeting !== null) failMeeting(meeting)
      timer ??= setTimeout(() => over.abort(), CUT_ANSWER_MS)
      return []
    }
  }
  const members = (await Promise.all(volumes.map(part))).flat()
  clearTimeout(timer)
  if (meeting !== null) removeMeeting(meeting)
  if (failed.length > 0) throw notTaken(failed)
  const instant = commonInstant(members)
  if (instant !== undefined) return { members, instant }
  throw new HoldfastError('SNAPSHOT_FAILED', 'the volumes were not held at one instant', {
    op,
    details: { members },
  })
}

/** What one volume could not do; the others gave up because of it. */
function notTaken(failed: readonly Failure[]): HoldfastError {
  const first = failed.find(({ error }) => error.code !== 'CUT_OTHERS') ?? failed[0]
  const { volume = '', error } = first ?? {}
  const why = error?.code === 'ABORTED' ? 'it does not answer' : error?.message
  const failures: Record<string, ErrorReport> = {}
  for (const each of failed) failures[each.volume] = each.error.toJSON()
  return new HoldfastError('SNAPSHOT_FAILED', `no snapshot: ${volume}: ${why}`, {
    op,
    cause: error,
    hint:
      error?.code === 'HOLD_TIMEOUT'
        ? 'Nothing is on hold any more. Try again, or allow more: --max-hold'
        : error?.hint,
    details: { failures },
  })
}

/** ISO time of an instant of CLOCK_MONOTONIC. */
function wallClock(instant: bigint): string {
  const ago = process.hrtime.bigint() - instant
  return new Date(Date.now() - Number(ago / 1_000_000n)).toISOString()
}

/** All volumes have it, or none. */
function store(volumes: readonly Volume[], certificate: Certificate): void {
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
