/**
 * The replicas of this host: one directory each below the root, with `replica.json`, the tree
 * (`tree`), the log (`log`), the replay's state (`replay`), and the history (`history`) if one is kept.
 */
import { existsSync, mkdirSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { HoldfastError } from '../lib/errors.js'
import { writeFileDurably } from '../lib/files.js'
import { APPLY_DELAY_MS_MAX, HISTORY_BYTES_MIN } from '../lib/limits.js'
import { readStored } from '../lib/stored.js'

const FILE = 'replica.json'

const HistorySchema = z.strictObject({
  /** Most bytes of it. */
  bytesMax: z.int().min(HISTORY_BYTES_MIN),
  /** How old its moments get; null: as old as the bytes allow. */
  ageMs: z.int().min(0).nullable(),
})

/** What is kept of the past of a replica: every change. */
export type HistoryConfig = z.infer<typeof HistorySchema>

const Schema = z.strictObject({
  version: z.literal(1),
  /** UUID of the volume. */
  uuid: z.uuid(),
  name: z.string(),
  /** Who it belongs to, and no other may reach it: a fingerprint, or `ssh:NAME`. */
  owner: z.string(),
  ownerName: z.string(),
  created: z.iso.datetime(),
  /** How much later than it was captured it is applied. */
  applyDelayMs: z.int().min(0).max(APPLY_DELAY_MS_MAX).default(0),
  /** By how much this host's clock is ahead of its primary's, as far as is known. */
  clockAheadMs: z.int().default(0),
  /** Absent: nothing is kept of its past. */
  history: HistorySchema.optional(),
})

export type ReplicaConfig = z.infer<typeof Schema>

export interface ReplicaPlace {
  directory: string
  tree: string
  log: string
  replay: string
  history: string
}

export function replicaPlace(directory: string): ReplicaPlace {
  const at = (name: string) => join(directory, name)
  const [tree, log, replay] = [at('tree'), at('log'), at('replay')]
  return { directory, tree, log, replay, history: at('history') }
}

/** undefined when there is none; UNKNOWN_FORMAT. */
export function readReplica(directory: string): ReplicaConfig | undefined {
  const path = join(directory, FILE)
  if (!existsSync(path)) return undefined
  return readStored(path, Schema, {
    op: 'replica.read',
    hint: 'Use the holdfast that wrote it, or restore it from a backup.',
  })
}

export function writeReplica(directory: string, config: ReplicaConfig): void {
  writeFileDurably(join(directory, FILE), `${JSON.stringify(config, null, 2)}\n`)
}

/** There is something in the tree. */
export function hasTree({ tree }: ReplicaPlace): boolean {
  try {
    return readdirSync(tree).length > 0
  } catch {
    return false
  }
}

export function listReplicas(root: string): { config: ReplicaConfig; directory: string }[] {
  if (!existsSync(root)) return []
  const names = readdirSync(root).sort()
  return names.flatMap((name) => {
    const directory = join(root, name)
    const config = readReplica(directory)
    return config === undefined ? [] : [{ config, directory }]
  })
}

/** There is nothing, or nothing but a tree: an old copy to start from. */
function isFree(directory: string): boolean {
  if (!existsSync(directory)) return true
  return readdirSync(directory).every((name) => name === 'tree')
}

/**
 * Makes the directory of a new replica: named after the volume, or after its UUID as well where that
 * is another's.
 */
export function createReplica(root: string, config: ReplicaConfig): string {
  const plain = join(root, config.name)
  const directory = !isFree(plain) ? join(root, `${config.name}-${config.uuid}`) : plain
  const { tree } = replicaPlace(directory)
  mkdirSync(tree, { recursive: true, mode: 0o755 })
  writeReplica(directory, config)
  return directory
}

/** Refuses whoever it does not belong to. */
export function requireOwner(config: ReplicaConfig, identity: string): void {
  if (config.owner === identity) return
  throw new HoldfastError('PEER_UNKNOWN', `volume ${config.uuid} is not this peer's`, {
    op: 'replica.open',
  })
}
