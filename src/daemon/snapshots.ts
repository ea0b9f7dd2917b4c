/**
 * Snapshots of volumes of this host: orders the cut, proves that it is one instant, and keeps the
 * certificate with every volume. Whoever orders it may die at any moment: a hold ends by itself, and
 * a marker without a certificate is no snapshot.
 */
import { randomUUID } from 'node:crypto'
import { Journal } from '../journal/store.js'
import { missingFileBytes } from '../journal/verify.js'
import { HoldfastError } from '../lib/errors.js'
import { CUT_ATTEMPTS_DEFAULT, CUT_GATHER_MS, CUT_HOLD_MS_DEFAULT } from '../lib/limits.js'
import { native } from '../lib/native.js'
import { ownerOf } from '../lib/process-id.js'
import { Catalogue } from '../snapshot/catalogue.js'
import { CERTIFICATE_VERSION, type Certificate, seqIn } from '../snapshot/certificate.js'
import type { HookRun } from '../snapshot/hook-run.js'
import { aroundSnapshot, type HookSession, rehearse } from '../snapshot/hook-session.js'
import { removeStaleMeetings } from '../snapshot/meeting.js'
import { takeCut } from './cut.js'
import { type HookOptions, openHooks } from './hooks.js'
import { useSnapshot } from './in-use.js'
import { historyPath, journalPath, runDirectory } from './places.js'
import { findVolume, listVolumes, type Volume } from './registry.js'
import {
  checkRequest,
  keep,
  lookAround,
  requireMarked,
  requireNew,
  requireProtected,
  store,
  takeTurn,
  wallClock,
} from './taking.js'

const op = 'snapshot.create'

export interface SnapshotRequest extends HookOptions {
  /** Names, mountpoints or directories: all of them at one instant. */
  volumes: readonly string[]
  /** Default: the time. */
  name?: string | undefined
  /** Longest time that I/O is held on any of them, ms. */
  maxHoldMs?: number | undefined
  /** How often it is tried, when I/O does not come to rest in that time. */
  attempts?: number | undefined
  labels?: Readonly<Record<string, string>> | undefined
  /** The snapshot goes with the calling process, however that ends. */
  temporary?: boolean | undefined
}

/** A snapshot of this host. */
export interface Snapshot extends Certificate {
  /** Incomplete: not all its volumes have it. Pruned: the journal of one begins after it. */
  state: 'complete' | 'incomplete' | 'pruned'
  /** Can it be looked at? Lost: the history of a volume had no room for it. None: one keeps none. */
  past: 'kept' | 'lost' | 'none'
}

/** Takes a snapshot. USAGE, SNAPSHOT_EXISTS, SNAPSHOT_FAILED and HOOK_FAILED with the reason, BUSY. */
export async function createSnapshot(request: SnapshotRequest): Promise<Certificate> {
  return inTurn(request, async (order, hooks) => {
    const { volumes } = order
    const id = randomUUID()
    const use = await useSnapshot(id)
    try {
      const certificate = await aroundSnapshot(hooks, {
        check: () => requireProtected(volumes, { waitMs: CUT_GATHER_MS }),
        take: () => take(id, order, hooks),
      })
      if (certificate.hooks.length === hooks.runs.length) return certificate
      const whole = { ...certificate, hooks: hooks.runs }
      // A hook may have destroyed it.
      const having = volumes.filter((each) => new Catalogue(each.stateDirectory).find(order.name))
      store(having, whole)
      return whole
    } finally {
      use.close()
    }
  })
}

/** Runs the hooks of a snapshot, told that nothing is taken. HOOK_FAILED, and as `createSnapshot`. */
export async function rehearseSnapshot(request: SnapshotRequest): Promise<HookRun[]> {
  return inTurn({ ...request, dryRun: true }, async ({ volumes }, hooks) => {
    await rehearse(hooks, () => requireProtected(volumes, { waitMs: CUT_GATHER_MS }))
    return hooks.runs
  })
}

