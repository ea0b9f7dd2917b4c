/**
 * Answers a coordinator of groups for this host, over one connection: its clock, its volumes, its part in
 * cuts, what runs on them, what is brought back. When the connection ends, every part that is not kept is
 * undone, and what was done for the coordinator alone ends.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { outOfTurn, type Service } from '../group/calls.js'
import { shownNow } from '../group/host-clock.js'
import { type Answer, type Method, type Question, Questions } from '../group/wire.js'
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import { hostName } from '../lib/host-name.js'
import { GROUP_NEWS_MS } from '../lib/limits.js'
import type { Logger } from '../lib/log.js'
import type { Rights } from '../replication/rights.js'
import { Catalogue } from '../snapshot/catalogue.js'
import { ControlClient, ifRunning } from './client.js'
import { destroySnapshot } from './destroy-snapshot.js'
import { findCommand } from './group-commands.js'
import { GroupPart } from './group-part.js'
import { GroupRestorePart } from './group-restore-part.js'
import { GroupRun } from './group-run.js'
import { answerHorizon } from './horizon-agent.js'
import { heldLocks, stubbornLocks } from './lock-check.js'
import { MarkerPart } from './marker-part.js'
import { listVolumes, type Volume } from './registry.js'
import { mountSnapshot, unmountSnapshot } from './snapshot-views.js'
import { listSnapshots, type Snapshot } from './snapshots.js'

export interface AgentOptions {
  /** What whoever asks may do here. */
  rights: Rights
  /** Who asks, for errors. */
  caller: string
  log: Logger
}

type Handlers = { [M in Method]: (question: Question<M>) => Promise<Answer<M>> }

