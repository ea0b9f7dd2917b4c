/**
 * One volume, two replicas of it, and a third that is fed by the first of them: links cut and each
 * side killed at random instants; at the end all trees are equal, and each host knows how far the
 * others are.
 *
 * HOLDFAST_ROUNDS and HOLDFAST_SEED make it longer, or repeat it.
 */
import { randomBytes } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { HostedReplica } from '../../src/daemon/replica-host.js'
import {
  Chance,
  changeBase,
  chooseSeed,
  fillBase,
  kill,
  Load,
  setting,
  until,
} from '../harness/faults.js'
import { type Host, lastLogs, makeSwitched } from '../harness/hosts.js'
import { makeImage } from '../harness/image.js'
import { bash } from '../harness/run.js'
import { openSandbox } from '../harness/sandbox.js'
import { compareTrees } from '../harness/volume.js'

const SLOW_MBIT = 8
const SLOW_BYTES = 8 << 20
const ROUNDS = setting('HOLDFAST_ROUNDS', 2)
const WAIT_MS = 90_000
const POLL_MS = 20
const seed = chooseSeed()
t.setTimeout(800_000 + ROUNDS * 60_000)
t.comment(`seed ${seed}, ${ROUNDS} rounds: HOLDFAST_SEED=${seed} HOLDFAST_ROUNDS=${ROUNDS}`)

const sandbox = await openSandbox(t)
const hosts = await makeSwitched(sandbox, ['primary', 'first', 'second', 'third'])
const [primary, first, second, third] = hosts as [Host, Host, Host, Host]
const image = await makeImage(sandbox, { fs: 'xfs', mib: 8192 })
const dir = join(image.dir, 'data')
const root = (host: Host) => join(image.dir, host.name)
const tree = (host: Host) => join(root(host), 'data', 'tree')

const hosted = async (host: Host): Promise<HostedReplica | undefined> =>
  (await host.replicas().catch(() => undefined))?.replicas[0]
const logs = () => lastLogs('data', primary, [first, second, third])

/** Waits until a replica says that it has all that was captured until now. */
async function settled(host: Host): Promise<void> {
  const { captured } = await primary.status('data')
  let last: HostedReplica | undefined
  const there = async () => {
    last = await hosted(host)
    return last !== undefined && last.applied >= captured.seq && !last.baseline
  }
  await until(there, `${host.name} to have seq ${captured.seq}`, WAIT_MS).catch((error: Error) => {
    throw new Error(`${error.message}\n${JSON.stringify(last)}\n${logs()}`)
  })
}

/** The differences of all replicas, by the name of their host. */
async function differences(...of: Host[]): Promise<string> {
  const found: string[] = []
  for (const host of of) {
    await settled(host)
    const differs = await compareTrees(dir, tree(host))
    if (differs !== '') found.push(`${host.name}: ${differs}\n${logs()}`)
  }
  return found.join('\n')
}

await t.test('chain: two replicas, and one of them feeds a third', async (t) => {
  mkdirSync(dir)
  await fillBase(dir)
  await primary.holdfast('mount', dir, '--ring', sandbox.rings, '--ring-size', '64M')
  await changeBase(dir)
  for (const host of [first, second, third]) await host.serve(root(host))
  for (const host of [first, second]) await primary.introduce(host)
  await first.introduce(third)
  // Both at once: neither may take the end of the other's baseline for the end of its own.
  await Promise.all(
    [first, second].map(({ name }) => primary.holdfast('replicate', 'data', '--to', name)),
  )
  const early = await first.tryHoldfast('replica', 'feed', 'nothing', '--to', 'third')
  t.equal(early.code, 3)
  t.match(early.stderr, /no replica nothing/)
  await settled(first)
  const strange = await first.tryHoldfast('replica', 'feed', 'data', '--to', 'nobody')
  t.match(strange.stderr, /no peer nobody/)
  t.match(await first.holdfast('replica', 'feed', 'data', '--to', 'third'), /data feeds third/)
  t.equal(await differences(first, second, third), '')
  await until(async () => (await hosted(first))?.feeds[0]?.copy === 'UpToDate', 'the feed to be')
  t.match(await hosted(first), { primary: 'primary', feeds: [{ peer: 'third', copy: 'UpToDate' }] })
  t.match(await first.holdfast('replica', 'list'), /data feeds +third connected, async, UpToDate/)
  const { captured } = await primary.status('data')
  const end = (await hosted(third))?.end ?? 0
  t.ok(end >= captured.seq, `the third knows the end of the primary's journal: ${end}`)
  t.match(await hosted(third), { primary: 'first', copy: 'UpToDate', problem: null })
})

