/**
 * The primary's side of one replica, as a state machine: what it is told goes in, what to do comes
 * out. It reads, sends and waits for nothing itself; `shipper.ts` does that.
 *
 * Invariant: frames go out in order and without a gap from the place the replica named; at most
 * `window` bytes are under way, sent and not logged there. Nobody is believed to have what was not
 * sent to them.
 */
import { HoldfastError } from '../lib/errors.js'
import type { JournalEnd } from '../record/frame.js'
import type { HeaderOf, WirePlace } from './message.js'
import { NO_VERDICT, type Verdict } from './verdict.js'

/** Where a replica is, as far as its acknowledgements have come. */
export interface ReplicaPositions {
  sent: bigint
  logged: bigint
  applied: bigint
}

/** How to go on with a replica that has said where it is. */
export type Plan =
  /** `lost`: the replica had acknowledged this place before, and has less now. */
  | { kind: 'resume'; after: bigint; lost: bigint | null }
  /** It lacks what the journal does not have any more, or has what the journal never had. */
  | { kind: 'baseline'; reason: string }

export class Sender {
  readonly #window: number
  #sent = 0n
  #logged = 0n
  #applied = 0n
  #baseline = true
  #underWay: { lastSeq: bigint; bytes: number }[] = []
  #underWayBytes = 0
  #failure: HeaderOf<'ack'>['failure'] = null
  #needs = 0
  #verdict = NO_VERDICT
  /** What it has said to have logged, on any connection since its last reset. */
  #acknowledged = 0n
  /** seq of the reset that was sent on this connection. */
  #since: number | null = null
  /** The welcome of this connection was taken. */
  #met = true

  constructor({ window }: { window: number }) {
    this.#window = window
  }

  get positions(): ReplicaPositions {
    return { sent: this.#sent, logged: this.#logged, applied: this.#applied }
  }

  /** The replica's tree is not whole yet: its baseline is not all there. */
  get baseline(): boolean {
    return this.#baseline
  }

  get failure(): HeaderOf<'ack'>['failure'] {
    return this.#failure
  }

  /** Objects of which the replica's tree lacks something. */
  get needs(): number {
    return this.#needs
  }

  /** What comparisons have said of the replica. */
  get verdict(): Verdict {
    return this.#verdict
  }

  get bytesUnderWay(): number {
    return this.#underWayBytes
  }

  /**
   * Another connection begins. What is acknowledged on it before its welcome was taken counts for nothing:
   * the replica says it again when it hears how it goes on.
   */
  begin(): void {
    this.#met = false
  }

  /**
   * The replica's answer to `hello`. `chainAt` gives the chain value of the journal at the end of
   * the frame of that seq, undefined where the journal has no such place.
   */
  welcome(message: HeaderOf<'welcome'>, chainAt: (seq: bigint) => Buffer | undefined): Plan {
    this.#met = true
    this.#underWay = []
    this.#underWayBytes = 0
    this.#since = null
    this.#applied = 0n
    this.#baseline = message.baseline
    if (message.logged === null) return { kind: 'baseline', reason: 'it has nothing yet' }
    const { seq, chain } = message.logged
    const after = BigInt(seq)
    const own = chainAt(after)
    if (own === undefined) {
      return { kind: 'baseline', reason: `the journal has no place at seq ${seq}` }
    }
    if (own.toString('hex') !== chain) {
      return { kind: 'baseline', reason: `it went another way up to seq ${seq}` }
    }
    // A replay that starts over may stand where the log is not yet: with a baseline to come.
    if (message.applied > seq && !message.baseline) {
      return { kind: 'baseline', reason: `it has applied more than it has logged, seq ${seq}` }
    }
    this.#applied = BigInt(Math.min(message.applied, seq))
    this.#sent = after
    this.#logged = after
    const lost = this.#acknowledged > after ? this.#acknowledged : null
    this.#acknowledged = after
    return { kind: 'resume', after, lost }
  }

  /** The replica lacks what comes after this; false: that cannot be gone on from. */
  again({ logged }: HeaderOf<'again'>, chainAt: (seq: bigint) => Buffer | undefined): boolean {
    if (logged === null) return false
    const after = BigInt(logged.seq)
    if (after > this.#sent || chainAt(after)?.toString('hex') !== logged.chain) return false
    this.#sent = after
    this.#underWay = this.#underWay.filter(({ lastSeq }) => lastSeq <= after)
    this.#underWayBytes = this.#underWay.reduce((sum, { bytes }) => sum + bytes, 0)
    return true
  }

  /**
   * The replica was told to forget its log and to go on from `end`; what its tree lacks, it finds
   * anew.
   */
  reset(end: JournalEnd): WirePlace {
    this.#needs = 0
    this.#sent = end.lastSeq
    this.#logged = end.lastSeq
    this.#applied = end.lastSeq
    this.#baseline = true
    this.#since = Number(end.lastSeq)
    this.#acknowledged = 0n
    return { seq: Number(end.lastSeq), chain: end.chain.toString('hex') }
  }

  get hasRoom(): boolean {
    return this.#underWayBytes < this.#window
  }

  sentFrame(frame: { lastSeq: bigint; bytes: Buffer }): void {
    this.#sent = frame.lastSeq
    this.#underWay.push({ lastSeq: frame.lastSeq, bytes: frame.bytes.length })
    this.#underWayBytes += frame.bytes.length
  }

  /** PROTOCOL: the replica claims what it cannot have. */
  ack(message: HeaderOf<'ack'>): void {
    if (!this.#met) return
    // Said before it had heard of the reset: about a log and a tree that are no more.
    if (message.since !== this.#since) return
    const logged = BigInt(message.logged)
    if (logged > this.#sent) throw impossible(`has logged ${logged}`, Number(this.#sent))
    if (message.applied > message.logged && !message.baseline) {
      throw impossible(`has applied ${message.applied}`, message.logged)
    }
    const applied = BigInt(message.applied)
    if (logged < this.#acknowledged)
      throw impossible(`has logged ${logged}`, Number(this.#acknowledged))
    this.#logged = logged
    this.#acknowledged = logged
    // Of a baseline only its end counts.
    if (applied > this.#applied) this.#applied = applied
    this.#baseline = message.baseline
    this.#failure = message.failure
    this.#needs = message.needs
    this.#verdict = message.verdict
    let done = 0
    for (const { lastSeq, bytes } of this.#underWay) {
      if (lastSeq > this.#logged) break
      this.#underWayBytes -= bytes
      done += 1
    }
    this.#underWay.splice(0, done)
  }
}

function impossible(claim: string, have: number): HoldfastError {
  return new HoldfastError(
    'PROTOCOL',
    `the replica claims that it ${claim}, and can have ${have}`,
    {
      op: 'replication.ack',
      hint: 'Nothing of it is believed. If this comes again, somebody is between the two hosts.',
    },
  )
}