export class GroupAgent implements Service {
  readonly #options: AgentOptions
  readonly #parts = new Map<string, GroupPart | MarkerPart>()
  /** Snapshots that go with this connection, by id. */
  readonly #temporary = new Map<string, GroupPart | MarkerPart>()
  #run: GroupRun | undefined
  #restore: GroupRestorePart | undefined
  #closed = false
  readonly #handlers: Handlers = {
    time: async () => ({ ns: `${shownNow()}` }),
    look: (question) => this.#look(question),
    prepare: (question) => this.#prepare(question),
    check: async ({ volumes, waitMs }) => {
      const found = volumes.map((which) => this.#volume(which))
      return { locks: waitMs === 0 ? heldLocks(found) : await stubbornLocks(found, waitMs) }
    },
    arm: ({ cut }) => this.#part(cut).arm(),
    hold: async ({ cut }) => ({ restNs: `${(await this.#part(cut).hold()).restNs}` }),
    release: async ({ cut }) => ({ members: await this.#part(cut).release() }),
    holdBetween: async ({ cut, startNs, untilNs }) => ({
      members: await this.#part(cut).holdBetween(BigInt(startNs), BigInt(untilNs)),
    }),
    commit: (question) => this.#part(question.cut).commit(question),
    followed: async ({ cut }) => {
      const ended = this.#part(cut).ended()
      const wait = sleep(GROUP_NEWS_MS, false, { ref: false })
      const isOver = await Promise.race([ended.then(() => true), wait])
      if (isOver) this.#parts.delete(cut)
      return { isOver }
    },
    abort: async ({ cut, why }) => {
      const part = this.#parts.get(cut)
      this.#parts.delete(cut)
      part?.abort(new HoldfastError('ABORTED', why, { op: 'group.cut' }))
      await part?.ended()
    },
    mount: async ({ id }) => {
      const views = await Promise.all(this.#snapshots(id).map(({ name }) => mountSnapshot(name)))
      return { views: views.flat().map(({ volume, path }) => ({ volume, path })) }
    },
    unmount: async ({ id, force }) => {
      const ended = this.#snapshots(id).map(({ name }) => unmountSnapshot(name, force))
      return { views: (await Promise.all(ended)).reduce((sum, n) => sum + n, 0) }
    },
    destroy: async ({ id, force }) => {
      for (const { name, owner } of this.#snapshots(id)) {
        await destroySnapshot(name, { force, ...(owner === null ? {} : { hooks: false }) })
      }
      this.#temporary.delete(id)
    },
    execPrepare: (question) => this.#prepareRun(question),
    execShow: ({ id }) => this.#running().show(this.#snapshot(id)),
    execStart: () => this.#running().start(),
    execRead: () => this.#running().read(),
    execSignal: async (question) => this.#running().signal(question),
    execEnd: async () => {
      await this.#running().end()
      this.#run = undefined
    },
    restorePrepare: async (question) => {
      if (this.#restore !== undefined) throw outOfTurn('group.answer')
      const volumes = question.volumes.map((which) => this.#volume(which))
      const { rights, caller } = this.#options
      this.#restore = new GroupRestorePart({ question, volumes, rights, caller })
      return this.#restore.prepare()
    },
    restoreStart: async ({ dryRun }) => this.#restoring().start({ dryRun }),
    restoreLook: () => this.#restoring().look(),
    horizon: (question) => {
      const { caller: coordinator } = this.#options
      return answerHorizon({ question, coordinator, find: (uuid) => this.#volume(uuid) })
    },
    leave: async ({ group, volumes }) => {
      for (const { config } of volumes.map((which) => this.#volume(which))) {
        await new ControlClient(config.name).leaveHorizon(group)
      }
    },
  }

  constructor(options: AgentOptions) {
    this.#options = options
  }

  async answer(method: string, params: unknown): Promise<unknown> {
    const known = Object.hasOwn(Questions, method) ? (method as Method) : undefined
    const parsed = known && Questions[known].safeParse(params)
    if (known !== undefined && parsed?.success === true) {
      const handle = this.#handlers[known] as (question: unknown) => Promise<unknown>
      return handle(parsed.data)
    }
    const issue = parsed?.error?.issues[0]
    const what = known === undefined ? 'is not known' : `${issue?.path.join('.')} ${issue?.message}`
    throw new HoldfastError('PROTOCOL', `question ${JSON.stringify(method)}: ${what}`, {
      op: 'group.answer',
    })
  }

  /** Idempotent. */
  close(): void {
    this.#closed = true
    const gone = new HoldfastError('CONNECTION', 'the coordinator is gone', { op: 'group.cut' })
    for (const part of this.#parts.values()) part.abort(gone)
    const going = [...this.#temporary].map(async ([id, part]) => {
      await part.ended()
      return id
    })
    this.#parts.clear()
    this.#temporary.clear()
    this.#restore?.close()
    void this.#clear(this.#run, going)
  }

  /** What goes with the connection. Never rejects; what fails is done by the daemons of the volumes. */
  async #clear(run: GroupRun | undefined, going: Promise<string>[]): Promise<void> {
    await run?.close()
    for (const id of await Promise.all(going)) {
      for (const { name } of listSnapshots().filter((each) => each.id === id)) {
        await destroySnapshot(name, { hooks: false }).catch((error: unknown) => {
          const { code, message } = toHoldfastError(error, 'group.clear')
          this.#options.log.warn({ code, reason: message, snapshot: name }, 'a snapshot stays')
        })
      }
    }
  }

  async #look({ volumes }: Question<'look'>): Promise<Answer<'look'>> {
    const found = volumes.map((which) => this.#volume(which))
    const told = found.map(async ({ config: { name, uuid }, stateDirectory }) => {
      const status = await ifRunning(new ControlClient(name).status())
      const snapshots = new Catalogue(stateDirectory).list().map(({ id }) => id)
      return { name, uuid, state: status?.state ?? 'stopped', snapshots }
    })
    return { host: hostName(), volumes: await Promise.all(told) }
  }

  async #prepare(order: Question<'prepare'>): Promise<Answer<'prepare'>> {
    const volumes = order.volumes.map((which) => this.#volume(which))
    if (this.#parts.has(order.cut)) {
      throw new HoldfastError('PROTOCOL', 'that cut is prepared already', { op: 'group.prepare' })
    }
    const { log } = this.#options
    const part = order.markers
      ? new MarkerPart({ order, volumes })
      : new GroupPart({ order, volumes, log })
    this.#parts.set(order.cut, part)
    if (order.temporary) this.#temporary.set(order.cut, part)
    try {
      return await part.prepare()
    } catch (error) {
      this.#parts.delete(order.cut)
      this.#temporary.delete(order.cut)
      throw error
    }
  }

  async #prepareRun({ volumes, command }: Question<'execPrepare'>): Promise<void> {
    if (this.#run !== undefined) throw outOfTurn('group.answer')
    const found = volumes.map((which) => this.#volume(which))
    const [word, ...args] = command ?? []
    const run = word === undefined ? null : { file: findCommand(word, this.#options), args }
    const prepared = await GroupRun.prepare(found, run)
    // Two at once, or too late for anybody: nobody would end this one.
    if (this.#run === undefined && !this.#closed) this.#run = prepared
    else {
      await prepared.close()
      throw outOfTurn('group.answer')
    }
  }

  /** SNAPSHOT_NOT_FOUND, NOT_ALLOWED. */
  #snapshot(id: string): Snapshot {
    const [found] = this.#snapshots(id)
    if (found !== undefined) return found
    throw new HoldfastError('SNAPSHOT_NOT_FOUND', `${hostName()} has no part of it`, {
      op: 'group.find',
    })
  }

  #running(): GroupRun {
    if (this.#run === undefined) throw outOfTurn('group.answer')
    return this.#run
  }

  #restoring(): GroupRestorePart {
    if (this.#restore === undefined) throw outOfTurn('group.answer')
    return this.#restore
  }

  /** This host's part of a snapshot of a group; none, or one. NOT_ALLOWED. */
  #snapshots(id: string): Snapshot[] {
    const found = listSnapshots().filter((each) => each.id === id)
    for (const { members } of found) for (const { volume } of members) this.#requireAllowed(volume)
    return found
  }

  #part(cut: string): GroupPart | MarkerPart {
    const found = this.#parts.get(cut)
    if (found !== undefined) return found
    throw new HoldfastError('ABORTED', 'that cut is over', { op: 'group.cut' })
  }

  /** By name or UUID. NOT_FOUND, NOT_ALLOWED. */
  #volume(which: string): Volume {
    const found = listVolumes().find(({ config }) => config.name === which || config.uuid === which)
    if (found === undefined) {
      throw new HoldfastError('NOT_FOUND', `${hostName()} has no volume ${which}`, {
        op: 'group.find',
      })
    }
    this.#requireAllowed(found.config.name)
    return found
  }

  #requireAllowed(volume: string): void {
    const { rights, caller } = this.#options
    if (rights.mayCut(volume)) return
    throw new HoldfastError('NOT_ALLOWED', `${caller} may not hold ${volume} of ${hostName()}`, {
      op: 'group.find',
      hint: `Allow it on ${hostName()}: holdfast peer allow ${caller} ${volume}`,
    })
  }
}