await t.test('chain: the end knows of what the middle has not got yet', async (t) => {
  await primary.throttle(SLOW_MBIT)
  writeFileSync(join(dir, 'slow'), randomBytes(SLOW_BYTES))
  const { captured } = await primary.status('data')
  let behind = 0
  for (;;) {
    const shown = await hosted(third)
    if (shown === undefined || shown.applied >= captured.seq) break
    if (shown.end < captured.seq) {
      await sleep(POLL_MS)
      continue
    }
    behind += 1
    if (shown.copy === 'UpToDate') return void t.fail(JSON.stringify(shown))
  }
  t.ok(behind > 0, `${behind} times it was asked and said that it was behind`)
  await primary.throttle(undefined)
  t.equal(await differences(first, second, third), '')
})

await t.test('chain: cut links and deaths', async (t) => {
  const chance = new Chance(seed)
  const seen: string[] = []
  for (let round = 1; round <= ROUNDS; round += 1) {
    const load = { dir: join(dir, `round-${round}`), ack: join(sandbox.root, `round-${round}.ack`) }
    mkdirSync(load.dir)
    const running = await Load.begin({ ...load, seed: seed + round, threads: 2, seconds: 3 })
    for (let n = 0; n < 2; n += 1) {
      await sleep(chance.between(50, 700))
      const host = chance.pick([primary, first, first, second, third])
      const what = host === primary ? 'kill' : chance.pick(['kill', 'link'] as const)
      seen.push(`${what} ${host.name}`)
      if (what === 'link') {
        await host.setLink('down')
        await sleep(chance.between(100, 1500))
        await host.setLink('up')
      } else if (host === primary) {
        await kill((await primary.status('data')).pid)
        await primary.holdfast('mount', 'data')
      } else {
        await host.stopServing('SIGKILL')
        await sleep(chance.between(0, 500))
        await host.startAgain()
      }
    }
    await running.end()
    const differs = await differences(first, second, third)
    if (differs !== '') return void t.fail(`round ${round}: ${seen.join(', ')}: ${differs}`)
  }
  t.pass(seen.join(', '))
})

await t.test('chain: what the middle makes anew, the end makes anew', async (t) => {
  // The log of the middle is gone: it starts over, and so does whoever it feeds.
  await first.stopServing()
  await bash(`rm -rf ${join(root(first), 'data', 'log')} ${join(root(first), 'data', 'replay')}`)
  await bash('echo changed meanwhile >meanwhile; rm -rf new/lot', { cwd: dir })
  await first.startAgain()
  t.equal(await differences(first, third), '')
  await first.holdfast('replica', 'feed', 'data', '--stop', 'third')
  const again = await first.tryHoldfast('replica', 'feed', 'data', '--stop', 'third')
  t.equal(again.code, 3)
  writeFileSync(join(dir, 'alone'), 'the third does not get this')
  t.equal(await differences(first, second), '')
  t.match(await compareTrees(dir, tree(third)), /alone/)
  await primary.holdfast('unmount', 'data')
  for (const host of [first, second, third]) t.equal(await host.stopServing(), 0, 'in order')
})
