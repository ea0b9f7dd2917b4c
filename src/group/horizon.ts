/**
 * How far the replicas of a group may apply: `groups/NAME/horizon.json` of the coordinator, and what
 * follows from it and from what the hosts report.
 *
 * Invariant: a cut becomes the horizon only when every replica of every member has logged it, and only
 * after all of them have applied the one before. So replicas stand at the horizon or at the one before,
 * have the horizon in their logs, and the last cut that all have applied is one of these two.
 */
import { existsSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { writeFileDurably } from '../lib/files.js'
import { APPLICATION_HOLD_MS_MAX } from '../lib/limits.js'
import { readStored } from '../lib/stored.js'

const FILE = 'horizon.json'

const FrozenSchema = z.strictObject({
  since: z.iso.datetime(),
  /** Who or what asked for it. */
  why: z.string().max(4096),
  /** Until when applications are held at most, by the coordinator's clock; null: they are not. */
  heldUntil: z.iso.datetime().nullable().default(null),
})
export type Frozen = z.infer<typeof FrozenSchema>

/** As a host is told of it. */
export const ToldFrozenSchema = FrozenSchema.omit({ heldUntil: true }).extend({
  /** For how long applications are held at most, from when it is heard; 0: they are not. */
  holdMs: z.int().min(0).max(APPLICATION_HOLD_MS_MAX).default(0),
})
type ToldFrozen = z.infer<typeof ToldFrozenSchema>

const CommonCutSchema = z.strictObject({
  /** The snapshot that it is; null: a marker of the coordinator's own. */
  snapshot: z.string().nullable(),
  /** When I/O of all members was at rest. */
  at: z.iso.datetime(),
  /** By UUID of the volume. */
  seqs: z.record(z.uuid(), z.int().min(1)),
})

const StateSchema = z.strictObject({
  version: z.literal(1),
  revision: z.int().min(1),
  /** Replicas may apply up to here; null: nothing yet. */
  horizon: CommonCutSchema.nullable(),
  /** The one before: of those who have not heard of the horizon. */
  before: CommonCutSchema.nullable(),
  frozen: FrozenSchema.nullable(),
})

export type CommonCut = z.infer<typeof CommonCutSchema>
export type GroupHorizon = z.infer<typeof StateSchema>

/** What a host tells of a replica of one of its volumes. */
export const ReportedReplicaSchema = z.object({
  peer: z.string(),
  connection: z.string(),
  problem: z.string().nullable(),
  logged: z.int(),
  applied: z.int(),
  /** It has been connected since its volume's daemon began: what is said of it is its own word. */
  heard: z.boolean(),
  /** What it may ever have been told to apply. */
  authorised: z.int(),
  /** Its tree is no moment's yet. */
  baseline: z.boolean(),
  needs: z.int(),
})
export type ReportedReplica = z.infer<typeof ReportedReplicaSchema>

/** Where the tree of a replica is: at the horizon, before it, beyond all of them, or nowhere. */
export type Stands = 'at' | 'before' | 'behind' | 'beyond' | 'baseline'

/** What the hosts are told of it now: who hears late holds applications for what is left. */
export function orderOf({ revision, frozen, horizon }: GroupHorizon, now = Date.now()) {
  return { revision, frozen: frozen && toldOf(frozen, now), seqs: horizon?.seqs ?? {} }
}

function toldOf({ since, why, heldUntil }: Frozen, now: number): ToldFrozen {
  const left = heldUntil === null ? 0 : Date.parse(heldUntil) - now
  return { since, why, holdMs: Math.min(Math.max(0, left), APPLICATION_HOLD_MS_MAX) }
}

/** What a group is like once it is to be frozen; undefined: it is so already. A hold that is asked for begins anew. */
export function freeze(
  state: GroupHorizon,
  { why, holdMs }: { why: string; holdMs: number },
  now = Date.now(),
): GroupHorizon | undefined {
  const { frozen, revision } = state
  if (frozen !== null && holdMs === 0) return undefined
  const heldUntil = holdMs === 0 ? null : new Date(now + holdMs).toISOString()
  const known = frozen ?? { since: new Date(now).toISOString(), why }
  return { ...state, revision: revision + 1, frozen: { ...known, heldUntil } }
}

/** Durable, at the coordinator. */
export class HorizonStore {
  readonly #path: string

  constructor(hostDirectory: string, group: string) {
    this.#path = join(hostDirectory, 'groups', group, FILE)
  }

  /** UNKNOWN_FORMAT. */
  read(): GroupHorizon | undefined {
    if (!existsSync(this.#path)) return undefined
    return readStored(this.#path, StateSchema, {
      op: 'group.horizon',
      hint: 'Correct it; the members keep what they were told last.',
    })
  }

  /** Durable when it returns. */
  write(state: GroupHorizon): void {
    writeFileDurably(this.#path, `${JSON.stringify(state, null, 2)}\n`)
  }

  /** Idempotent. */
  remove(): void {
    rmSync(this.#path, { force: true })
  }
}

/** A replica may have a cut as its next horizon: it has logged it, and can stand nowhere beyond. */
export function hasLogged({ logged, authorised, baseline }: ReportedReplica, seq: number): boolean {
  return !baseline && logged >= seq && authorised <= seq
}

/** Where its tree is; frames end at markers, so a tree stands at one exactly, or has not got there. */
export function standsAt(
  { applied, baseline, needs }: ReportedReplica,
  { horizon, before }: Pick<GroupHorizon, 'horizon' | 'before'>,
  uuid: string,
): Stands {
  if (baseline || needs > 0) return 'baseline'
  const [at, last] = [horizon?.seqs[uuid], before?.seqs[uuid]]
  if (at === undefined || applied > at) return 'beyond'
  if (applied === at) return 'at'
  return last !== undefined && applied === last ? 'before' : 'behind'
}

/** A member and what is known of its replicas; null: nothing. */
export interface KnownMember {
  uuid: string
  replicas: readonly ReportedReplica[] | null
}

/**
 * The newest cut that all these replicas have applied, and whether all trees stand at it exactly. Of those that
 * nothing is known of now, this much is: they had applied the one before when the horizon was written down.
 */
export function mutualCut(
  state: Pick<GroupHorizon, 'horizon' | 'before'>,
  members: readonly KnownMember[],
): { cut: CommonCut; exact: boolean } | null {
  const least = (uuid: string) => state.before?.seqs[uuid] ?? 0
  const all = members.flatMap(({ uuid, replicas }) => {
    if (replicas === null) return [{ uuid, applied: least(uuid), stands: 'unknown' }]
    return replicas.map((each) => {
      // Whoever has not been heard by its volume's daemon yet is no better known.
      if (!each.heard) {
        return { uuid, applied: least(uuid), stands: 'unknown' }
      }
      return { uuid, applied: each.applied, stands: standsAt(each, state, uuid) }
    })
  })
  // Neither the trees nor the past of these go back to a cut.
  if (all.some(({ stands }) => stands === 'baseline' || stands === 'beyond')) return null
  const unknown = all.some(({ stands }) => stands === 'unknown')
  for (const cut of [state.horizon, state.before]) {
    if (cut === null) continue
    const seqOf = (uuid: string) => cut.seqs[uuid] ?? Number.POSITIVE_INFINITY
    if (all.some(({ uuid, applied }) => applied < seqOf(uuid))) continue
    return { cut, exact: !unknown && all.every(({ uuid, applied }) => applied === seqOf(uuid)) }
  }
  return null
}
