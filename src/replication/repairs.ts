/**
 * Brings a replica what it lacks: asks what that is, sends data past the journal (`fills.ts`), has the
 * primary image what else there is, waits until the replica has it, and asks again until nothing is left.
 *
 * Neighbours: the shipper calls `step` whenever something happened; the replica's engine notes and
 * drops needs (native-bindings/src/replay/needs.rs).
 */
import { HoldfastError } from '../lib/errors.js'
import { REPAIRS_MAX } from '../lib/limits.js'
import type { Logger } from '../lib/log.js'
import type { Channel } from './channel.js'
import { type FilledVolume, Fills, RANGE_WORDS } from './fills.js'
import type { Sender } from './sender.js'

const RANGE_BYTES = 8 * RANGE_WORDS

/** What a repair needs of the volume. */
export interface RepairedVolume extends FilledVolume {
  /** Images these objects and ranges (ino, gen, from, to) into the journal; resolves when begun. */
  startRepair(words: BigUint64Array): Promise<void>
  /** A scan of the tree is under way. */
  scanning(): boolean
  /** Everything captured until now is in the journal when this resolves; gives that seq. */
  flush(): Promise<bigint>
}

type State =
  | { kind: 'idle' | 'asked' | 'scanning' }
  | { kind: 'told'; words: BigUint64Array }
  /** `rest`: what has to be imaged after it. */
  | { kind: 'filling'; rest: BigUint64Array }
  | { kind: 'settling'; seq: bigint }

export class Repairs {
  readonly #volume: RepairedVolume
  readonly #sender: Sender
  readonly #log: Logger
  readonly #fills: Fills
  #state: State = { kind: 'idle' }
  #wanted = false
  #rounds = 0
  /** The list of ranges that was filled last. */
  #filled: Buffer | undefined
  /**
   * A comparison is under way: what is found by now and what it will be called come one after the
   * other, and between them nobody knows that it is to wait for an order.
   */
  comparing = false

  constructor(volume: RepairedVolume, sender: Sender, log: Logger) {
    this.#volume = volume
    this.#sender = sender
    this.#log = log
    this.#fills = new Fills(volume)
  }

  /** A repair is under way. */
  get isBusy(): boolean {
    return this.#isWanted && this.#sender.needs > 0
  }

  /** Bytes of files that were sent past the journal, while a baseline is brought to its end so. */
  get filledBytes(): number | null {
    const since = !this.#sender.baseline && this.isBusy && !this.#isOrdered
    return since ? this.#fills.bytes : null
  }

  /** From now on differences are repaired, until there are none. */
  want(): void {
    this.#wanted = true
    this.#rounds = 0
  }

  /** The connection is another one. */
  reconnected(): void {
    this.#state = { kind: 'idle' }
    this.#filled = undefined
    this.#fills.forget()
  }

