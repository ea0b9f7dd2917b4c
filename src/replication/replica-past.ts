/**
 * What a replica keeps of its past: the replay writes it, in the worker; whoever looks at it does so by
 * its handle, from any thread.
 */
import { HoldfastError } from '../lib/errors.js'
import type { Logger } from '../lib/log.js'
import type { HistoryOptions } from '../lib/native-history.js'
import type { HistoryConfig, ReplicaPlace } from './replica-config.js'
import type { ApplyHistory, ApplyReply, ApplyRequest } from './replica-messages.js'

type Told = Extract<ApplyReply, { kind: 'history' }>

export class ReplicaPast {
  readonly #place: ReplicaPlace
  readonly #log: Logger
  #handle: number | undefined
  #waiting: ((told: Told) => void)[] = []

  constructor(place: ReplicaPlace, log: Logger) {
    this.#place = place
    this.#log = log
  }

  /** undefined: nothing is kept, or it could not be opened. */
  get handle(): number | undefined {
    return this.#handle
  }

  /** For a worker that starts. */
  start(config: HistoryConfig | undefined): ApplyHistory {
    return { options: this.#options(config), handle: this.#handle }
  }

  /** Has the worker keep this from now on; throws what it says when it cannot. */
  async change(
    config: HistoryConfig | undefined,
    post: (request: ApplyRequest) => void,
  ): Promise<void> {
    const told = new Promise<Told>((resolve) => this.#waiting.push(resolve))
    post({ kind: 'history', options: this.#options(config) })
    const { error } = await told
    if (error !== undefined) throw HoldfastError.from(error)
  }

  onReply(told: Told): void {
    this.#handle = told.handle
    if (told.error !== undefined) this.#log.error({ error: told.error }, 'its past is not kept')
    for (const resolve of this.#waiting.splice(0)) resolve(told)
  }

  #options(config: HistoryConfig | undefined): HistoryOptions | null {
    if (config === undefined) return null
    const { history: path } = this.#place
    return { path, mode: 'continuous', full: 'drop', bytesMax: config.bytesMax }
  }
}
