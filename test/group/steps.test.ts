/**
 * Faults at every step of a cut of a group: between the states that its coordinator tells, a member's server or
 * its volume's daemon stops or dies, its link is cut, or the coordinator itself stops or dies. Nobody's write
 * waits longer than the hold may last, no torn cut is called good, nothing is left armed or half.
 *
 * HOLDFAST_FAULTS and HOLDFAST_SEED make it longer, or repeat it.
 */
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { GroupSnapshot } from '../../src/group/definition.js'
import { Chance, chooseSeed, kill, setting, signal, until } from '../harness/faults.js'
import { HOLDFAST } from '../harness/files.js'
import {
  brokenChains,
  endChains,
  endMembers,
  GroupLook,
  type Member,
  makeMembers,
  momentOf,
  startChains,
} from '../harness/group.js'
import { type Host, makeSwitched } from '../harness/hosts.js'
import { makeImage } from '../harness/image.js'
import { openSandbox } from '../harness/sandbox.js'

const FAULTS = setting('HOLDFAST_FAULTS', 6)
const CHAINS = 4
const MAX_HOLD_MS = 400
/** Beyond the hold's bound: what a busy machine takes to run a thread. */
const BUSY_MS = 1_500
const STATES = ['QUIESCING', 'QUIESCED', 'RELEASING', 'RELEASED']
const seed = chooseSeed()
t.setTimeout(300_000 + FAULTS * 30_000)
t.comment(`seed ${seed}, ${FAULTS} faults: HOLDFAST_SEED=${seed} HOLDFAST_FAULTS=${FAULTS}`)

const chance = new Chance(seed)
const sandbox = await openSandbox(t)
const image = await makeImage(sandbox, { fs: 'xfs', mib: 4096 })
const hosts = await makeSwitched(sandbox, ['hub', 'one', 'two'])
const [hub] = hosts as [Host, Host, Host]
const members = await makeMembers(sandbox, image, { hosts })
t.teardown(() => endMembers(members))
await hub.holdfast('group', 'create', 'shop', 'v0', 'one/v1', 'two/v2')

const look = new GroupLook('shop', hub, members)
const daemonOf = ({ host, volume }: Member) => host.status(volume).then(({ pid }) => pid)

/** Coordinates one snapshot, and calls back when it tells the state. */
function order(name: string, method: string, at: { state: string; reached: () => unknown }) {
  const args = ['group', 'snapshot', 'create', 'shop', '-v', '--name', name]
  const bounds = ['--max-hold', `${MAX_HOLD_MS}ms`, '--timeout', '5s', '--attempts', '1']
  const child = hub.start(process.execPath, [HOLDFAST, ...args, '--method', method, ...bounds])
  let said = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    const before = said.includes(at.state)
    said += text
    if (!before && said.includes(at.state)) at.reached()
  })
  const ended = once(child, 'close').then(([code]) => ({ code: code as number | null, said }))
  return { child, ended }
}

/** What is done to one of them, and how it is undone. */
type Fault = (
  victim: Member,
  coordinator: ChildProcess,
) => Promise<{ stalls: boolean; undo(): unknown }>

const stopping = (pid: number, stalls: boolean) => {
  signal(pid, 'SIGSTOP')
  return { stalls, undo: () => signal(pid, 'SIGCONT') }
}
const faults: Record<string, Fault> = {
  'its server stops': async ({ host }) => stopping(host.serverPid ?? 0, false),
  'its server dies': async ({ host }) => {
    await host.stopServing('SIGKILL')
    return { stalls: false, undo: () => host.startAgain() }
  },
  'its daemon stops': async (member) => stopping(await daemonOf(member), true),
  'its link is cut': async ({ host }) => {
    await host.setLink('down')
    return { stalls: false, undo: () => host.setLink('up') }
  },
  'the coordinator stops': async (_victim, { pid = 0 }) => stopping(pid, false),
  'the coordinator dies': async (_victim, coordinator) => {
    coordinator.kill('SIGKILL')
    return { stalls: false, undo: () => {} }
  },
}

