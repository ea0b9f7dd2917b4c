/**
 * Whether the members of a group are copied, from what their hosts report again and again. A copy is well
 * when its replica is connected, says nothing of trouble, and has what was captured when it was looked at
 * before, or at least more than then. What is not well for longer than it may be has failed.
 */
import type { ReportedReplica } from './horizon.js'

/** A member, as its host reports it. */
export interface ReportedMember {
  uuid: string
  /** Why nothing is known of it. */
  error: string | null
  captured: number
  replicas: readonly ReportedReplica[]
}

interface Copy {
  uuid: string
  /** When it was well last, ms. */
  wellAt: number
  why: string
  captured: number
  logged: number
}

export class Copying {
  readonly #timeoutMs: number
  readonly #graceMs: number
  /** All catch up before that. */
  #notBefore = 0
  readonly #copies = new Map<string, Copy>()

  /** `graceMs`: time to become well for the first time. */
  constructor({ timeoutMs, graceMs }: { timeoutMs: number; graceMs: number }) {
    this.#timeoutMs = timeoutMs
    this.#graceMs = graceMs
  }

  /** All get time to become well again, and to catch up. */
  restart(now: number): void {
    this.#notBefore = now + this.#graceMs
    for (const copy of this.#copies.values()) copy.wellAt = this.#notBefore
  }

  /** A host has told of a member. `name` is for people; times in ms of any clock that does not go back. */
  heard(name: string, member: ReportedMember, now: number): void {
    const { uuid, error, replicas, captured } = member
    const keys = new Set([uuid, ...replicas.map(({ peer }) => `${uuid}/${peer}`)])
    for (const [key, copy] of this.#copies) {
      if (copy.uuid === uuid && !keys.has(key) && error === null) this.#copies.delete(key)
    }
    const itself = this.#copy(uuid, uuid, now)
    if (error !== null) itself.why = `${name}: ${error}`
    else well(itself, `${name}: it does not answer`, now)
    for (const replica of replicas) {
      const copy = this.#copy(`${uuid}/${replica.peer}`, uuid, now)
      const why = trouble(replica, copy)
      if (why === undefined) well(copy, `${name} to ${replica.peer}: it is not heard of`, now)
      else copy.why = `${name} to ${replica.peer}: ${why}`
      copy.captured = captured
      copy.logged = replica.logged
    }
  }

  /** Nothing was heard of a member, for this reason. */
  unheard(name: string, uuid: string, why: string, now: number): void {
    this.#copy(uuid, uuid, now).why = `${name}: ${why}`
  }

  /** Members that are none any more are not looked at. */
  keepOnly(uuids: ReadonlySet<string>): void {
    for (const [key, { uuid }] of this.#copies) if (!uuids.has(uuid)) this.#copies.delete(key)
  }

  /** What has failed, and for how long; undefined: nothing. */
  failure(now: number): string | undefined {
    if (now < this.#notBefore) return undefined
    const failed = [...this.#copies.values()].filter(({ wellAt }) => now - wellAt > this.#timeoutMs)
    const [worst] = failed.sort((a, b) => a.wellAt - b.wellAt)
    if (worst === undefined) return undefined
    return `${worst.why}, for ${((now - worst.wellAt) / 1000).toFixed(1)} s`
  }

  #copy(key: string, uuid: string, now: number): Copy {
    const known = this.#copies.get(key)
    if (known !== undefined) return known
    const copy = {
      uuid,
      wellAt: now + this.#graceMs,
      why: 'it does not answer',
      captured: 0,
      logged: 0,
    }
    this.#copies.set(key, copy)
    return copy
  }
}

/** `silent`: what is wrong when nothing is heard from here on. */
function well(copy: Copy, silent: string, now: number): void {
  copy.wellAt = now
  copy.why = silent
}

/** Why a copy is not well; undefined: it is. */
function trouble(replica: ReportedReplica, before: Copy): string | undefined {
  const { connection, problem, logged, baseline } = replica
  if (problem !== null) return problem
  if (connection !== 'connected') return 'the replica is not connected'
  const moves = baseline || logged >= before.captured || logged > before.logged
  return moves ? undefined : 'the replica logs nothing'
}
