/** Tells at once, and loudly, what a history could not keep. */
import { LOSSES_TOLD_MS } from '../lib/limits.js'
import type { Logger } from '../lib/log.js'
import { native } from '../lib/native.js'

/** A snapshot, by its seq in one volume. */
export interface SnapshotSeq {
  name: string
  seq: bigint
}

export class Losses {
  readonly #log: Logger
  #known = 0
  #toldMs = Number.NEGATIVE_INFINITY
  /** Snapshots before it are known to be lost. */
  #floor: bigint | undefined

  constructor(log: Logger) {
    this.#log = log
  }

  /** Looks whether the history has lost something since the last look. */
  look(handle: number, snapshots: () => SnapshotSeq[] = () => []): void {
    const { lost = 0, floor = 0n } = native.historyState(handle) ?? {}
    const before = Number(floor)
    // On a disk that stays full every change is one more.
    if (lost > this.#known && Date.now() - this.#toldMs >= LOSSES_TOLD_MS) {
      this.#log.error({ lost, before }, 'the history had no room: the moments before are lost')
      this.#known = lost
      this.#toldMs = Date.now()
    }
    const known = this.#floor ?? floor
    if (floor > known) {
      const gone = snapshots().filter(({ seq }) => seq >= known && seq < floor)
      for (const { name: snapshot, seq } of gone) {
        const of = { snapshot, seq: Number(seq), before }
        this.#log.error(of, 'the history had no room: the past of a snapshot is lost')
      }
    }
    this.#floor = floor
  }
}
