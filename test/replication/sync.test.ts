/**
 * Synchronous replicas: what fsync has returned for is at the replica, whatever becomes of the
 * primary; and what happens to fsync when the replica is lost.
 */
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { Status } from '../../src/daemon/status.js'
import { kill, setting, until } from '../harness/faults.js'
import { makeHosts } from '../harness/hosts.js'
import { makeImage } from '../harness/image.js'
import { attempt } from '../harness/run.js'
import { openSandbox } from '../harness/sandbox.js'

const TRIALS = setting('HOLDFAST_TRIALS', 300)

t.setTimeout(300_000 + TRIALS * 100)
const sandbox = await openSandbox(t)
const [primary, replica] = await makeHosts(sandbox)
const image = await makeImage(sandbox, { fs: 'xfs', mib: 4096 })
const dir = join(image.dir, 'data')
const root = join(image.dir, 'replicas')
const tree = join(root, 'data', 'tree')

async function armed(): Promise<void> {
  await until(async () => {
    const { replicas } = await primary.json<Status>('status', 'data')
    return replicas.every(({ waitedFor }) => waitedFor)
  }, 'fsync to wait for the replica')
}

mkdirSync(dir)
await primary.holdfast('mount', dir, '--ring', sandbox.rings, '--ring-size', '64M')
await replica.serve(root)
await primary.introduce(replica)

await t.test('sync-apply: after fsync it is in the tree of the replica', async (t) => {
  await primary.holdfast('replicate', 'data', '--to', 'replica', '--ack', 'sync-apply')
  await armed()
  let late = 0
  for (let n = 0; n < TRIALS; n += 1) {
    const name = `apply-${n}`
    const fd = openSync(join(dir, name), 'w')
    writeSync(fd, `${n}`.repeat(100))
    fsyncSync(fd)
    const there = join(tree, name)
    if (!existsSync(there) || readFileSync(there, 'utf8') !== `${n}`.repeat(100)) late += 1
    closeSync(fd)
  }
  t.equal(late, 0, `${TRIALS} trials`)
})

await t.test('sync-log: after fsync it survives the primary', async (t) => {
  await primary.holdfast('replicate', 'data', '--to', 'replica', '--ack', 'sync-log')
  await armed()
  const written: string[] = []
  for (let n = 0; n < TRIALS; n += 1) {
    const name = `log-${n}`
    const fd = openSync(join(dir, name), 'w')
    writeSync(fd, `content of ${name}`)
    fsyncSync(fd)
    closeSync(fd)
    written.push(name)
  }
  const { pid } = await primary.json<Status>('status', 'data')
  await kill(pid)
  await until(
    () => written.every((name) => existsSync(join(tree, name))),
    'the replica to apply its log',
  )
  const lost = written.filter((name) => {
    return readFileSync(join(tree, name), 'utf8') !== `content of ${name}`
  })
  t.same(lost, [], `${TRIALS} trials`)
  await primary.holdfast('mount', 'data')
})

await t.test('sync: a lost replica, and each policy', async (t) => {
  const change = (policy: string) =>
    primary.holdfast(
      ...['replicate', 'data', '--to', 'replica', '--ack', 'sync-log'],
      ...['--on-loss', policy, '--loss-after', '2s'],
    )
  const write = () =>
    attempt('dd', ['if=/dev/zero', `of=${join(dir, 'file')}`, 'bs=4k', 'count=1', 'conv=fsync'])
  await change('continue')
  await armed()
  await replica.stopServing('SIGKILL')
  const begun = Date.now()
  t.equal((await write()).code, 0, 'continue: fsync succeeds in the end')
  const waitedMs = Date.now() - begun
  t.ok(waitedMs >= 1_500 && waitedMs < 15_000, `after the bound: ${waitedMs} ms`)
  const { replicas } = await primary.json<Status>('status', 'data')
  t.equal(replicas[0]?.waitedFor, false, 'and status says that nobody is waited for')
  await replica.startAgain()
  await armed()
  await change('refuse')
  await armed()
  await replica.stopServing('SIGKILL')
  const refused = await write()
  t.match(refused.stderr, /Input\/output error/, 'refuse: fsync fails')
  await replica.startAgain()
  await armed()
  t.equal((await write()).code, 0, 'and works again with the replica')
})
