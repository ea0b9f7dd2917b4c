/**
 * Comparison of a volume with its replicas: scans the tree into the journal as something to compare
 * with, waits until the replicas have passed it, and tells what they found. One at a time.
 *
 * It lives in the daemon, so that whoever asked for it may go away; `progress` says where it is.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { type ErrorReport, HoldfastError, toHoldfastError } from '../lib/errors.js'
import { VERIFY_STALL_MS } from '../lib/limits.js'
import type { Logger } from '../lib/log.js'
import type { FoundDifference } from '../replication/replica-messages.js'
import type { Shipper } from '../replication/shipper.js'
import { chooseReplicas } from './chosen.js'

const POLL_MS = 50

export interface VerifyOptions {
  /** Only these replicas; default: all. */
  peers?: readonly string[] | undefined
  /** What differs is repaired. */
  repair: boolean
  /** Most bytes read in a second; 0: no limit. */
  bytesPerS: number
}

/** What a comparison says of one replica. */
export interface VerifiedReplica {
  peer: string
  /** `interrupted`: it lost its place meanwhile, or was not connected: nothing is known. */
  result: 'equal' | 'different' | 'repaired' | 'interrupted'
  /** How many things differ, and the first of them. */
  differences: number
  list: FoundDifference[]
  problem: string | null
}

export interface VerifyProgress {
  state: 'scanning' | 'comparing' | 'repairing' | 'done' | 'failed'
  begun: string
  /** Objects looked at, and bytes read, on this host. */
  objects: number
  bytes: number
  seconds: number
  replicas: VerifiedReplica[]
  error: ErrorReport | null
}

/** What a comparison needs of the volume. */
export interface VerifiedVolume {
  startVerify(options: { bytesPerS: number }): void
  scanning(): boolean
  scanErrors(): number
  scanned(): { objects: number; bytes: number }
  flush(): Promise<bigint>
}

/** A replica that takes part. */
export interface Participant {
  peer: string
  shipper: Shipper
}

export class Verification {
  readonly #volume: VerifiedVolume
  readonly #log: Logger
  readonly #signal = new AbortController()
  #progress: VerifyProgress | null = null
  #running: Promise<void> | undefined

  constructor(volume: VerifiedVolume, log: Logger) {
    this.#volume = volume
    this.#log = log
  }

  /** The one under way, or the last one since the daemon started. */
  get progress(): VerifyProgress | null {
    return this.#progress
  }

  get isRunning(): boolean {
    return this.#running !== undefined
  }

  /** Begins; follow `progress`. BUSY, NOT_REPLICATED. */
  start(participants: readonly Participant[], options: VerifyOptions): VerifyProgress {
    const op = 'verify'
    if (this.#running !== undefined) {
      throw new HoldfastError('BUSY', 'a comparison is under way already', { op })
    }
    const byPeer = new Map(participants.map((each) => [each.peer, each]))
    const chosen = chooseReplicas(byPeer, { peers: options.peers, op })
    const progress: VerifyProgress = {
      state: 'scanning',
      begun: new Date().toISOString(),
      objects: 0,
      bytes: 0,
      seconds: 0,
      replicas: [],
      error: null,
    }
    this.#progress = progress
    // All of them compare, whomever it is told of.
    const comparing = (on: boolean) => {
      for (const { shipper } of participants) shipper.comparing(on)
    }
    this.#running = this.#run(progress, chosen, { ...options, comparing })
      .catch((error: unknown) => {
        progress.state = 'failed'
        progress.error = toHoldfastError(error, op).toJSON()
        this.#log.error({ error: progress.error }, 'the comparison has failed')
      })
      .finally(() => {
        comparing(false)
        this.#running = undefined
      })
    return progress
  }

  /** Idempotent. */
  async close(): Promise<void> {
    this.#signal.abort()
    await this.#running
  }

  async #run(
    progress: VerifyProgress,
    participants: readonly Participant[],
    { repair, bytesPerS, comparing }: VerifyOptions & { comparing(on: boolean): void },
  ): Promise<void> {
    const begun = Date.now()
    const poll = async () => {
      progress.seconds = (Date.now() - begun) / 1000
      await sleep(POLL_MS, undefined, { signal: this.#signal.signal })
    }
    while (this.#volume.scanning()) await poll()
    comparing(true)
    const from = await this.#volume.flush()
    this.#volume.startVerify({ bytesPerS })
    while (this.#volume.scanning()) {
      Object.assign(progress, this.#volume.scanned())
      await poll()
    }
    Object.assign(progress, this.#volume.scanned())
    if (this.#volume.scanErrors() > 0) {
      throw new HoldfastError('NATIVE', 'the tree could not be read to its end', { op: 'verify' })
    }
    const end = await this.#volume.flush()
    progress.state = 'comparing'
    const applied = ({ shipper }: Participant) => shipper.state.applied
    await moving(participants, applied, (each) => applied(each) >= end, poll)
    progress.replicas = participants.map((each) => judge(each, { from, end }))
    const differing = participants.filter(
      (_, index) => progress.replicas[index]?.result === 'different',
    )
    if (repair && differing.length > 0) {
      progress.state = 'repairing'
      for (const { shipper } of differing) shipper.repair()
      await moving(differing, applied, ({ shipper }) => shipper.state.needs === 0, poll)
      for (const { peer, shipper } of differing) {
        const found = progress.replicas.find((each) => each.peer === peer)
        if (found !== undefined && shipper.state.needs === 0) found.result = 'repaired'
      }
    }
    progress.seconds = (Date.now() - begun) / 1000
    progress.state = 'done'
    const { replicas, objects, bytes, seconds } = progress
    const results = replicas.map(({ peer, result, differences }) => ({ peer, result, differences }))
    this.#log.info({ results, objects, bytes, seconds }, 'compared with the replicas')
  }
}

/** Waits until all have come there, as long as those that have not are moving. */
async function moving(
  participants: readonly Participant[],
  position: (each: Participant) => bigint,
  arrived: (each: Participant) => boolean,
  poll: () => Promise<void>,
): Promise<void> {
  const seen = new Map<Participant, { at: bigint; since: number }>()
  const waits = (each: Participant) => {
    if (arrived(each)) return false
    const at = position(each)
    const before = seen.get(each)
    if (before?.at !== at) seen.set(each, { at, since: Date.now() })
    return Date.now() - (seen.get(each)?.since ?? 0) < VERIFY_STALL_MS
  }
  while (participants.some(waits)) await poll()
}

function judge(
  { peer, shipper }: Participant,
  { from, end }: { from: bigint; end: bigint },
): VerifiedReplica {
  const { applied, problem, verdict } = shipper.state
  const { verified } = verdict
  if (verified === null || applied < end || BigInt(verified.seq) <= from) {
    const why = problem?.message ?? 'it was restarted, or stood still, meanwhile'
    return { peer, result: 'interrupted', differences: 0, list: [], problem: why }
  }
  const { differences } = verified
  const result = differences === 0 ? 'equal' : 'different'
  return { peer, result, differences, list: [...shipper.differences], problem: null }
}
