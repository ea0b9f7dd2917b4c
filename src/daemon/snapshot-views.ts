/**
 * Frozen trees of snapshots: mounted to stay, or for one command that reads them and is gone.
 */
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { takeLock } from '../lib/abstract-lock.js'
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import { removeEmpty } from '../lib/files.js'
import { requireGoing } from '../lib/going.js'
import { EXEC_PLACE_MS, EXEC_PLACE_POLL_MS } from '../lib/limits.js'
import { isWithin, mountAt, readMounts } from '../lib/mountinfo.js'
import type { Certificate, Member } from '../snapshot/certificate.js'
import { ControlClient } from './client.js'
import { destroySnapshot } from './destroy-snapshot.js'
import { endLeftRunning, withEnvironment } from './left-running.js'
import { runningDaemon } from './lock.js'
import { execPath, viewPath } from './places.js'
import { findVolume, listVolumes } from './registry.js'
import { ReplicaPastClient, replicaHostStatus } from './replica-client.js'
import type { HostedReplica } from './replica-host.js'
import { createSnapshot, findSnapshot } from './snapshots.js'
import type { ViewStatus } from './view-table.js'

/** The view of one volume of a snapshot. */
export interface SnapshotView extends ViewStatus {
  volume: string
}

/**
 * Mounts the views of all volumes of a snapshot: one volume at `path`, several below it by name.
 * Default: always the same place below the run directory. SNAPSHOT_NOT_FOUND, HISTORY_RANGE, BUSY.
 */
export async function mountSnapshot(
  name: string,
  { path, ownerPid = null }: { path?: string | undefined; ownerPid?: number | null } = {},
): Promise<SnapshotView[]> {
  const { members } = findSnapshot(name)
  const place = ({ volume }: Member) => {
    if (path === undefined) return viewPath(volume, name)
    return members.length === 1 ? path : join(path, volume)
  }
  const mounted: SnapshotView[] = []
  try {
    for (const member of members) {
      const { volume, seq } = member
      const request = { seq, path: place(member), snapshot: name, ownerPid }
      mounted.push({ volume, ...(await new ControlClient(volume).mountView(request)) })
    }
  } catch (error) {
    await unmountViews(mounted, true)
    throw error
  }
  return mounted
}

/** Every view; the first failure is thrown after all were tried. BUSY unless `lazy`. */
export async function unmountViews(views: readonly SnapshotView[], lazy: boolean): Promise<void> {
  const failures: unknown[] = []
  for (const { volume, id } of views) {
    await new ControlClient(volume).unmountView(id, lazy).catch((error) => failures.push(error))
  }
  if (failures.length > 0) throw failures[0]
}

/** Ends the view that is shown at a path. VIEW_NOT_FOUND, BUSY. */
export async function unmountAt(path: string, lazy: boolean): Promise<void> {
  for (const { config } of listVolumes()) {
    if (runningDaemon(config.name) === undefined) continue
    const client = new ControlClient(config.name)
    const view = (await client.history()).views.find((each) => each.path === path)
    if (view !== undefined) return client.unmountView(view.id, lazy)
  }
  for (const { name, history } of await hostedReplicas()) {
    const view = history.views.find((each) => each.path === path)
    if (view !== undefined) return new ReplicaPastClient(name).unmountView(view.id, lazy)
  }
  throw new HoldfastError('VIEW_NOT_FOUND', `no view is shown at ${path}`, {
    op: 'history.unmount',
    hint: 'See what there is: holdfast status',
  })
}

/** None where no replica server runs. */
async function hostedReplicas(): Promise<HostedReplica[]> {
  try {
    return (await replicaHostStatus()).replicas
  } catch (error) {
    if (toHoldfastError(error, 'replica.list').code === 'VOLUME_NOT_RUNNING') return []
    throw error
  }
}

/** Ends all views of a snapshot; returns how many there were. BUSY. */
export async function unmountSnapshot(name: string, lazy: boolean): Promise<number> {
  const found: SnapshotView[] = []
  for (const { volume } of findSnapshot(name).members) {
    const { views } = await new ControlClient(volume).history()
    found.push(...views.filter((v) => v.snapshot === name).map((v) => ({ volume, ...v })))
  }
  await unmountViews(found, lazy)
  return found.length
}

/** What a command gets to see. */
export interface Exposed {
  certificate: Certificate
  /** Of one volume its tree; of several the directory that has them by name. */
  path: string
  views: SnapshotView[]
}

export interface ExposeRequest {
  volumes: readonly string[]
  name?: string | undefined
  maxHoldMs?: number | undefined
  labels?: Readonly<Record<string, string>> | undefined
  /** Where the views are shown; default: always the same place for the same volumes. */
  path?: string | undefined
  /** The snapshot stays; its views go. */
  keep?: boolean
  /** Ends it until `work` begins, with what was begun undone. */
  signal?: AbortSignal | undefined
}

