/**
 * A volume and its replica on two hosts (network namespaces): under load, with the link cut and both
 * sides killed at random instants; at the end the trees are equal, and `wait` told the truth.
 *
 * HOLDFAST_ROUNDS and HOLDFAST_SEED make it longer, or repeat it.
 */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import {
  Chance,
  changeBase,
  checkLoad,
  chooseSeed,
  fillBase,
  kill,
  Load,
  setting,
  until,
} from '../harness/faults.js'
import { lastLogs, makeHosts } from '../harness/hosts.js'
import { makeImage } from '../harness/image.js'
import { run } from '../harness/run.js'
import { openSandbox } from '../harness/sandbox.js'
import { compareTrees } from '../harness/volume.js'

const ROUNDS_CI = 4
const WAIT = ['--timeout', '60s']

const rounds = setting('HOLDFAST_ROUNDS', ROUNDS_CI)
const seed = chooseSeed()
t.setTimeout(480_000 + rounds * 60_000)
t.comment(`seed ${seed}, ${rounds} rounds: HOLDFAST_SEED=${seed} HOLDFAST_ROUNDS=${rounds}`)

const sandbox = await openSandbox(t)
const [primary, replica] = await makeHosts(sandbox)
const [here, there] = await Promise.all(
  ['here', 'there'].map((name) => makeImage(sandbox, { fs: 'xfs', mib: 8192, name })),
)
if (here === undefined || there === undefined) throw new Error('no images')
const dir = join(here.dir, 'data')
const root = join(there.dir, 'replicas')
const tree = join(root, 'data', 'tree')
const mountArgs = ['mount', dir, '--ring', sandbox.rings, '--ring-size', '64M']

const status = () => primary.status('data')
/** What both sides have logged last. */
const logs = () => lastLogs('data', primary, [replica])
const differences = async () => {
  const waited = await primary.tryHoldfast('wait', 'data', ...WAIT)
  if (waited.code !== 0) throw new Error(`${waited.stderr}\n${logs()}`)
  return compareTrees(dir, tree)
}

await t.test('replicate: introduced, a baseline, then every change', async (t) => {
  mkdirSync(dir)
  await fillBase(dir)
  await primary.holdfast(...mountArgs)
  await changeBase(dir)
  await replica.serve(root)
  await primary.introduce(replica)
  const strange = await primary.tryHoldfast('replicate', 'data', '--to', 'nobody')
  t.equal(strange.code, 3)
  t.match(strange.stderr, /no peer nobody/)
  await primary.holdfast('replicate', 'data', '--to', 'replica')
  t.equal(await differences(), '', 'the baseline')
  await run('bash', ['-euc', 'echo later >later; mv new/lot elsewhere; rm new/big'], { cwd: dir })
  t.equal(await differences(), '', 'what came after it')
  const [shown] = (await status()).replicas
  t.match(shown, { peer: 'replica', connection: 'connected', copy: 'UpToDate', problem: null })
  const hosted = await replica.replicas()
  t.match(hosted.replicas, [
    { name: 'data', primary: 'primary', connected: true, copy: 'UpToDate' },
  ])
  t.match(await primary.holdfast('status', 'data'), /replica +replica connected, async, UpToDate/)
})

await t.test('replicate: a baseline of a tree that changes all the time', async (t) => {
  await primary.holdfast('replicate', 'data', '--stop', 'replica')
  await replica.stopServing()
  rmSync(join(root, 'data'), { recursive: true })
  mkdirSync(join(dir, 'busy'))
  const load = { dir: join(dir, 'busy'), ack: join(sandbox.root, 'busy.ack'), seed, seconds: 6 }
  const running = await Load.begin(load)
  await sleep(1500)
  await replica.startAgain()
  await primary.holdfast('replicate', 'data', '--to', 'replica')
  const mover = run(
    'bash',
    [
      '-euc',
      `for i in $(seq 300); do mkdir -p m/$i/x; echo $i >m/$i/x/f; mv m/$i/x m$((i % 7)) 2>/dev/null ||
       mv m/$i/x m$((i % 7))/$i; ln m$((i % 7))/f l$i 2>/dev/null || true; done`,
    ],
    { cwd: dir },
  )
  await running.end()
  await mover
  t.equal(await differences(), '')
  t.equal(await checkLoad(load), '', 'on the volume')
  t.equal(await checkLoad({ ...load, dir: join(tree, 'busy') }), '', 'on the replica')
})

await t.test('replicate: cut links and deaths on both sides', async (t) => {
  const chance = new Chance(seed)
  const seen = { link: 0, replica: 0, primary: 0 }
  for (let round = 1; round <= rounds; round += 1) {
    const load = {
      dir: join(dir, `round-${round}`),
      ack: join(sandbox.root, `round-${round}.ack`),
      seed: seed + round,
      threads: chance.between(2, 4),
      seconds: 20,
    }
    mkdirSync(load.dir)
    rmSync(join(dir, `round-${round - 2}`), { recursive: true, force: true })
    const running = await Load.begin(load)
    await sleep(chance.between(50, 800))
    const what = chance.pick(['link', 'replica', 'primary'] as const)
    seen[what] += 1
    if (what === 'link') {
      await replica.setLink('down')
      await sleep(chance.between(100, 1500))
      await replica.setLink('up')
      await sleep(500)
      await kill(primary.daemonPid('data'))
    } else if (what === 'replica') {
      await replica.stopServing('SIGKILL')
      await sleep(chance.between(0, 500))
      await replica.startAgain()
      await sleep(chance.between(0, 1000))
      await kill(primary.daemonPid('data'))
    } else await kill(primary.daemonPid('data'))
    await running.end()
    await primary.holdfast('mount', 'data')
    const differs = await differences()
    if (differs !== '') return void t.fail(`round ${round}: ${what}: ${differs}`)
    const lost = await checkLoad({ ...load, dir: join(tree, `round-${round}`) })
    if (lost !== '') return void t.fail(`round ${round}: ${what}: lost on the replica: ${lost}`)
  }
  t.comment(JSON.stringify(seen))
  t.pass(`${rounds} rounds`)
})

await t.test('replicate: what wait promises without a replica', async (t) => {
  await replica.stopServing('SIGKILL')
  writeFileSync(join(dir, 'alone'), 'written while the replica is away')
  const waited = await primary.tryHoldfast('wait', 'data', '--timeout', '1s')
  t.equal(waited.code, 1, 'not in time')
  t.match(waited.stderr, /replica has not applied seq/)
  await until(async () => {
    const [shown] = (await status()).replicas
    return shown?.connection === 'waiting' && shown.problem?.code === 'CONNECTION'
  }, 'status to say that nobody is there')
  await replica.startAgain()
  t.equal(await differences(), '', 'it catches up by itself')
  await primary.holdfast('unmount', 'data')
  // What XFS allocates ahead of writes, and then has to fill with zeros, depends on when files are
  // closed; so holes are compared where no load has been.
  const quiet = [dir, tree].map((each) => join(each, 'new')) as [string, string]
  t.equal(await compareTrees(...quiet, '--holes'), '', 'holes too')
  await primary.holdfast('mount', 'data')
  await primary.holdfast('replicate', 'data', '--stop', 'replica')
  const none = await primary.tryHoldfast('wait', 'data')
  t.equal(none.code, 3)
  t.match(none.stderr, /not replicated/)
  await primary.holdfast('unmount', 'data')
  t.equal(await replica.stopServing(), 0, 'an orderly end')
})
