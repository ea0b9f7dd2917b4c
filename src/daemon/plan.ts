/**
 * From what the user says to a volume that can be started: an existing one found again by its
 * directory or state, or a new one. Nothing is written.
 */
import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { HoldfastError } from '../lib/errors.js'
import { mountAt } from '../lib/mountinfo.js'
import { stateRoot } from './places.js'
import { MOUNT_TYPE } from './preflight.js'
import {
  listVolumes,
  newVolume,
  readVolume,
  resolveAhead,
  type Volume,
  type VolumeOptions,
  volumeOptions,
} from './registry.js'

export interface MountPlan {
  /** Directory to protect, or the name of an existing volume. */
  directory: string
  /** Where it appears; default: over the directory itself. */
  at?: string | undefined
  name?: string | undefined
  stateDirectory?: string | undefined
  /** Options to set; for an existing volume they replace the stored ones. */
  options?: Partial<VolumeOptions>
}

/** The volume to start. VOLUME_EXISTS, ALREADY_MOUNTED, USAGE, UNKNOWN_FORMAT. */
export function planMount(plan: MountPlan): Volume {
  const existing = findExisting(plan)
  const given = plan.options ?? {}
  if (existing === undefined) return plannedNew(plan, volumeOptions(given))
  const { config, stateDirectory } = existing
  const options = volumeOptions({ ...config.options, ...given })
  const mountpoint = plan.at === undefined ? config.mountpoint : resolveAhead(plan.at)
  return { config: { ...config, mountpoint, options }, stateDirectory }
}

function findExisting({ directory, name, stateDirectory }: MountPlan): Volume | undefined {
  const byState =
    stateDirectory === undefined ? undefined : readVolume(resolveAhead(stateDirectory))
  const isName = !directory.includes('/') && !existsSync(resolve(directory))
  if (isName) {
    const byName = readVolume(join(stateRoot(), directory))
    if (byName !== undefined) return byName
  }
  const path = resolveAhead(directory)
  if (byState !== undefined) {
    requireSame(byState, path)
    return byState
  }
  const volumes = listVolumes()
  if (name !== undefined) {
    const named = volumes.find(({ config }) => config.name === name)
    if (named === undefined) return undefined
    requireSame(named, path)
    return named
  }
  if (stateDirectory !== undefined) return undefined
  return (
    volumes.find(({ config }) => config.backing === path) ??
    volumes.find(({ config }) => config.mountpoint === path)
  )
}

function requireSame({ config, stateDirectory }: Volume, path: string): void {
  if (config.backing === path || config.mountpoint === path) return
  const message = `${stateDirectory} holds volume ${config.name} of ${config.backing}, not of ${path}`
  throw new HoldfastError('FOREIGN_JOURNAL', message, {
    op: 'mount',
    hint: 'Choose another --name or --state for this directory.',
  })
}

function plannedNew(plan: MountPlan, options: VolumeOptions): Volume {
  const backing = resolveAhead(plan.directory)
  const mount = mountAt(backing)
  if (mount?.type === MOUNT_TYPE) {
    const other = mount.source.replace(/^holdfast:/, '')
    throw new HoldfastError('ALREADY_MOUNTED', `${backing} shows volume ${other} already`, {
      op: 'mount',
      hint: `See: holdfast status ${other}`,
    })
  }
  return newVolume({
    backing,
    mountpoint: plan.at === undefined ? backing : resolveAhead(plan.at),
    name: plan.name,
    stateDirectory:
      plan.stateDirectory === undefined ? undefined : resolveAhead(plan.stateDirectory),
    options,
  })
}
