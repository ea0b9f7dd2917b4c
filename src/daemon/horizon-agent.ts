/** Answers a coordinator for this host: how far the replicas of its volumes may apply, and how they stand. */
import type { ReportedReplica } from '../group/horizon.js'
import type { Answer, Question } from '../group/wire.js'
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import { CONTROL_TIMEOUT_MS } from '../lib/limits.js'
import { ControlClient } from './client.js'
import type { HorizonOrder, HorizonReply } from './horizon.js'
import type { Volume } from './registry.js'
import type { ReplicaStatus } from './replica-status.js'

const op = 'group.horizon'

type Told = Answer<'horizon'>['members'][number]

export interface HorizonAsked {
  question: Question<'horizon'>
  /** Whoever asks. */
  coordinator: string
  /** By UUID. NOT_FOUND, NOT_ALLOWED. */
  find(uuid: string): Volume
}

/** Of each volume what it says, or why it says nothing. */
export async function answerHorizon(asked: HorizonAsked): Promise<Answer<'horizon'>> {
  const { volumes } = asked.question
  return { members: await Promise.all(volumes.map((uuid) => follow(asked, uuid))) }
}

async function follow(
  { question: { group, order, wait }, coordinator, find }: HorizonAsked,
  uuid: string,
): Promise<Told> {
  try {
    const client = new ControlClient(find(uuid).config.name)
    const wanted: HorizonOrder | null = order && {
      group: { ...group, coordinator },
      revision: order.revision,
      seq: order.seqs[uuid] ?? 0,
      frozen: order.frozen,
    }
    const seq = wait?.seqs[uuid]
    const waits =
      wait === null || seq === undefined ? null : { for: wait.for, waitMs: wait.waitMs, seq }
    const ask = (said: HorizonOrder | null) =>
      client.horizon(
        { order: said, wait: waits },
        { timeoutMs: CONTROL_TIMEOUT_MS + (wait?.waitMs ?? 0) },
      )
    const reply = await ask(wanted).catch((error: unknown) => {
      // Somebody else has told it something newer: whoever asks finds that out.
      if (error instanceof HoldfastError && error.code === 'GROUP_STALE') return ask(null)
      throw error
    })
    return told(uuid, reply)
  } catch (error) {
    const { message } = toHoldfastError(error, op)
    return { ...NOTHING, uuid, error: message }
  }
}

const NOTHING: Omit<Told, 'uuid' | 'error'> = {
  state: 'unknown',
  captured: 0,
  revision: 0,
  seq: 0,
  frozen: null,
  replicas: [],
}

function told(uuid: string, { horizon, state, captured, replicas }: HorizonReply): Told {
  return {
    uuid,
    error: null,
    state,
    captured,
    revision: horizon?.revision ?? 0,
    seq: horizon?.seq ?? 0,
    frozen: horizon?.frozen ?? null,
    replicas: replicas.map(reported),
  }
}

function reported(replica: ReplicaStatus): ReportedReplica {
  const { peer, connection, problem, logged, applied, authorised, whole, needs, connections } =
    replica
  return {
    peer,
    connection,
    problem: problem?.message ?? null,
    logged,
    applied,
    authorised,
    heard: connections > 0,
    baseline: !whole,
    needs,
  }
}
