/**
 * What a replica asks for and the journal does not have: read where it lies, and sent past the journal.
 *
 * Invariant: nothing is sent between the reading of a fill and its sending. So all that a replica has when
 * it comes was captured before it was read, and what was captured later comes after it.
 */
import type { Channel } from './channel.js'
import { sendMemory } from './frame-memory.js'
import { encodeHead } from './message.js'

/** Of a fill's body, in front of the bytes. docs/PROTOCOL.md. */
export const FILL_HEAD_BYTES = 64
const MESSAGE_HEAD_BYTES = encodeHead({ type: 'fill' }, 0).length
const LENGTH_AT = 24
/** Bytes of a file that one fill has at most, and that are sent before frames have their turn. */
const FILL_BYTES_MAX = 2 ** 20
const TURN_BYTES = 4 * FILL_BYTES_MAX
/** Both, where the rate is limited. */
const LIMITED_BYTES = 64 * 2 ** 10
/** Words of a range: ino, gen, from, to. */
export const RANGE_WORDS = 4

/** What fills need of the volume. */
export interface FilledVolume {
  /** Whether the data of an object (ino, gen) can be read for fills. */
  canFill(object: BigUint64Array): boolean
  /** Reads the beginning of a range (ino, gen, from, to) as the body of a fill; gives its length. */
  readFill(range: BigUint64Array, into: Buffer): Promise<number>
}

export class Fills {
  readonly #volume: FilledVolume
  #ranges: BigUint64Array = new BigUint64Array()
  #at = 0
  /** Bytes of files that were sent since `begin`. */
  #bytes = 0

  constructor(volume: FilledVolume) {
    this.#volume = volume
  }

  get isEmpty(): boolean {
    return this.#at >= this.#ranges.length
  }

  get bytes(): number {
    return this.#bytes
  }

  /** Something else is lacking from now on. */
  begin(): void {
    this.#bytes = 0
    this.forget()
  }

  /** These ranges are next. */
  want(ranges: BigUint64Array): void {
    this.#ranges = ranges
    this.#at = 0
  }

  /** They are not wanted any more: the connection is another one. */
  forget(): void {
    this.want(new BigUint64Array())
  }

  /** Sends some of it, little of it when the rate is limited; gives how much, in bytes. */
  async send(channel: Channel, { limited }: { limited: boolean }): Promise<number> {
    const most = limited ? LIMITED_BYTES : TURN_BYTES
    let sent = 0
    while (!this.isEmpty && sent < most && channel.isOpen) {
      const range = this.#ranges.subarray(this.#at, this.#at + RANGE_WORDS)
      sent += await this.#sendOne(channel, range, Math.min(most, FILL_BYTES_MAX))
      await channel.pace()
    }
    return sent
  }

  async #sendOne(channel: Channel, range: BigUint64Array, most: number): Promise<number> {
    const [, , from = 0n, to = 0n] = range
    const room = Math.min(Number(to - from), most)
    const memory = sendMemory.take(MESSAGE_HEAD_BYTES + FILL_HEAD_BYTES + room)
    const length = await this.#volume.readFill(range, memory.subarray(MESSAGE_HEAD_BYTES))
    const body = memory.subarray(MESSAGE_HEAD_BYTES, MESSAGE_HEAD_BYTES + length)
    const covered = body.readBigUInt64LE(LENGTH_AT)
    this.#bytes += length - FILL_HEAD_BYTES
    encodeHead({ type: 'fill' }, length).copy(memory)
    channel.sendWhole(memory.subarray(0, MESSAGE_HEAD_BYTES + length))
    // The list is ours: what is left of a range takes its place.
    range[2] = from + covered
    if (from + covered >= to || covered === 0n) this.#at += RANGE_WORDS
    return length
  }
}
