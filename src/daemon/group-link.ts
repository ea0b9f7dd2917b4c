/**
 * A coordinator's connection to one host of a group, over whatever transport the peer has, or to this
 * host itself: questions, and what is known of that host's clock.
 */
import type { Duplex } from 'node:stream'
import { Calls, type Service } from '../group/calls.js'
import { type ClockEstimate, RemoteClock } from '../group/clock.js'
import { shownNow } from '../group/host-clock.js'
import { type Answer, Answers, type Method, type Question } from '../group/wire.js'
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import { unlessStopped } from '../lib/going.js'
import { hostName } from '../lib/host-name.js'
import {
  CLOCK_EXCHANGE_MS_MAX,
  CLOCK_EXCHANGES,
  FIRST_MESSAGE_MS_MAX,
  GROUP_ANSWER_MS,
} from '../lib/limits.js'
import type { Logger } from '../lib/log.js'
import { VERSION } from '../lib/version.js'
import { Channel } from '../replication/channel.js'
import { hostIdentity } from '../replication/identity.js'
import { PROTOCOL } from '../replication/message.js'
import { Peers } from '../replication/peers.js'
import { refusal } from '../replication/refusals.js'
import { ALL_RIGHTS } from '../replication/rights.js'
import { Transports } from '../replication/transport.js'
import { GroupAgent } from './group-agent.js'
import { hostDirectory } from './places.js'

const op = 'group.connect'

interface AskOptions {
  timeoutMs?: number
  signal?: AbortSignal | undefined
}

export class GroupLink {
  /** As this host knows the peer; '': this host itself. */
  readonly host: string
  readonly #ask: Calls['ask']
  readonly #end: () => void
  readonly #clock: RemoteClock

  private constructor(about: {
    host: string
    ask: Calls['ask']
    end: () => void
    clock: RemoteClock
  }) {
    this.host = about.host
    this.#ask = about.ask
    this.#end = about.end
    this.#clock = about.clock
  }

  /** PEER_NOT_FOUND, CONNECTION, PEER_UNKNOWN, PROTOCOL_VERSION; ABORTED by the signal. Names the host. */
  static async open(
    host: string,
    options: { log: Logger; signal: AbortSignal },
  ): Promise<GroupLink> {
    let link: GroupLink | undefined
    try {
      link = host === '' ? GroupLink.#toSelf(options.log) : await GroupLink.#toPeer(host, options)
      await link.sampleClock(CLOCK_EXCHANGES)
      return link
    } catch (cause) {
      link?.close()
      const { code, message, hint } = toHoldfastError(cause, op)
      throw new HoldfastError(code, `${host || hostName()}: ${message}`, { op, cause, hint })
    }
  }

  /** Whose volumes they are, for people. */
  get shownName(): string {
    return this.host === '' ? hostName() : this.host
  }

  get clock(): ClockEstimate {
    return this.clockAt(shownNow())
  }

  /** What is known of the other clock at an instant of this one. */
  clockAt(instantNs: bigint): ClockEstimate {
    return this.host === '' ? OWN_CLOCK : this.#clock.at(instantNs)
  }

  /** Where what was known of the clock has grown old, it is read anew; false: it has jumped. */
  async refreshClock(): Promise<boolean> {
    const { errorNs, roundTripNs } = this.clock
    return errorNs > roundTripNs ? this.sampleClock(CLOCK_EXCHANGES) : true
  }

  /** Reads the other clock so many times; false: it has jumped. USAGE: it is nearer than was said. */
  async sampleClock(exchanges: number): Promise<boolean> {
    if (this.host === '') return true
    let steady = true
    for (let n = 0; n < exchanges; n += 1) {
      const sentNs = shownNow()
      const { ns } = await this.ask('time', {}, { timeoutMs: CLOCK_EXCHANGE_MS_MAX })
      const receivedNs = shownNow()
      try {
        steady = this.#clock.add({ sentNs, remoteNs: BigInt(ns), receivedNs }) && steady
      } catch (cause) {
        throw this.#isNearer(cause)
      }
    }
    return steady
  }

  #isNearer(cause: unknown): HoldfastError {
    const message = `it is not as far away as was said: ${toHoldfastError(cause, op).message}`
    return new HoldfastError('USAGE', message, {
      op,
      cause,
      hint: `Correct it: holdfast peer distance ${this.host} --at-least TIME`,
    })
  }

  /** The error of the other side, TIMEOUT, CONNECTION, ABORTED; its details name the host. */
  async ask<M extends Method>(
    method: M,
    question: Question<M>,
    { timeoutMs = GROUP_ANSWER_MS, signal }: AskOptions = {},
  ): Promise<Answer<M>> {
    const answer = await this.#ask(method, question, { timeoutMs, signal })
    const parsed = Answers[method].safeParse(answer)
    if (parsed.success) return parsed.data as Answer<M>
    throw new HoldfastError('PROTOCOL', `${this.shownName} answers ${method} with something else`, {
      op: `group.${method}`,
    })
  }

  /** Idempotent. What this host was asked for and is not kept is undone. */
  close(): void {
    this.#end()
  }

  static #toSelf(log: Logger): GroupLink {
    const service: Service = new GroupAgent({ rights: ALL_RIGHTS, caller: hostName(), log })
    return new GroupLink({
      host: '',
      ask: (method, params, { signal }) =>
        unlessStopped(service.answer(method, params), { signal, op: `group.${method}` }),
      end: () => service.close(),
      clock: new RemoteClock(),
    })
  }

  static async #toPeer(
    host: string,
    { log, signal }: { log: Logger; signal: AbortSignal },
  ): Promise<GroupLink> {
    const identity = await hostIdentity(hostDirectory())
    const peers = new Peers(hostDirectory())
    const about = { volume: '', self: hostName(), identity, peers, log }
    const stream = await new Transports(about).to(host, { listen: null }).connect(signal)
    const oneWayNs = BigInt(Math.round((peers.get(host).oneWayMs ?? 0) * 1e6))
    return GroupLink.#coordinate(host, { stream, clock: new RemoteClock({ oneWayNs }) })
  }

  static async #coordinate(
    host: string,
    { stream, clock }: { stream: Duplex; clock: RemoteClock },
  ): Promise<GroupLink> {
    let calls: Calls | undefined
    return new Promise((resolve, reject) => {
      const channel = new Channel(stream, {
        onMessage: (message) => {
          const { header } = message
          if (header.type === 'refuse') return channel.close(refusal(header, { who: 'peer', op }))
          if (header.type !== 'coordinated') return calls?.receive(message)
          clearTimeout(timer)
          const asking = new Calls(channel)
          calls = asking
          const end = () =>
            channel.close(new HoldfastError('CONNECTION', 'the cut is over', { op }))
          resolve(new GroupLink({ host, ask: (...args) => asking.ask(...args), end, clock }))
        },
        onClose: (error) => {
          clearTimeout(timer)
          calls?.close(error)
          reject(error)
        },
      })
      const timer = setTimeout(() => {
        channel.close(new HoldfastError('TIMEOUT', `${host} does not answer`, { op }))
      }, FIRST_MESSAGE_MS_MAX)
      channel.send({ type: 'coordinate', protocol: PROTOCOL, version: VERSION, host: hostName() })
    })
  }
}

const OWN_CLOCK: ClockEstimate = {
  offsetNs: 0n,
  errorNs: 0n,
  roundTripNs: 0n,
  driftPpm: 0,
  exchanges: 0,
  jumps: 0,
}
