/**
 * One host of a group, as whoever moves the horizon sees it: a connection that is made again by itself,
 * over which the host is told what stands now, again and again, and reports how its members are.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { type GroupHorizon, orderOf } from '../group/horizon.js'
import type { Answer, Question } from '../group/wire.js'
import { toHoldfastError } from '../lib/errors.js'
import { HORIZON_WAIT_MS } from '../lib/limits.js'
import type { Logger } from '../lib/log.js'
import { GroupLink } from './group-link.js'

/** Between attempts while there is something to wait for, so that errors do not come as fast as they can. */
const AGAIN_MS = 20
const RETRY_MS = 500

export type Reported = Answer<'horizon'>['members'][number]

/** What all hosts are waited for. */
export interface Goal {
  for: 'logged' | 'applied'
  seqs: Record<string, number>
}

export interface HorizonHostOptions {
  host: string
  group: { id: string; name: string }
  intervalMs: number
  timeoutMs: number
  /** Of its members now. */
  volumes(): string[]
  /** What stands now; undefined: nothing does. */
  state(): GroupHorizon | undefined
  goal(): Goal | undefined
  onNews(): void
  log: Logger
}

export class HorizonHost {
  readonly #options: HorizonHostOptions
  readonly #over = new AbortController()
  #wake: () => void = () => {}
  #link: GroupLink | undefined
  #error: string | null = null
  #members: Reported[] = []
  #heard = false

  constructor(options: HorizonHostOptions) {
    this.#options = options
    void this.#run()
  }

  get host(): string {
    return this.#options.host
  }

  /** undefined: there is no connection now. */
  get link(): GroupLink | undefined {
    return this.#link
  }

  /** Why it says nothing; null: it does, or was not asked yet. */
  get error(): string | null {
    return this.#error
  }

  /** What it has said last: news as long as there is no error. */
  get members(): readonly Reported[] {
    return this.#members
  }

  /** It has answered at least once, and does so. */
  get answers(): boolean {
    return this.#heard && this.#error === null
  }

  /** There is something new to say, or to wait for. */
  wake(): void {
    this.#wake()
  }

  /** Idempotent. */
  close(): void {
    this.#over.abort()
    this.#link?.close()
    this.#wake()
  }

  async #run(): Promise<void> {
    const { signal } = this.#over
    while (!signal.aborted) {
      const woken = new Promise<void>((resolve) => {
        this.#wake = resolve
      })
      await this.#ask()
      if (signal.aborted) return
      this.#options.onNews()
      await Promise.race([woken, sleep(this.#pauseMs())])
    }
  }

  #pauseMs(): number {
    const { intervalMs, goal } = this.#options
    if (this.#error !== null) return RETRY_MS
    if (this.#members.some(({ error }) => error !== null)) return intervalMs
    return goal() === undefined ? intervalMs : AGAIN_MS
  }

  async #ask(): Promise<void> {
    const { host, log, group, volumes, timeoutMs } = this.#options
    try {
      this.#link ??= await GroupLink.open(host, { log, signal: this.#over.signal })
      const question = { group, volumes: volumes(), order: this.#order(), wait: this.#wait() }
      const { members } = await this.#link.ask('horizon', question, {
        timeoutMs: timeoutMs + HORIZON_WAIT_MS,
      })
      this.#members = members
      this.#error = null
      this.#heard = true
    } catch (error) {
      this.#error = toHoldfastError(error, 'group.horizon').message
      this.#link?.close()
      this.#link = undefined
    }
  }

  #order(): Question<'horizon'>['order'] {
    const state = this.#options.state()
    return state === undefined ? null : orderOf(state)
  }

  #wait(): Question<'horizon'>['wait'] {
    const goal = this.#options.goal()
    return goal === undefined ? null : { ...goal, waitMs: HORIZON_WAIT_MS }
  }
}
