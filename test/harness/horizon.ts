/**
 * A group with a commit horizon for the tests: a coordinator with a volume of its own, a member reached by
 * TLS and one by ssh, and a host that keeps the replicas of all three; who serves the group, and what
 * the replicas show at any moment.
 */
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { HorizonView } from '../../src/daemon/group-horizon.js'
import type { Status } from '../../src/daemon/status.js'
import type { CommonCut, GroupHorizon } from '../../src/group/horizon.js'
import { callSocket } from './ask.js'
import { until } from './faults.js'
import { HOLDFAST } from './files.js'
import { brokenInTrees, type Member, type Moment } from './group.js'
import { type Host, makeSwitched } from './hosts.js'
import type { Image } from './image.js'
import type { Sandbox } from './sandbox.js'
import { Sshd } from './ssh.js'

const GROUP = 'shop'

/** What the daemon of a member says, without a program in between. */
export function statusOf({ host, volume }: Member): Promise<Status> {
  return host.status(volume)
}

/** What was seen at one moment: of each member, in order. */
export interface Seen {
  applied: Moment
  horizon: GroupHorizon | undefined
  /** What they may have applied at most, for it was written down: empty when nothing was. */
  limit: Moment
}

export class Shop {
  readonly members: readonly Member[]
  readonly vault: Host
  readonly #root: string
  readonly #uuids: string[] = []
  #server: ChildProcess | undefined
  /** What `group serve` has logged. */
  log = ''

  private constructor(members: readonly Member[], vault: Host, root: string) {
    this.members = members
    this.vault = vault
    this.#root = root
  }

  /** Volumes, replicas that are whole, and the group; nobody serves it. */
  static async make(sandbox: Sandbox, image: Image): Promise<Shop> {
    const hosts = await makeSwitched(sandbox, ['hub', 'one', 'two', 'vault'])
    const [hub, one, two, vault] = hosts as [Host, Host, Host, Host]
    const root = join(image.dir, 'vault')
    await vault.serve(root)
    await Promise.all([hub, one, two].map((host) => host.introduce(vault)))
    const making = [hub, one, two].map(async (host, n): Promise<Member> => {
      const member = { host, volume: `v${n}`, dir: join(image.dir, `v${n}`) }
      mkdirSync(member.dir)
      const ring = ['--ring', sandbox.rings, '--ring-size', '64M']
      await host.holdfast('mount', member.dir, '--name', member.volume, ...ring)
      await host.holdfast('replicate', member.volume, '--to', 'vault', '--wait')
      await vault.holdfast('replica', 'history', member.volume, '--mode', 'continuous')
      return member
    })
    const sshd = await Sshd.start(sandbox, two)
    const members = await Promise.all(making)
    await one.serve(join(image.dir, 'one-replicas'))
    await hub.introduce(one)
    await one.holdfast('peer', 'allow', 'hub', '--all')
    const url = `ssh://${two.address}${join(image.dir, 'two-replicas')}`
    const config = ['--ssh-config', sshd.at('config')]
    await hub.holdfast('peer', 'add', url, '--name', 'two', '--as', 'hub', ...config)
    await hub.holdfast('group', 'create', GROUP, 'v0', 'one/v1', 'two/v2')
    const shop = new Shop(members, vault, root)
    const { members: named } = await hub.json<{ members: { uuid: string }[] }>(
      'group',
      'show',
      GROUP,
    )
    shop.#uuids.push(...named.map(({ uuid }) => uuid))
    return shop
  }

  get hub(): Host {
    return (this.members[0] as Member).host
  }

  get trees(): string[] {
    return this.members.map(({ volume }) => join(this.#root, volume, 'tree'))
  }

  group(command: string, ...args: string[]): Promise<string> {
    return this.hub.holdfast('group', command, GROUP, ...args)
  }

  async show(): Promise<HorizonView> {
    const { horizon } = await this.hub.json<{ horizon: HorizonView }>('group', 'show', GROUP)
    return horizon
  }

  /** Starts to move the horizon; resolves when all have applied one. */
  async serve(...options: string[]): Promise<void> {
    this.start(...options)
    const moved = async () => this.mutual(await this.see()) !== undefined
    await until(moved, 'a horizon').catch((error: Error) => {
      throw new Error(`${error.message}: ${this.log}`)
    })
  }

  start(...options: string[]): void {
    const args = ['--interval', '300ms', '--copy-timeout', '6s', ...options]
    // Every move of the horizon is told.
    const program = ['HOLDFAST_LOG_LEVEL=debug', process.execPath, HOLDFAST]
    const server = this.hub.start('env', [...program, 'group', 'serve', GROUP, ...args])
    this.#server = server
    server.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.log += text
    })
  }

