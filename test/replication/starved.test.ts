/**
 * A replica without space, for its log and for its tree, and one that does not read: both hosts say
 * so, memory stays bounded, nothing is lost, and all goes on by itself.
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { until } from '../harness/faults.js'
import { makeHosts } from '../harness/hosts.js'
import { makeImage } from '../harness/image.js'
import { run } from '../harness/run.js'
import { openSandbox } from '../harness/sandbox.js'
import { compareTrees } from '../harness/volume.js'

const MIB = 1 << 20
/** What is under way (32 MiB), queued (64 MiB) or in buffers, and what the collector leaves lying. */
const GROWTH_MIB_MAX = 160
const STALL_MS = 12_000
const NOTICED_MS = 60_000

t.setTimeout(480_000)
const sandbox = await openSandbox(t)
const [primary, replica] = await makeHosts(sandbox)
const here = await makeImage(sandbox, { fs: 'xfs', mib: 4096, name: 'here' })
const there = await makeImage(sandbox, { fs: 'xfs', mib: 2048, name: 'there' })
const dir = join(here.dir, 'data')
const root = join(there.dir, 'replicas')
const tree = join(root, 'data', 'tree')
const ballast = join(there.dir, 'ballast')

/** Takes all of the replica's space but this. */
async function leave(mib: number): Promise<void> {
  const said = await run('stat', ['-f', '-c', '%a %S', there.dir])
  const [blocks = 0, size = 0] = said.trim().split(' ').map(Number)
  await run('fallocate', ['-l', `${blocks * size - mib * MIB}`, ballast])
}

const shown = async () => (await primary.status('data')).replicas[0]
const hosted = async () => {
  return (await replica.replicas().catch(() => undefined))?.replicas[0]
}
const SPACE = /no space|No space/
const bothSay = () => {
  let said = ''
  return until(
    async () => {
      const problems = [(await shown())?.problem, (await hosted())?.problem]
      said = JSON.stringify(problems)
      return problems.every((each) => SPACE.test(each?.message ?? ''))
    },
    'both hosts to say that there is no space',
    NOTICED_MS,
  ).catch((error: Error) => {
    throw new Error(`${error.message}: ${said}\n${replica.log.slice(-2500)}`)
  })
}
const baselines = () => replica.log.split('a baseline begins').length - 1
const catchUp = async () => {
  const { code, stderr } = await primary.tryHoldfast('wait', 'data', '--timeout', '80s')
  return code === 0 ? compareTrees(dir, tree) : `${stderr}\n${replica.log.slice(-3000)}`
}

mkdirSync(dir)
await primary.holdfast('mount', dir, '--ring', sandbox.rings, '--ring-size', '64M')
await replica.serve(root)
await primary.introduce(replica)
await primary.holdfast('replicate', 'data', '--to', 'replica')

await t.test('starved: no space for the log', async (t) => {
  t.equal(await catchUp(), '')
  await leave(24)
  await run('dd', [
    'if=/dev/urandom',
    `of=${join(dir, 'big')}`,
    'bs=1M',
    'count=200',
    'status=none',
  ])
  await bothSay()
  t.match(await primary.holdfast('status', 'data'), SPACE, 'and people read it')
  t.match((await replica.tryHoldfast('replica', 'list')).stdout, SPACE, 'on both hosts')
  // A server that starts without space must not need it for saying so.
  await replica.stopServing('SIGKILL')
  await replica.startAgain()
  await bothSay()
  rmSync(ballast)
  t.equal(await catchUp(), '', 'goes on by itself, and nothing is lost')
  t.match(await shown(), { problem: null, copy: 'UpToDate', connection: 'connected' })
  t.equal(baselines(), 1, 'without starting over')
})

await t.test('starved: no space for the tree', async (t) => {
  rmSync(join(dir, 'big'))
  t.equal(await catchUp(), '')
  await leave(200)
  await run('fallocate', ['-l', '500M', join(dir, 'wide')])
  writeFileSync(join(dir, 'after'), 'after it')
  await bothSay()
  const [one, other] = [await shown(), await hosted()]
  t.match([one, other], [{ copy: 'Consistent' }, { copy: 'Consistent' }], 'an earlier moment')
  t.equal(one?.connection, 'connected', 'its log goes on')
  t.ok((one?.logged ?? 0) > (one?.applied ?? 0))
  rmSync(ballast)
  t.equal(await catchUp(), '', 'goes on by itself')
  t.equal(baselines(), 1, 'without starting over')
})

await t.test('starved: a peer that does not read', async (t) => {
  const anonymous = (pid: number) => {
    const [, kib = '0'] =
      /RssAnon:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? []
    return Number(kib) / 1024
  }
  const { pid } = await primary.status('data')
  const server = replica.serverPid ?? 0
  rmSync(join(dir, 'wide'))
  t.equal(await catchUp(), '')
  const before = { primary: anonymous(pid), replica: anonymous(server) }
  const most = { primary: 0, replica: 0 }
  const watch = setInterval(() => {
    most.primary = Math.max(most.primary, anonymous(pid) - before.primary)
    most.replica = Math.max(most.replica, anonymous(server) - before.replica)
  }, 50)
  process.kill(server, 'SIGSTOP')
  const big = join(dir, 'stalled')
  await run('dd', ['if=/dev/urandom', `of=${big}`, 'bs=1M', 'count=400', 'status=none'])
  await sleep(STALL_MS)
  const stalled = await shown()
  t.not(stalled?.connection, 'connected', 'the silence is noticed')
  process.kill(server, 'SIGCONT')
  t.equal(await catchUp(), '', 'goes on by itself')
  clearInterval(watch)
  const { primary: sender, replica: receiver } = most
  t.ok(sender < GROWTH_MIB_MAX, `the primary grew by ${Math.round(sender)} MiB`)
  t.ok(receiver < GROWTH_MIB_MAX, `the replica grew by ${Math.round(receiver)} MiB`)
  await primary.holdfast('unmount', 'data')
})
