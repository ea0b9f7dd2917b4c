/**
 * Connections of which nobody knows yet whose they are. They are few: when there are too many, the
 * oldest goes of the source that has most, so that a crowd from one place keeps nobody else out.
 * And what is refused is told of, but does not fill the log.
 */
import { CONNECTIONS_WAITING_MAX, REFUSALS_LOGGED_MAX } from '../lib/limits.js'
import type { Logger } from '../lib/log.js'

/** What the doorway needs of a socket. */
interface Visitor {
  readonly remoteAddress?: string | undefined
  readonly remotePort?: number | undefined
  destroy(): unknown
  once(event: 'close', listener: () => void): unknown
}

export class Doorway {
  readonly #log: Logger
  readonly #max: number
  /** In the order in which they came. */
  readonly #waiting = new Map<string, { visitor: Visitor; source: string }>()
  #timer: NodeJS.Timeout | undefined
  #told = 0
  #untold = 0

  constructor(log: Logger, { max = CONNECTIONS_WAITING_MAX } = {}) {
    this.#log = log
    this.#max = max
  }

  get waiting(): number {
    return this.#waiting.size
  }

  /** A connection that was made just now. */
  enter(visitor: Visitor): void {
    const name = nameOf(visitor)
    this.#waiting.set(name, { visitor, source: sourceOf(visitor) })
    visitor.once('close', () => this.#waiting.delete(name))
    if (this.#waiting.size > this.#max) this.#makeRoom()
  }

  /** It is known whose it is. `visitor` may be another socket of the same connection. */
  pass(visitor: Visitor): void {
    this.#waiting.delete(nameOf(visitor))
  }

  #makeRoom(): void {
    const crowds = new Map<string, number>()
    for (const { source } of this.#waiting.values()) {
      crowds.set(source, (crowds.get(source) ?? 0) + 1)
    }
    const [largest] = [...crowds].sort(([, one], [, other]) => other - one)
    const oldest = [...this.#waiting].find(([, { source }]) => source === largest?.[0])
    if (oldest === undefined) return
    const [name, { visitor, source }] = oldest
    this.#waiting.delete(name)
    visitor.destroy()
    this.refused({ from: source, error: `${this.#max} others wait to be let in` })
  }

  /** Logs a refusal, if not too many were logged in this second. */
  refused(about: Record<string, unknown>): void {
    this.#timer ??= setTimeout(() => this.#count(), 1_000).unref()
    if (this.#told >= REFUSALS_LOGGED_MAX) {
      this.#untold += 1
      return
    }
    this.#told += 1
    this.#log.warn(about, 'refused')
  }

  #count(): void {
    if (this.#untold > 0) this.#log.warn({ connections: this.#untold }, 'refused: as many more')
    this.#timer = undefined
    this.#told = 0
    this.#untold = 0
  }
}

function nameOf({ remoteAddress, remotePort }: Visitor): string {
  return `${remoteAddress} ${remotePort}`
}

/** The address; of IPv6 the network, of which one host may have all addresses. */
function sourceOf({ remoteAddress = '' }: Visitor): string {
  if (!remoteAddress.includes(':') || remoteAddress.startsWith('::ffff:')) return remoteAddress
  return remoteAddress.split(':').slice(0, 4).join(':')
}
