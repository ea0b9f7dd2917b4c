/**
 * How far the replicas of this volume may apply, as the coordinator of its group says: `horizon.json` in
 * the state directory. A volume of no such group has none, and its replicas apply everything.
 *
 * Invariant: what replicas are told never passes what is durable here; and what the coordinator has said
 * is undone by nothing that it said before (`revision`).
 */
import { existsSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { ToldFrozenSchema } from '../group/horizon.js'
import { HoldfastError } from '../lib/errors.js'
import { writeFileDurably } from '../lib/files.js'
import { NAME } from '../lib/names.js'
import { readStored } from '../lib/stored.js'
import type { ReplicaStatus } from './replica-status.js'
import type { VolumeState } from './status.js'

const FILE = 'horizon.json'
const op = 'volume.horizon'

export const VolumeHorizonSchema = z.strictObject({
  group: z.strictObject({
    id: z.uuid(),
    name: z.string().regex(NAME),
    /** The host that says it. */
    coordinator: z.string(),
  }),
  /** Grows with everything that the coordinator says. */
  revision: z.int().min(1),
  /** Replicas apply up to here; 0: nothing more, until all of the group have logged a marker. */
  seq: z.int().min(0),
  /** Nothing is shipped; null: it is. */
  frozen: ToldFrozenSchema.nullable(),
})
const FileSchema = VolumeHorizonSchema.extend({ version: z.literal(1) })

export type HorizonOrder = z.infer<typeof VolumeHorizonSchema>

/** What `status` tells of it. */
export interface HorizonStatus extends HorizonOrder {
  /** When the coordinator was heard last; null: not since the daemon started. */
  heard: string | null
  /** For how long changes of applications will be held at most; 0: they are not. */
  heldMs: number
}

/** Changes of applications, as the data plane holds them. */
export interface ChangesHold {
  /** From now on, for so long at most; 0: not any more. */
  hold(maxMs: number): void
  leftMs(): number
}

/** What is waited for before an answer, for `waitMs` at most. */
export interface HorizonWait {
  for: 'logged' | 'applied'
  seq: number
  waitMs: number
}

/** JSON values only. */
export interface HorizonReply {
  horizon: HorizonStatus | null
  state: VolumeState
  captured: number
  replicas: ReplicaStatus[]
}

export class VolumeHorizon {
  readonly #path: string
  readonly #volume: string
  readonly #changes: ChangesHold
  #order: HorizonOrder | undefined
  #heard: Date | undefined

  /** UNKNOWN_FORMAT: without it replicas might be told too much. */
  constructor(volume: string, stateDirectory: string, changes: ChangesHold) {
    this.#volume = volume
    this.#changes = changes
    this.#path = join(stateDirectory, FILE)
    this.#order = existsSync(this.#path) ? read(this.#path) : undefined
  }

  get status(): HorizonStatus | null {
    if (this.#order === undefined) return null
    const heard = this.#heard?.toISOString() ?? null
    return { ...this.#order, heard, heldMs: this.#changes.leftMs() }
  }

  /** undefined: replicas may apply all that they get. */
  get seq(): bigint | undefined {
    return this.#order && BigInt(this.#order.seq)
  }

  get frozen(): boolean {
    return this.#order !== undefined && this.#order.frozen !== null
  }

  /** Durable when it returns; whether anything is new. GROUP_OTHER, GROUP_STALE. */
  set(order: HorizonOrder): boolean {
    const known = this.#order
    if (known !== undefined) this.#requireOwn(known, order.group.id)
    if (known !== undefined && order.revision < known.revision) {
      throw new HoldfastError('GROUP_STALE', `${this.#volume} has heard of something newer`, {
        op,
        details: { revision: known.revision },
      })
    }
    this.#heard = new Date()
    if (known?.revision === order.revision) return false
    if (known !== undefined && order.seq < known.seq) {
      const message = `the horizon of ${this.#volume} is at seq ${known.seq}, and cannot go back`
      throw new HoldfastError('GROUP_STALE', message, { op, details: { seq: known.seq } })
    }
    writeFileDurably(this.#path, `${JSON.stringify({ version: 1, ...order }, null, 2)}\n`)
    this.#order = order
    this.#changes.hold(order.frozen?.holdMs ?? 0)
    return true
  }

  /** No horizon any more; `group`: only if it is that one's. Whether there was one. GROUP_OTHER. */
  leave(group?: string): boolean {
    if (this.#order === undefined) return false
    if (group !== undefined) this.#requireOwn(this.#order, group)
    rmSync(this.#path, { force: true })
    this.#order = undefined
    this.#changes.hold(0)
    return true
  }

  #requireOwn({ group }: HorizonOrder, id: string): void {
    if (group.id === id) return
    const message = `the horizon of ${this.#volume} belongs to group ${group.name} of ${group.coordinator}`
    throw new HoldfastError('GROUP_OTHER', message, {
      op,
      hint: `End it there: holdfast group serve ${group.name} --off; or here: holdfast group leave ${this.#volume}`,
    })
  }
}

function read(path: string): HorizonOrder {
  const { version: _, ...order } = readStored(path, FileSchema, {
    op,
    hint: 'Correct it; or remove it, and the replicas apply everything.',
  })
  return order
}
