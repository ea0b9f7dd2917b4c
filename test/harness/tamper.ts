/** What a meddler does to messages: each fault on its own, chosen by chance. */
import { encodeMessage, type Header, type Message } from '../../src/replication/message.js'
import type { Chance } from './faults.js'

/** `up`: from the primary to the replica. */
export type Direction = 'up' | 'down'

/** A message, and by chance what is passed on instead; undefined: not with this message. */
type Fault = (message: Message, chance: Chance, kept: Kept) => Buffer[] | 'end' | undefined

/** What the meddler remembers of all that has passed. */
interface Kept {
  /** Frames of any time. */
  frames: Message[]
  welcomes: Message[]
  /** Held back, to come after the next message. */
  late: Buffer[]
}

const FRAMES_KEPT = 64
const encode = ({ header, body }: Message) => encodeMessage(header, body)

function flipped(bytes: Buffer, chance: Chance, within = bytes.length): Buffer {
  const changed = Buffer.from(bytes)
  const at = chance.between(0, Math.min(within, bytes.length) - 1)
  changed.writeUInt8(changed.readUInt8(at) ^ (1 << chance.between(0, 7)), at)
  return changed
}

/** A fault that only frames can have. */
function ofFrames(change: Fault): Fault {
  return (message, chance, kept) =>
    message.header.type === 'frame' ? change(message, chance, kept) : undefined
}

function ofHeader<Type extends Header['type']>(
  type: Type,
  change: (header: Extract<Header, { type: Type }>, chance: Chance) => Header | undefined,
): Fault {
  return (message, chance) => {
    if (message.header.type !== type) return undefined
    const header = change(message.header as Extract<Header, { type: Type }>, chance)
    return header && encodeMessage(header, message.body)
  }
}

const FRAME_HEADER_BYTES = 80
const FAR = 1_000_000_000

export const FAULTS = {
  /** A bit of the frame, anywhere. */
  'frame-bit': ofFrames(({ header, body }, chance) => {
    return encodeMessage(header, flipped(body, chance))
  }),
  'frame-head': ofFrames(({ header, body }, chance) => {
    return encodeMessage(header, flipped(body, chance, FRAME_HEADER_BYTES))
  }),
  /** A frame that ends early, in a message that is whole. */
  'frame-cut': ofFrames(({ header, body }, chance) => {
    return encodeMessage(header, body.subarray(0, chance.between(1, body.length - 1)))
  }),
  'frame-twice': ofFrames((message) => [...encode(message), ...encode(message)]),
  'frame-lost': ofFrames(() => []),
  /** After the one that follows it. */
  'frame-late': ofFrames((message, _chance, kept) => {
    kept.late.push(...encode(message))
    return []
  }),
  /** One that passed some time before, instead of this one. */
  'frame-old': ofFrames((_message, chance, { frames }) => {
    return frames.length < 8 ? undefined : encode(chance.pick(frames.slice(0, -4)))
  }),
  'frame-old-first': ofFrames((message, chance, { frames }) => {
    if (frames.length < 8) return undefined
    return [...encode(chance.pick(frames.slice(0, -4))), ...encode(message)]
  }),
  /** A message of which the rest never comes. */
  'message-half': (message, chance) => {
    const bytes = Buffer.concat(encode(message))
    return [bytes.subarray(0, chance.between(1, bytes.length - 1))]
  },
  'message-header': ({ header, body }, chance) => {
    const [head = Buffer.alloc(0)] = encodeMessage(header, body)
    const text = Buffer.concat([head.subarray(0, 8), flipped(head.subarray(8), chance)])
    return body.length === 0 ? [text] : [text, body]
  },
  'message-length': (message, chance) => {
    const bytes = Buffer.concat(encode(message))
    bytes.writeUInt8(bytes.readUInt8(0) ^ (1 << chance.between(0, 7)), chance.between(0, 3))
    return [bytes]
  },
  garbage: (_message, chance) => {
    return [
      Buffer.from(Array.from({ length: chance.between(8, 4000) }, () => chance.between(0, 255))),
    ]
  },
  cut: () => 'end',
  'end-high': ofHeader('frame', (header) => ({ ...header, end: FAR, authorised: FAR })),
  'end-low': ofHeader('frame', (header) => ({ ...header, end: 0, authorised: 0 })),
  'advance-lost': (message) => (message.header.type === 'advance' ? [] : undefined),
  /** A stranger to the conversation: the log is to be forgotten. */
  'reset-forged': ofFrames((message) => {
    const at = { seq: 1, chain: '0123456789abcdef' }
    return [...encodeMessage({ type: 'reset', at }), ...encode(message)]
  }),
  'ack-high': ofHeader('ack', (header) => ({ ...header, logged: FAR, applied: FAR })),
  'ack-applied': ofHeader('ack', (header) => ({ ...header, applied: header.logged + FAR })),
  'ack-low': ofHeader('ack', (header) => ({ ...header, logged: 0, applied: 0 })),
  'ack-lost': (message) => (message.header.type === 'ack' ? [] : undefined),
  'welcome-old': (message, chance, { welcomes }) => {
    return message.header.type === 'welcome' ? encode(chance.pick(welcomes)) : undefined
  },
  'welcome-nothing': ofHeader('welcome', (header) => ({ ...header, logged: null })),
  'welcome-fork': ofHeader('welcome', (header) => {
    return header.logged === null
      ? undefined
      : { ...header, logged: { ...header.logged, chain: '0123456789abcdef' } }
  }),
  'welcome-applied': ofHeader('welcome', (header) => ({ ...header, applied: FAR })),
} satisfies Record<string, Fault>

export type FaultName = keyof typeof FAULTS

export const FAULT_NAMES = Object.keys(FAULTS) as FaultName[]

export class Tamperer {
  readonly #chance: Chance
  readonly #done: (fault: FaultName) => void
  readonly #kept: Kept = { frames: [], welcomes: [], late: [] }

  constructor(chance: Chance, done: (fault: FaultName) => void) {
    this.#chance = chance
    this.#done = done
  }

  /** Remembers what is good for a replay later. */
  record(message: Message): void {
    const { frames, welcomes } = this.#kept
    if (message.header.type === 'welcome') welcomes.push(message)
    if (message.header.type !== 'frame') return
    // Some of every time, the last few among them.
    if (frames.length >= FRAMES_KEPT) frames.splice(this.#chance.between(0, FRAMES_KEPT - 2), 1)
    frames.push(message)
  }

  /** One of these faults, if one fits the message. */
  tamper(
    direction: Direction,
    message: Message,
    faults: readonly FaultName[],
  ): Buffer[] | 'end' | undefined {
    const fault = this.#chance.pick(faults)
    const changed = (FAULTS[fault] as Fault)(message, this.#chance, this.#kept)
    if (changed === undefined) return undefined
    this.#done(fault)
    return fault === 'frame-late' || changed === 'end' ? changed : this.release(direction, changed)
  }

  /** `pieces`, and then what was held back. */
  release(direction: Direction, pieces: Buffer[]): Buffer[] {
    if (direction === 'down') return pieces
    const { late } = this.#kept
    this.#kept.late = []
    return [...pieces, ...late]
  }
}