/**
 * Takes a snapshot, shows it, runs `work`, and clears up, however that ends. Should this process be
 * killed, the daemons clear up. BUSY while another one uses the place. HISTORY_RANGE or VIEW_NOT_FOUND
 * after `work` when what the views showed did not last: what was read is not to be relied on. ABORTED:
 * it was stopped before `work`.
 */
export async function withSnapshot<T>(
  { path, keep = false, ...request }: ExposeRequest,
  work: (exposed: Exposed) => Promise<T>,
): Promise<T> {
  const place = path ?? execPath(...request.volumes.map((each) => findVolume(each).config.name))
  const turn = await takePlace(place)
  try {
    const certificate = await createSnapshot({ ...request, temporary: !keep })
    return await withViews({ certificate, place, keep, signal: request.signal }, work)
  } finally {
    turn.close()
  }
}

interface ShowRequest extends Pick<ExposeRequest, 'signal'> {
  certificate: Certificate
  place: string
  keep: boolean
}

/** Shows a snapshot at a place that is taken, runs `work`, and clears up; as `withSnapshot`. */
export async function withViews<T>(
  { certificate, place, keep, signal }: ShowRequest,
  work: (exposed: Exposed) => Promise<T>,
): Promise<T> {
  const { name } = certificate
  let views: SnapshotView[] = []
  /** What all have in their environment that `work` has started on the views. */
  let begun: Record<string, string> | undefined
  try {
    requireGoing(signal, 'exec')
    views = await mountSnapshot(name, { path: place, ownerPid: process.pid })
    requireGoing(signal, 'exec')
    begun = { HOLDFAST_SNAPSHOT: name, HOLDFAST_VIEW: place }
    const result = await work({ certificate, path: place, views })
    for (const view of views) await requireKept(view)
    return result
  } finally {
    if (begun !== undefined) await endLeftRunning(withEnvironment(begun))
    await unmountViews(views, true).catch(ignoreGone)
    for (const { path } of views) removeDead(path)
    if (views.length > 1) removeEmpty(place)
    if (!keep) await destroySnapshot(name, { hooks: false }).catch(ignoreGone)
  }
}

/** One command at a time at one place; views of one that was killed are gone in a moment. BUSY. */
export async function takePlace(place: string): Promise<{ close(): unknown }> {
  const op = 'exec'
  const hint = 'Wait until it has ended, or show this one elsewhere: --at'
  const turn = await takeLock('exec', place).catch((cause: unknown) => {
    const message = `another command sees a snapshot at ${place}`
    throw new HoldfastError('BUSY', message, { op, hint, cause })
  })
  const end = Date.now() + EXEC_PLACE_MS
  const isUsed = () =>
    readMounts().some((each) => isView(each.source) && isWithin(each.mountpoint, place))
  while (isUsed()) {
    if (Date.now() > end) {
      turn.close()
      throw new HoldfastError('BUSY', `a snapshot is shown at ${place}`, { op, hint })
    }
    await sleep(EXEC_PLACE_POLL_MS)
  }
  return turn
}

/** HISTORY_RANGE, VIEW_NOT_FOUND: what a command saw may not have been the snapshot. */
async function requireKept({ volume, seq, id, path }: SnapshotView): Promise<void> {
  const op = 'exec'
  const look = new ControlClient(volume).history()
  const state = await look.catch((cause: unknown) => {
    if (toHoldfastError(cause, op).code === 'VOLUME_NOT_RUNNING') return undefined
    throw cause
  })
  if (!state?.views.some((view) => view.id === id && view.path === path && view.seq === seq)) {
    const message = `${volume} went away while the command ran: it did not see all of the snapshot`
    throw new HoldfastError('VIEW_NOT_FOUND', message, {
      op,
      hint: `See how it is, and run the command again: holdfast status ${volume}`,
    })
  }
  if (state.floor <= seq) return
  const message = `the history of ${volume} had no room: what the command saw may be wrong`
  throw new HoldfastError('HISTORY_RANGE', message, {
    op,
    hint: `Give it more: holdfast mount ${volume} --history-size SIZE, or --history-full refuse`,
  })
}

const isView = (source: string) => source.startsWith('holdfast-view:')

/** The view of a daemon that has died: nobody else takes it away before the volume is back. */
function removeDead(path: string): void {
  if (!isView(mountAt(path)?.source ?? '')) return
  execFileSync('umount', ['-l', '--', path], { stdio: 'ignore' })
  removeEmpty(path)
}

/** A daemon that has gone has taken its views with it. */
function ignoreGone(error: unknown): void {
  const { code } = toHoldfastError(error, 'exec')
  if (code !== 'VOLUME_NOT_RUNNING' && code !== 'VIEW_NOT_FOUND' && code !== 'SNAPSHOT_NOT_FOUND') {
    throw error
  }
}
