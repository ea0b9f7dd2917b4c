/**
 * Brings a replica what it has found to lack: asks what that is, has the primary image it, waits until
 * the replica has applied the images, and asks again until nothing is left.
 *
 * Neighbours: the shipper calls `step` whenever something happened; the replica's engine notes and
 * drops needs (native-bindings/src/replay/needs.rs).
 */
import { HoldfastError } from '../lib/errors.js'
import { REPAIRS_MAX } from '../lib/limits.js'
import type { Logger } from '../lib/log.js'
import type { Header } from './message.js'
import type { Sender } from './sender.js'

const RANGE_BYTES = 32

/** What a repair needs of the volume. */
export interface RepairedVolume {
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
  | { kind: 'settling'; seq: bigint }

export class Repairs {
  readonly #volume: RepairedVolume
  readonly #sender: Sender
  readonly #log: Logger
  #state: State = { kind: 'idle' }
  #wanted = false
  #rounds = 0
  /**
   * A comparison is under way: what is found by now and what it will be called come one after the
   * other, and between them nobody knows that it is to wait for an order.
   */
  comparing = false

  constructor(volume: RepairedVolume, sender: Sender, log: Logger) {
    this.#volume = volume
    this.#sender = sender
    this.#log = log
  }

  /** A repair is under way. */
  get isBusy(): boolean {
    return this.#isWanted && this.#sender.needs > 0
  }

  /** From now on differences are repaired, until there are none. */
  want(): void {
    this.#wanted = true
    this.#rounds = 0
  }

  /** The connection is another one. */
  reconnected(): void {
    this.#state = { kind: 'idle' }
  }

  /** Differences found by a comparison wait for an order; those of a baseline by codes do not. */
  get #isWanted(): boolean {
    const { verified } = this.#sender.verdict
    const ordered = this.comparing || (verified !== null && verified.differences > 0)
    return this.#rounds < REPAIRS_MAX && (this.#wanted || !ordered)
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
  async step(send: (header: Header) => void): Promise<void> {
    if (this.#sender.baseline) return
    if (this.#sender.needs === 0) return this.#done()
    if (!this.#isWanted) return
    const state = this.#state
    if (state.kind !== 'settling' && this.#volume.scanning()) return
    switch (state.kind) {
      case 'idle':
        send({ type: 'want' })
        this.#state = { kind: 'asked' }
        return
      case 'asked':
        return
      case 'told':
        this.#log.info({ ranges: state.words.length / 4 }, 'a repair begins')
        await this.#volume.startRepair(state.words)
        this.#state = { kind: 'scanning' }
        return
      case 'scanning':
        this.#state = { kind: 'settling', seq: await this.#volume.flush() }
        return
      case 'settling':
        if (this.#sender.positions.applied < state.seq) return
        this.#state = { kind: 'idle' }
        this.#rounds += 1
        if (this.#rounds < REPAIRS_MAX) return
        this.#log.error({ needs: this.#sender.needs }, 'repairs leave differences: given up')
    }
  }

  #done(): void {
    if (this.#state.kind === 'settling' || this.#wanted) {
      this.#log.info('the replica lacks nothing any more')
    }
    this.#state = { kind: 'idle' }
    this.#wanted = false
    this.#rounds = 0
  }
}
