/**
 * Takes this volume's part in cuts. Its thread waits for the other volumes of a cut while the daemon's
 * other work goes on; a volume has it from its first snapshot on.
 */
import { Chores } from '../capture/chores.js'
import type { CutResult } from '../lib/native.js'

export interface CutRequest {
  /** Name of the marker. */
  name: string
  maxHoldMs: number
  /** Path of the page where the volumes of the cut meet; null: this one is alone. */
  meeting: string | null
  gatherMs: number
  /** CLOCK_MONOTONIC, ns: I/O is held from then on, and not released before `untilNs`. */
  startNs?: string | undefined
  untilNs?: string | undefined
  /** False: the history does not keep what is there. */
  keep?: boolean | undefined
}

export class Cutter {
  readonly #handle: number
  #chores: Chores | undefined

  constructor(handle: number) {
    this.#handle = handle
  }

  /** HOLD_TIMEOUT, HOLD_EXPIRED, CUT_LATE, CUT_OTHERS, VOLUME_NOT_RUNNING. I/O goes on in any case. */
  async take({ meeting, startNs, untilNs, keep = true, ...rest }: CutRequest): Promise<CutResult> {
    this.#chores ??= new Chores()
    return this.#chores.run('takeCut', this.#handle, {
      ...rest,
      keep,
      ...(meeting === null ? {} : { meeting: Buffer.from(meeting) }),
      ...(startNs === undefined ? {} : { startNs: BigInt(startNs) }),
      ...(untilNs === undefined ? {} : { untilNs: BigInt(untilNs) }),
    })
  }

  /** Idempotent. */
  async close(): Promise<void> {
    await this.#chores?.close()
    this.#chores = undefined
  }
}