await t.test('steps: a fault between any two states of a cut', async (t) => {
  const chains = await startChains(members, CHAINS)
  /** Directories whose writes may wait, as their daemon is stopped. */
  const excused = new Set<string>()
  const stalls: { dir: string; ms: number }[] = []
  const lines = createInterface({ input: chains.stdout ?? process.stdin })
  lines.on('line', (line) => {
    const [, dir = '', ms = '0'] = /^stall (.*) (\d+)$/.exec(line) ?? []
    if (dir !== '' && !excused.has(dir)) stalls.push({ dir, ms: Number(ms) })
  })
  let taken = 0
  for (let n = 0; n < FAULTS; n += 1) {
    const what = chance.pick(Object.keys(faults))
    const state = chance.pick(STATES)
    const victim = chance.pick(members.slice(1))
    const method = chance.pick(['scheduled', 'barrier'])
    const [before, during] = [
      chance.between(0, state === 'QUIESCING' ? 600 : 20),
      chance.between(50, 2_500),
    ]
    const round = `${n}: ${what}, ${Math.round(before)} ms after ${state}, ${method}`
    let told: () => void = () => {}
    const come = new Promise<void>((resolve) => {
      told = resolve
    })
    const { child, ended } = order(`step-${n}`, method, { state, reached: told })
    await Promise.race([come, ended])
    await sleep(before)
    if (what === 'its daemon stops') excused.add(victim.dir)
    const { undo } = await (faults[what] as Fault)(victim, child)
    await sleep(during)
    await undo()
    const { code, said } = await ended
    t.comment(`${round}: ${code} ${/error.*|holdfast: .*/.exec(said)?.[0] ?? ''}`)
    if (code === 0) taken += 1
    await until(
      async () => !(await look.isHeld()),
      `${round}: nothing to be on hold`,
      MAX_HOLD_MS + BUSY_MS,
    )
    await sleep(200)
    excused.delete(victim.dir)
  }
  await until(
    async () =>
      (await hub.tryHoldfast('group', 'snapshot', 'create', 'shop', '--name', 'after')).code === 0,
    'a snapshot to be possible again',
    60_000,
  )
  await endChains(chains)
  lines.close()
  const all = await look.requireWhole(t, 'after all')
  t.ok(all.length >= taken, `${taken} were called good`)
  const moments = all.map((each) => momentOf(members, each as unknown as GroupSnapshot))
  t.equal(await brokenChains(members, CHAINS, moments), 0, `none of ${all.length} is torn`)
  const worst = Math.max(0, ...stalls.map(({ ms }) => ms))
  t.ok(worst < MAX_HOLD_MS + BUSY_MS, `no write waited longer than ${worst} ms`)
})

await t.test('steps: the daemon of a member dies between any two states', async (t) => {
  for (let n = 0; n < FAULTS / 2; n += 1) {
    const victim = chance.pick(members)
    const state = chance.pick(STATES.slice(0, 3))
    const method = chance.pick(['scheduled', 'barrier'])
    const pid = await daemonOf(victim)
    const reached = () => setTimeout(() => process.kill(pid, 'SIGKILL'), chance.between(0, 400))
    const { code, said } = await order(`dead-${n}`, method, { state, reached }).ended
    t.comment(`${n}: ${state}, ${method}: ${code} ${/error.*|holdfast: .*/.exec(said)?.[0] ?? ''}`)
    await kill(pid).catch(() => {})
    const { host, dir, volume } = victim
    const ring = ['--ring', sandbox.rings, '--ring-size', '64M']
    await host.holdfast('mount', dir, '--name', volume, ...ring)
    await until(async () => !(await look.isHeld()), 'nothing to be on hold', MAX_HOLD_MS + BUSY_MS)
  }
  await hub.holdfast('group', 'snapshot', 'create', 'shop', '--name', 'last')
  await look.requireWhole(t, 'after the deaths')
})
