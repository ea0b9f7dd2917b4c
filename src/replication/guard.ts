/**
 * Keeps a replica's tree from being changed by others: a read-only mount of the tree over itself.
 * The replay goes past it, by a mount of its own that nobody else sees.
 *
 * A change past the guard (as root, by another mount of the file system) is found by the next
 * comparison. That the guard itself was taken away is noticed within a second.
 */
import { toHoldfastError } from '../lib/errors.js'
import { GUARD_POLL_MS } from '../lib/limits.js'
import type { Logger } from '../lib/log.js'
import { mountAt } from '../lib/mountinfo.js'
import { native } from '../lib/native.js'

export class TreeGuard {
  readonly #tree: string
  readonly #log: Logger
  readonly #onBreach: () => void
  #timer: NodeJS.Timeout | undefined

  /** `onBreach`: the tree was open to changes by others for a while. */
  constructor(options: { tree: string; log: Logger; onBreach(): void }) {
    this.#tree = options.tree
    this.#log = options.log
    this.#onBreach = options.onBreach
  }

  /** Puts the guard up, and again whenever it was taken away. Idempotent. */
  start(): void {
    if (!this.#up()) return
    this.#timer ??= setInterval(() => this.#look(), GUARD_POLL_MS)
  }

  #look(): void {
    try {
      if (this.#stands) return
    } catch (cause) {
      // No descriptor for a look at the mounts: that ends no server of other replicas.
      const error = toHoldfastError(cause, 'replica.guard')
      this.#log.warn({ error }, "it is not known whether the replica's tree is guarded")
      return
    }
    this.#log.error({ tree: this.#tree }, "the guard of the replica's tree was taken away")
    this.#onBreach()
    this.#up()
  }

  /** Takes it down. Idempotent. */
  stop(): void {
    clearInterval(this.#timer)
    this.#timer = undefined
    try {
      if (mountAt(this.#tree) !== undefined) native.unguardTree(Buffer.from(this.#tree))
    } catch (cause) {
      this.#log.warn({ error: toHoldfastError(cause, 'replica.guard') }, 'the guard stays up')
    }
  }

  get #stands(): boolean {
    return mountAt(this.#tree)?.options.includes('ro') === true
  }

  #up(): boolean {
    try {
      // One that a killed server has left is as good.
      if (!this.#stands) native.guardTree(Buffer.from(this.#tree))
      return true
    } catch (cause) {
      const error = toHoldfastError(cause, 'replica.guard')
      this.#log.warn({ error }, "the replica's tree is not guarded against changes by others")
      return false
    }
  }
}
