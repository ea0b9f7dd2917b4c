/** The pauses between the attempts of one side to connect: they double, and no two hosts keep step. */
import { setTimeout as sleep } from 'node:timers/promises'
import { RECONNECT_MS_MAX, RECONNECT_MS_MIN } from '../lib/limits.js'

export class Reconnect {
  #pause = RECONNECT_MS_MIN
  #begun = Date.now()

  /** An attempt begins. */
  begin(): void {
    this.#begun = Date.now()
  }

  /** The connection was worth making: the next pause is the shortest. */
  good(): void {
    this.#pause = RECONNECT_MS_MIN
  }

  /** After an attempt; one that has lasted was a good one. Returns at once when `signal` aborts. */
  async pause(signal: AbortSignal): Promise<void> {
    if (Date.now() - this.#begun > RECONNECT_MS_MAX) this.good()
    const ms = this.#pause * (0.5 + Math.random())
    this.#pause = Math.min(this.#pause * 2, RECONNECT_MS_MAX)
    await sleep(ms, undefined, { signal }).catch(() => {})
  }
}
