/** Groups of hosts for the tests: members behind links that may be slow, and who counts through them. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Test } from 'tap'
import type { KnownGroupSnapshot } from '../../src/daemon/groups.js'
import type { Snapshot } from '../../src/daemon/snapshots.js'
import type { GroupSnapshot } from '../../src/group/definition.js'
import { callSocket } from './ask.js'
import { isBroken } from './chains.js'
import { Counts } from './counts.js'
import { projectFile } from './files.js'
import type { Host } from './hosts.js'
import type { Image } from './image.js'
import { start } from './run.js'
import type { Sandbox } from './sandbox.js'

const SLOW_PORT = 7430

/** A host with one volume that is a member of a group; `dir` is where it is mounted. */
export interface Member {
  host: Host
  volume: string
  dir: string
}

/** A volume on each host; all but the first serve, and let the first one coordinate. */
export async function makeMembers(
  sandbox: Sandbox,
  image: Image,
  { hosts, slow }: { hosts: readonly Host[]; slow?: (host: Host) => Slowness | undefined },
): Promise<Member[]> {
  const members: Member[] = []
  for (const [n, host] of hosts.entries()) {
    const member = { host, volume: `v${n}`, dir: join(image.dir, `v${n}`) }
    mkdirSync(member.dir)
    const ring = ['--ring', sandbox.rings, '--ring-size', '64M']
    await host.holdfast('mount', member.dir, '--name', member.volume, ...ring)
    members.push(member)
  }
  const [coordinator] = hosts
  for (const host of hosts.slice(1)) {
    await host.serve(join(image.dir, `${host.name}-replicas`))
    const slowness = slow?.(host)
    const port = slowness === undefined ? host.port : await startSlowLink(host, slowness)
    await coordinator?.introduce(host, { port })
    if (coordinator !== undefined) {
      await host.holdfast('peer', 'allow', coordinator.name, '--all')
    }
  }
  return members
}

export async function endMembers(members: readonly Member[]): Promise<void> {
  for (const { host, volume } of members) await host.tryHoldfast('unmount', '--force', volume)
  for (const { host } of members) await host.stopServing()
}

/** What a host's clock shows against the others: read by its programs from a file. */
export function setClock(host: Host, clock: { offsetMs: number; driftPpm: number }): void {
  const path = `${host.env.HOLDFAST_STATE_ROOT}.clock`
  const offsetNs = `${BigInt(Math.round(clock.offsetMs)) * 1_000_000n}`
  writeFileSync(`${path}.new`, JSON.stringify({ offsetNs, driftPpm: clock.driftPpm }))
  renameSync(`${path}.new`, path)
  host.env.HOLDFAST_TEST_CLOCK = path
}

/** How a link is slow, ms. */
export interface Slowness {
  there: number
  back: number
  jitter: number
}

/** Starts a slow way to a host's server; its address. */
export async function startSlowLink(
  host: Host,
  { there, back, jitter }: Slowness,
): Promise<number> {
  const main = projectFile('dist/test/harness/slow-link-main.js')
  const ports = [`${SLOW_PORT}`, `${host.port}`, host.address]
  const link = host.start(process.execPath, [main, ...ports, `${there}`, `${back}`, `${jitter}`])
  await once(link.stdout ?? link, 'data')
  return SLOW_PORT
}

/** Processes that count through the members, in that order or another; ended by `endChains`. */
export async function startChains(
  members: readonly Member[],
  count: number,
  { pauseS = 0.001 } = {},
): Promise<ChildProcess> {
  const dirs = members.map(({ dir }) => dir)
  const script = projectFile('test/harness/chain.py')
  const env = { HOLDFAST_CHAIN_PAUSE_S: `${pauseS}` }
  const child = start('python3', [script, `${count}`, ...dirs], { env })
  await once(child.stdout ?? child, 'data')
  return child
}

export async function endChains(child: ChildProcess): Promise<void> {
  const ended = once(child, 'close')
  process.kill(-(child.pid ?? 0), 'SIGKILL')
  await ended
}

/** What a group's hosts say of it. */
export class GroupLook {
  readonly #group: string
  readonly #coordinator: Host
  readonly #members: readonly Member[]

  constructor(group: string, coordinator: Host, members: readonly Member[]) {
    this.#group = group
    this.#coordinator = coordinator
    this.#members = members
  }

