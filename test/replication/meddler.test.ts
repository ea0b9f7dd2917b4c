/**
 * Somebody between the hosts who holds the keys of both: frames corrupted, cut, repeated, swapped,
 * lost, replayed; headers, lengths, acknowledgements and welcomes falsified; bytes damaged below TLS.
 * The replica refuses, says so, connects again, and ends equal; `wait` is never talked into a lie.
 *
 * HOLDFAST_ROUNDS (of ten faults and more) and HOLDFAST_SEED make it longer, or repeat it.
 */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { Chance, checkLoad, chooseSeed, Load, setting, until } from '../harness/faults.js'
import { makeHosts } from '../harness/hosts.js'
import { makeImage } from '../harness/image.js'
import { MEDDLER_PORT, Meddler } from '../harness/meddler.js'
import { openSandbox } from '../harness/sandbox.js'
import { FAULT_NAMES } from '../harness/tamper.js'
import { compareTrees } from '../harness/volume.js'

const ROUNDS_CI = 2
const FAULTS_PER_ROUND = 10

const rounds = setting('HOLDFAST_ROUNDS', ROUNDS_CI)
const seed = chooseSeed()
t.setTimeout(180_000 + rounds * 120_000)
t.comment(`seed ${seed}, ${rounds} rounds: HOLDFAST_SEED=${seed} HOLDFAST_ROUNDS=${rounds}`)

const chance = new Chance(seed)
const sandbox = await openSandbox(t)
const [primary, replica] = await makeHosts(sandbox)
const image = await makeImage(sandbox, { fs: 'xfs', mib: 8192 })
const dir = join(image.dir, 'data')
const root = join(image.dir, 'replicas')
const tree = join(root, 'data', 'tree')

const shown = async () => (await primary.status('data')).replicas[0]
const wait = (timeout: string) => primary.tryHoldfast('wait', 'data', '--timeout', timeout)

mkdirSync(dir)
await primary.holdfast('mount', dir, '--ring', sandbox.rings, '--ring-size', '64M')
await replica.serve(root)
const meddler = await Meddler.start({ primary, replica, seed })
t.teardown(() => meddler.stop())
await primary.introduce(replica, { port: MEDDLER_PORT })
await primary.holdfast('replicate', 'data', '--to', 'replica')
await primary.holdfast('wait', 'data', '--timeout', '60s')

/** Load, and meddling with it; `wait` in the middle of both must tell the truth. */
async function oneRound(round: number): Promise<string> {
  const load = {
    dir: join(dir, `round-${round}`),
    ack: join(sandbox.root, `round-${round}.ack`),
    seed: seed + round,
    threads: 2,
    seconds: 6,
  }
  mkdirSync(load.dir)
  rmSync(join(dir, `round-${round - 2}`), { recursive: true, force: true })
  const before = meddler.total
  const below = round % 4 === 3 ? 0.5 : 0
  await meddler.order({ faults: FAULT_NAMES, every: chance.pick([2, 5, 15]), below })
  const running = await Load.begin(load)
  for (let n = 0; meddler.total < before + FAULTS_PER_ROUND; n += 1) {
    const marker = `marker-${round}-${n}`
    writeFileSync(join(dir, marker), marker)
    const { code } = await wait('2s')
    if (code !== 0) continue
    const there = join(tree, marker)
    if (!existsSync(there)) return `wait told of ${marker}, which is not there`
    if (readFileSync(there, 'utf8') !== marker) return `${marker} says something else`
  }
  await running.end()
  await meddler.order({})
  const waited = await wait('90s')
  if (waited.code !== 0) return `${waited.stderr}${JSON.stringify(await shown())}`
  const differs = await compareTrees(dir, tree)
  if (differs !== '') return differs
  return checkLoad({ ...load, dir: join(tree, `round-${round}`) })
}

await t.test('meddler: every fault is met, and the replica ends equal', async (t) => {
  for (let round = 1; round <= rounds; round += 1) {
    const wrong = await oneRound(round)
    if (wrong !== '') {
      return void t.fail(`round ${round}: ${wrong}\n${replica.log.slice(-4000)}`)
    }
    t.comment(`round ${round}: ${meddler.total} faults`)
  }
  t.comment(JSON.stringify(Object.fromEntries(meddler.done)))
  t.match(replica.log, /"msg":"refused"/, 'and the log of the replica tells of it')
  const { connections = 0, copy } = (await shown()) ?? {}
  t.ok(connections > rounds, `${connections} connections`)
  t.equal(copy, 'UpToDate')
})

await t.test('meddler: what the replica claims is not more than it can have', async (t) => {
  for (const fault of ['ack-high', 'ack-applied', 'welcome-applied'] as const) {
    const times = (what: string) => meddler.done.get(what) ?? 0
    const before = { cut: times('cut'), fault: times(fault) }
    await meddler.order({ faults: ['cut'] })
    await until(() => times('cut') > before.cut, 'a connection to be cut')
    await meddler.order({ faults: [fault] })
    writeFileSync(join(dir, fault), fault)
    await until(() => times(fault) > before.fault, `${fault} to be done`)
    const { code } = await wait('1s')
    if (code === 0) t.equal(readFileSync(join(tree, fault), 'utf8'), fault, `${fault}: no lie`)
    await until(async () => {
      const { problem, connections = 0 } = (await shown()) ?? {}
      return problem?.code === 'PROTOCOL' || connections > 1
    }, `${fault} to be noticed`)
  }
  await meddler.order({})
  t.equal((await wait('60s')).code, 0)
  t.equal(await compareTrees(dir, tree), '')
})

await t.test('meddler: one way only', async (t) => {
  for (const hold of ['up', 'down'] as const) {
    const { connections = 0 } = (await shown()) ?? {}
    await meddler.order({ hold })
    writeFileSync(join(dir, `hold-${hold}`), hold)
    await until(async () => {
      return ((await shown())?.connections ?? 0) > connections || (await shown())?.problem !== null
    }, `the end of a connection on which nothing goes ${hold}`)
    t.match(
      (await shown())?.problem?.message ?? 'nothing was heard',
      /heard|closed|refuses|ECONN|answer/,
    )
    await meddler.order({})
    t.equal((await wait('60s')).code, 0, `${hold}: goes on by itself`)
    t.equal(readFileSync(join(tree, `hold-${hold}`), 'utf8'), hold)
  }
  await primary.holdfast('unmount', 'data')
})