  /** A comparison has found it. */
  get #isOrdered(): boolean {
    const { verified } = this.#sender.verdict
    return this.comparing || (verified !== null && verified.differences > 0)
  }

  /** Differences found by a comparison wait for an order; those of a baseline do not. */
  get #isWanted(): boolean {
    return this.#rounds < REPAIRS_MAX && (this.#wanted || !this.#isOrdered)
  }

  /** The replica's answer. PROTOCOL. */
  need(body: Buffer): void {
    if (body.length % RANGE_BYTES !== 0) {
      throw new HoldfastError('PROTOCOL', `a need of ${body.length} bytes`, { op: 'replica.need' })
    }
    if (this.#state.kind !== 'asked') return
    const words = new BigUint64Array(body.length / 8)
    for (let at = 0; at < words.length; at += 1) words[at] = body.readBigUInt64LE(at * 8)
    this.#state = { kind: 'told', words }
  }

  /** Goes on as far as it can now. */
  async step(channel: Channel): Promise<void> {
    if (this.#sender.baseline) return
    if (this.#sender.needs === 0) return this.#done()
    if (!this.#isWanted) return
    const state = this.#state
    switch (state.kind) {
      case 'idle':
        if (this.#volume.scanning()) return
        channel.send({ type: 'want' })
        this.#state = { kind: 'asked' }
        return
      case 'asked':
        return
      case 'told':
        return this.#told(state.words)
      case 'filling':
        if (!this.#fills.isEmpty) return
        this.#state = { kind: 'idle' }
        if (state.rest.length > 0) return this.#image(state.rest)
        return this.step(channel)
      case 'scanning':
        if (!this.#volume.scanning()) await this.#settle()
        return
      case 'settling':
        if (this.#sender.positions.applied < state.seq) return
        this.#state = { kind: 'idle' }
        this.#another()
    }
  }

  /** Sends some of what is to be filled; 0 when there is nothing, or it cannot be taken now. */
  async fill(channel: Channel, options: { limited: boolean }): Promise<number> {
    const stuck = this.#sender.failure !== null
    if (stuck) this.#filled = undefined
    return stuck || this.#state.kind !== 'filling' ? 0 : await this.#fills.send(channel, options)
  }

  async #told(words: BigUint64Array): Promise<void> {
    // All was brought: what is left is ahead of what was applied.
    if (words.length === 0) return this.#settle()
    const { fills, rest } = divide(words, this.#volume)
    if (fills.length === 0) return this.#image(rest)
    const list = Buffer.from(fills.slice().buffer)
    // What lacks again although it was brought is no progress.
    if (this.#filled?.equals(list)) this.#another()
    else this.#rounds = 0
    this.#filled = list
    this.#log.debug({ ranges: fills.length / RANGE_WORDS }, 'filling')
    this.#fills.want(fills)
    this.#state = { kind: 'filling', rest }
  }

  async #image(words: BigUint64Array): Promise<void> {
    if (this.#volume.scanning()) {
      this.#state = { kind: 'told', words }
      return
    }
    this.#log.info({ ranges: words.length / RANGE_WORDS }, 'a repair begins')
    await this.#volume.startRepair(words)
    this.#state = { kind: 'scanning' }
  }

  /** Until the replica has applied all that is captured by now. */
  async #settle(): Promise<void> {
    this.#state = { kind: 'settling', seq: await this.#volume.flush() }
  }

  #another(): void {
    this.#rounds += 1
    if (this.#rounds < REPAIRS_MAX) return
    this.#log.error({ needs: this.#sender.needs }, 'repairs leave differences: given up')
  }

  #done(): void {
    if (this.#state.kind === 'settling' || this.#wanted) {
      this.#log.info('the replica lacks nothing any more')
    }
    this.#state = { kind: 'idle' }
    this.#wanted = false
    this.#rounds = 0
    this.#filled = undefined
    this.#fills.begin()
  }
}

/** What can be filled: data, of objects that are right otherwise. `rest` goes through the journal. */
function divide(
  words: BigUint64Array,
  volume: FilledVolume,
): { fills: BigUint64Array<ArrayBuffer>; rest: BigUint64Array } {
  const imaged = new Set<string>()
  const each: BigUint64Array[] = []
  for (let at = 0; at < words.length; at += RANGE_WORDS) {
    const range = words.subarray(at, at + RANGE_WORDS)
    each.push(range)
    const [ino, gen, from = 0n, to = 0n] = range
    if (from >= to || !volume.canFill(range)) imaged.add(`${ino}.${gen}`)
  }
  const isImaged = ([ino, gen]: BigUint64Array) => imaged.has(`${ino}.${gen}`)
  return {
    fills: joined(each.filter((range) => !isImaged(range))),
    rest: joined(each.filter(isImaged)),
  }
}

function joined(ranges: BigUint64Array[]): BigUint64Array<ArrayBuffer> {
  const words = new BigUint64Array(ranges.length * RANGE_WORDS)
  for (const [at, range] of ranges.entries()) words.set(range, at * RANGE_WORDS)
  return words
}