  /** I/O of any member is on hold. */
  async isHeld(): Promise<boolean> {
    const all = this.#members.map(({ host, volume }) => host.status(volume))
    return (await Promise.all(all)).some(({ held }) => held)
  }

  async known(): Promise<KnownGroupSnapshot[]> {
    const list = ['group', 'snapshot', 'list', this.#group]
    return (await this.#coordinator.json<{ snapshots: KnownGroupSnapshot[] }>(...list)).snapshots
  }

  /** Every host keeps those that are complete, and nothing else. */
  async requireWhole(t: Pick<Test, 'same'>, when: string): Promise<KnownGroupSnapshot[]> {
    const all = await this.known()
    const half = all.filter(({ state }) => state !== 'complete')
    t.same(half, [], `${when}: all are complete`)
    const names = all.map(({ name }) => name).sort()
    for (const { host } of this.#members) {
      const { snapshots } = await host.json<{ snapshots: Snapshot[] }>('snapshot', 'list')
      t.same(snapshots.map(({ name }) => name).sort(), names, `${when}: ${host.name}`)
    }
    return all
  }
}

/** A request to the daemon of a member. */
export async function control<Reply>(
  { host, volume }: Member,
  path: string,
  body: unknown,
): Promise<Reply> {
  return callSocket(join(host.env.HOLDFAST_RUN_DIR ?? '', `${volume}.sock`), path, body)
}

/** seqs of one moment, by member. */
export type Moment = readonly bigint[]

/** Markers on all members as fast as they can be set: what a cut without a hold would be. */
export async function looseMarkers(members: readonly Member[]): Promise<Moment> {
  const marked = members.map((member) =>
    control<{ seq: number }>(member, '/v1/marker', { name: 'loose' }),
  )
  return (await Promise.all(marked)).map(({ seq }) => BigInt(seq))
}

export function momentOf(members: readonly Member[], { hosts }: GroupSnapshot): Moment {
  const all = hosts.flatMap((each) => each.members)
  return members.map(({ volume }) => BigInt(all.find((each) => each.volume === volume)?.seq ?? 0))
}

/** How many chains show what no instant can have shown, over all moments. */
export async function brokenChains(
  members: readonly Member[],
  chains: number,
  moments: readonly Moment[],
): Promise<number> {
  await Promise.all(members.map((member) => control(member, '/v1/flush', {})))
  const files = Array.from({ length: chains }, (_, k) => `chain-${k}`)
  const counts = members.map(({ host, volume, dir }) => {
    return new Counts(join(host.env.HOLDFAST_STATE_ROOT ?? '', volume), dir, files)
  })
  let broken = 0
  for (const moment of moments) {
    for (let k = 0; k < chains; k += 1) {
      const values = counts.map((each, n) => each.at(k, moment[n] ?? 0n))
      if (isBroken(values, k)) broken += 1
    }
  }
  return broken
}

/** Chains that trees of the members, frozen, show broken. */
export function brokenInTrees(trees: readonly string[], chains: number): number {
  const value = (tree: string, k: number) =>
    readFileSync(join(tree, `chain-${k}`)).readBigUInt64LE()
  const all = Array.from({ length: chains }, (_, k) => trees.map((tree) => value(tree, k)))
  return all.filter((values, k) => isBroken(values, k)).length
}

/** What a program that takes cuts tells of one: the snapshot, or why there is none. */
export type CutTold = { taken: GroupSnapshot; ms: number } | { failed: string; code: string }

/** Has a host take so many snapshots of a group, one after the other. */
export async function takeCuts(
  coordinator: Host,
  order: { group: string; count: number; method: string; maxHoldMs?: number; attempts?: number },
  onCut?: (told: CutTold) => unknown,
): Promise<CutTold[]> {
  const main = projectFile('dist/test/harness/group-cuts-main.js')
  const args = [...coordinator.inside, process.execPath, main, JSON.stringify(order)]
  const child = spawn('nsenter', args, {
    env: { ...process.env, ...coordinator.env },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const all: CutTold[] = []
  for await (const line of createInterface({ input: child.stdout })) {
    const told = JSON.parse(line) as CutTold
    all.push(told)
    await onCut?.(told)
  }
  return all
}