  /** Ends it; its exit code. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
    const server = this.#server
    if (server === undefined || server.exitCode !== null) return null
    const closed = once(server, 'close')
    server.kill(signal)
    await closed
    return server.exitCode
  }

  /** What is written down, and what the replicas have applied. */
  async see(): Promise<Seen> {
    const horizon = this.#written()
    const { replicas } = await this.vault.replicas()
    const applied = this.members.map(({ volume }) => {
      return BigInt(replicas.find(({ name }) => name === volume)?.applied ?? 0)
    })
    const written = this.#written()?.horizon
    return { applied, horizon, limit: written == null ? [] : this.momentOf(written) }
  }

  /** Every horizon that there was, oldest first: what was logged, and what was written down. */
  get horizons(): CommonCut[] {
    const logged = this.log.split('\n').filter((line) => line.includes('"the horizon has moved"'))
    const { before = null, horizon = null } = this.#written() ?? {}
    const all = [...logged.map((line) => JSON.parse(line).horizon as CommonCut), before, horizon]
    const byTime = new Map(all.flatMap((each) => (each === null ? [] : [[each.at, each]])))
    return [...byTime.values()].sort((a, b) => a.at.localeCompare(b.at))
  }

  /** All trees stand at the newest horizon. */
  async allAt(): Promise<boolean> {
    const { horizon, applied } = await this.see()
    const cut = horizon?.horizon
    return cut != null && this.momentOf(cut).every((seq, n) => seq === applied[n])
  }

  #written(): GroupHorizon | undefined {
    const path = join(this.hub.identityDirectory, 'groups', GROUP, 'horizon.json')
    return existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as GroupHorizon) : undefined
  }

  /** What it has logged besides every move. */
  get said(): string {
    return this.log
      .split('\n')
      .filter((line) => !line.includes('has moved'))
      .join('\n')
  }

  /** seqs of a cut, in the order of the members. */
  momentOf({ seqs }: { seqs: Record<string, number> }): Moment {
    return this.#uuids.map((uuid) => BigInt(seqs[uuid] ?? 0))
  }

  /** Looks again and again, for so long. */
  async watch(ms: number, pauseMs = 15): Promise<Seen[]> {
    const seen: Seen[] = []
    for (const end = Date.now() + ms; Date.now() < end; await sleep(pauseMs)) {
      seen.push(await this.see())
    }
    return seen
  }

  /** Trees that have gone beyond the horizon: of members, over all that was seen. */
  beyond(seen: readonly Seen[]): number {
    const all = seen.flatMap(({ applied, limit }) =>
      applied.map((seq, n) => seq > (limit[n] ?? 0n)),
    )
    return all.filter((each) => each).length
  }

  get moments(): Moment[] {
    return this.horizons.map((cut) => this.momentOf(cut))
  }

  /** The newest horizon that all had applied then. */
  mutual({ applied }: Seen, moments = this.moments): Moment | undefined {
    return moments.findLast((each) => each.every((seq, n) => (applied[n] ?? 0n) >= seq))
  }

  /** Chains that the replicas show broken when they show this moment, by views of all of them. */
  async brokenAt(moment: Moment, chains: number, at: string): Promise<number> {
    const socket = join(this.vault.env.HOLDFAST_RUN_DIR ?? '', '.replica-host.sock')
    const views: { volume: string; path: string; id: number }[] = []
    for (const [n, { volume }] of this.members.entries()) {
      const path = join(at, volume)
      mkdirSync(path, { recursive: true })
      const body = { seq: Number(moment[n]), path, ownerPid: null }
      const { id } = await callSocket<{ id: number }>(socket, `/v1/replicas/${volume}/views`, body)
      views.push({ volume, path, id })
    }
    const broken = brokenInTrees(
      views.map(({ path }) => path),
      chains,
    )
    for (const { volume, id } of views) {
      await callSocket(socket, `/v1/replicas/${volume}/views/${id}/unmount`, { lazy: true })
    }
    rmSync(at, { recursive: true, force: true })
    return broken
  }

  async end(): Promise<void> {
    await this.stop('SIGKILL')
    for (const { host, volume } of this.members)
      await host.tryHoldfast('unmount', '--force', volume)
    for (const host of [...this.members.map((each) => each.host), this.vault]) {
      await host.stopServing()
    }
  }
}