/** What is asked for, checked. */
interface SnapshotOrder {
  volumes: Volume[]
  name: string
  maxHoldMs: number
  attempts: number
  labels: Record<string, string>
  temporary: boolean
}

/** Checks what is asked for, and has it done when no other snapshot is being taken. */
async function inTurn<Result>(
  request: SnapshotRequest & { dryRun?: boolean },
  work: (order: SnapshotOrder, hooks: HookSession) => Promise<Result>,
): Promise<Result> {
  const volumes = chooseVolumes(request.volumes)
  const name = request.name ?? new Date().toISOString().replace(/[:.]/g, '-')
  const {
    maxHoldMs = CUT_HOLD_MS_DEFAULT,
    attempts = CUT_ATTEMPTS_DEFAULT,
    labels = {},
    dryRun = false,
    temporary = false,
  } = request
  checkRequest(name, maxHoldMs)
  const turn = await takeTurn()
  try {
    removeStaleMeetings(runDirectory(), Date.now())
    requireNew(name)
    const subject = { snapshot: name, labels, maxHoldMs, dryRun }
    const hooks = openHooks(volumes, subject, request)
    const order = { volumes, name, maxHoldMs, attempts, labels: { ...labels }, temporary }
    return await work(order, hooks)
  } finally {
    turn.close()
  }
}

async function take(id: string, order: SnapshotOrder, hooks: HookSession): Promise<Certificate> {
  const { volumes, name, maxHoldMs, attempts, labels } = order
  const seen = await lookAround(volumes)
  const { members, instant, attempt } = await takeCut(volumes, {
    id,
    name,
    maxHoldMs,
    attempts,
    whileHeld: hooks.hasHeld ? (over) => hooks.held({ holdMs: maxHoldMs, over }) : undefined,
  })
  const created = wallClock(instant)
  await requireMarked(volumes)
  const certificate: Certificate = {
    version: CERTIFICATE_VERSION,
    id,
    name,
    created,
    labels,
    maxHoldMs,
    attempt,
    members,
    ...seen,
    owner: order.temporary ? ownerOf(process.pid) : null,
    group: null,
    hooks: [...hooks.runs],
  }
  keep(volumes, certificate, hooks)
  return certificate
}

/** All snapshots of the volumes of this host, oldest first. */
export function listSnapshots(which?: string): Snapshot[] {
  interface Known {
    certificate: Certificate
    having: number
    pruned: boolean
    past: Snapshot['past']
  }
  const byId = new Map<string, Known>()
  for (const volume of listVolumes()) {
    const { config, stateDirectory } = volume
    const certificates = new Catalogue(stateDirectory).list()
    if (certificates.length === 0) continue
    const horizon = horizonOf(stateDirectory)
    const floor = floorOf(volume)
    for (const certificate of certificates) {
      const { id } = certificate
      const known = byId.get(id) ?? { certificate, having: 0, pruned: false, past: 'kept' }
      const seq = BigInt(seqIn(certificate, config.uuid) ?? 0)
      known.having += 1
      known.pruned ||= seq <= horizon
      if (floor === null) known.past = 'none'
      else if (seq < floor && known.past === 'kept') known.past = 'lost'
      byId.set(id, known)
    }
  }
  const all = [...byId.values()]
    .map(({ certificate, having, pruned, past }): Snapshot => {
      const whole = having === certificate.members.length
      return { ...certificate, state: pruned ? 'pruned' : whole ? 'complete' : 'incomplete', past }
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
  const seq = seqIn(findSnapshot(name), config.uuid)
  if (seq !== undefined) return BigInt(seq)
  throw new HoldfastError('SNAPSHOT_NOT_FOUND', `${name} is no snapshot of ${config.name}`, {
    op: 'snapshot.find',
    hint: `See what there is: holdfast snapshot list ${config.name}`,
  })
}

/** Moments from this seq on can be looked at; null: none. */
function floorOf(volume: Volume): bigint | null {
  return volume.config.options.history === 'none' ? null : native.historyFloor(historyPath(volume))
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
