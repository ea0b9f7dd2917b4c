/**
 * Which replies wait for replicas: by path, at rename and close, at every operation, for a quorum; and
 * what becomes of them when a replica is lost. A reply that waits is one that does not come while
 * the link is down.
 */
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import {
  appendFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { ControlClient } from '../../src/daemon/client.js'
import { kill, until } from '../harness/faults.js'
import { addHost, makeHosts } from '../harness/hosts.js'
import { makeImage } from '../harness/image.js'
import { start } from '../harness/run.js'
import { openSandbox } from '../harness/sandbox.js'

/** A reply that has not come after this time waits. */
const SOON_MS = 1_500
const LOSS_MS = 60_000

t.setTimeout(800_000)
const sandbox = await openSandbox(t)
const [primary, replica] = await makeHosts(sandbox)
const image = await makeImage(sandbox, { fs: 'xfs', mib: 4096 })
const dir = join(image.dir, 'data')
const root = join(image.dir, 'replicas')
const tree = join(root, 'data', 'tree')
const at = (...names: string[]) => join(dir, ...names)
// The daemon of the primary, without a process for each question.
process.env.HOLDFAST_RUN_DIR = join(sandbox.root, 'primary', 'run')
const client = new ControlClient('data')
const mountArgs = ['mount', dir, '--ring', sandbox.rings, '--ring-size', '64M']

async function armed(): Promise<void> {
  await until(async () => {
    const { replicas } = await client.status()
    return replicas.length > 0 && replicas.every(({ waitedFor }) => waitedFor)
  }, 'replies to wait for the replica')
}

/** The replica is known to be lost: what comes from now on is refused before it happens. */
async function lost(): Promise<void> {
  const gone = async () => (await client.status()).replicas.every(({ waitedFor }) => !waitedFor)
  await until(gone, 'the loss to be known')
}

/** Programs that each make one request that may wait. */
class Waiters {
  readonly #children: { name: string; child: ChildProcess; ended: Promise<unknown> }[] = []

  add(name: string, command: string, ...args: string[]): void {
    const child = start(command, args)
    this.#children.push({ name, child, ended: once(child, 'close') })
  }

  /** Names of those that have ended. */
  get ended(): string[] {
    return this.#children.filter(({ child }) => child.exitCode !== null).map(({ name }) => name)
  }

  /** The exit codes of all, once they have ended. */
  async all(): Promise<(number | null)[]> {
    await Promise.all(this.#children.map(({ ended }) => ended))
    return this.#children.map(({ child }) => child.exitCode)
  }
}

function errnoOf(act: () => void): string {
  try {
    act()
    return 'none'
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? 'unknown'
  }
}

mkdirSync(dir)
for (const name of ['ledger', 'cache']) mkdirSync(at(name))
for (const name of ['a', 'moves', 'two', 'old']) writeFileSync(at('cache', name), name)
writeFileSync(at('ledger', 'b'), 'b')
linkSync(at('cache', 'two'), at('ledger', 'two'))
await primary.holdfast(...mountArgs)
await replica.serve(root)
await primary.introduce(replica)

await t.test('ack: by path', async (t) => {
  const options = ['--ack-path', '/ledger=sync-log', '--ack-path', '/ledger/scratch=async']
  await primary.holdfast('replicate', 'data', '--to', 'replica', ...options, '--loss-after', '60s')
  await armed()
  mkdirSync(at('ledger', 'scratch'))
  writeFileSync(at('ledger', 'scratch', 's'), 's')
  renameSync(at('cache', 'moves'), at('ledger', 'moves'))
  await client.wait({ for: 'logged' })
  await replica.setLink('down')
  for (const name of ['cache/a', 'ledger/b', 'ledger/moves', 'cache/two', 'ledger/scratch/s']) {
    appendFileSync(at(name), 'more')
  }
  const waiters = new Waiters()
  waiters.add('cache', 'sync', at('cache', 'a'))
  waiters.add('scratch', 'sync', at('ledger', 'scratch', 's'))
  waiters.add('ledger', 'sync', at('ledger', 'b'))
  waiters.add('moved there', 'sync', at('ledger', 'moves'))
  waiters.add('a name in both', 'sync', at('cache', 'two'))
  waiters.add('O_SYNC', 'dd', 'if=/dev/zero', `of=${at('ledger', 'o')}`, 'oflag=dsync', 'count=1')
  waiters.add('directory', 'sync', at('ledger'))
  waiters.add('its parent', 'sync', dir)
  await until(() => waiters.ended.length >= 3, 'those that do not wait')
  await sleep(SOON_MS)
  t.same(waiters.ended, ['cache', 'scratch', 'its parent'], 'only these do not wait')
  await replica.setLink('up')
  t.same(new Set(await waiters.all()), new Set([0]), 'all succeed once the link is back')
  const { replicas } = await client.status()
  t.match(replicas, [{ ack: 'async', ackPaths: [{ path: '/ledger', ack: 'sync-log' }, {}] }])
  t.match(await primary.holdfast('status', 'data'), /async \(\/ledger sync-log, \/ledger\/scratch/)
})

await t.test('ack: rename and close', async (t) => {
  const args = ['replicate', 'data', '--ack-at', 'durability,rename,close']
  const said = await primary.tryHoldfast(...args)
  t.match(said.stdout, /replies wait at durability, rename, close/)
  t.match(said.stderr, /from the next mount on/, 'files were closed already: close has to wait')
  t.equal((await client.status()).acknowledge.closeAtNextMount, true)
  await primary.holdfast('unmount', 'data')
  await primary.holdfast(...mountArgs)
  t.equal((await client.status()).acknowledge.closeAtNextMount, false)
  await armed()
  await client.wait({ for: 'logged' })
  await replica.setLink('down')
  const waiters = new Waiters()
  waiters.add('mkdir', 'mkdir', at('ledger', 'd'))
  waiters.add('read', 'cat', at('ledger', 'moves'))
  waiters.add(
    'cache',
    'bash',
    '-c',
    `echo x >${at('cache', 'new')}; mv ${at('cache', 'new')} ${at('cache', 'newer')}`,
  )
  waiters.add('rename', 'mv', at('ledger', 'b'), at('ledger', 'c'))
  waiters.add('rename into', 'mv', at('cache', 'a'), at('ledger', 'a'))
  waiters.add('close', 'bash', '-c', `echo x >${at('ledger', 'closed')}`)
  await until(() => waiters.ended.length >= 3, 'those that do not wait')
  await sleep(SOON_MS)
  t.same(waiters.ended, ['mkdir', 'read', 'cache'], 'only these do not wait')
  await replica.setLink('up')
  t.same(new Set(await waiters.all()), new Set([0]))
})

await t.test('ack: every operation', async (t) => {
  const options = ['--ack', 'sync-log', '--ack-path', 'none', '--ack-at', 'every-op']
  await primary.holdfast('replicate', 'data', '--to', 'replica', ...options)
  await armed()
  const done: string[] = []
  for (let n = 0; n < 50; n += 1) {
    mkdirSync(at(`every-${n}`))
    writeFileSync(at(`every-${n}`, 'f'), `${n}`)
    renameSync(at(`every-${n}`, 'f'), at(`every-${n}`, 'g'))
    done.push(`every-${n}`)
  }
  const { pid } = await client.status()
  mkdirSync(at('last'))
  await kill(pid)
  // Nothing of the primary is left but what the replica has logged.
  await until(() => existsSync(join(tree, 'last')), 'the replica to apply its log')
  const wrong = done.filter((name) => {
    const path = join(tree, name, 'g')
    return !existsSync(path) || readFileSync(path, 'utf8') !== name.slice('every-'.length)
  })
  t.same(wrong, [])
  await primary.holdfast(...mountArgs)
})

await t.test('ack: every operation, refused for want of the replica', async (t) => {
  await primary.holdfast(
    ...['replicate', 'data', '--to', 'replica', '--on-loss', 'refuse', '--loss-after', '4s'],
  )
  await armed()
  writeFileSync(at('grows'), 'old')
  t.equal(statSync(at('grows')).size, 3)
  t.notOk(existsSync(at('under-way')))
  // Under way when the replica is lost: they have happened, and nobody knows how that ends. Started
  // before, so that they are not too late on a busy machine.
  const go = join(sandbox.root, 'go')
  const waiters = new Waiters()
  const when = `until [ -e ${go} ]; do sleep 0.02; done`
  waiters.add('mkdir', 'bash', '-c', `${when}; mkdir ${at('under-way')}`)
  waiters.add('write', 'bash', '-c', `${when}; echo more >>${at('grows')}`)
  await sleep(500)
  await replica.stopServing('SIGKILL')
  writeFileSync(go, '')
  t.same(await waiters.all(), [1, 1], 'EIO')
  await until(() => existsSync(at('under-way')), 'the kernel to see what has happened', 5_000)
  await until(() => statSync(at('grows')).size === 8, 'and the new size', 5_000)
  await lost()
  // Later ones are refused before they happen.
  t.equal(
    errnoOf(() => mkdirSync(at('refused'))),
    'EIO',
  )
  t.equal(
    errnoOf(() => writeFileSync(at('ledger', 'c'), 'other')),
    'EIO',
  )
  t.equal(
    errnoOf(() => renameSync(at('grows'), at('gone'))),
    'EIO',
  )
  t.ok(existsSync(at('grows')))
  t.notOk(readdirSync(dir).includes('refused'), 'nothing has happened')
  t.equal(readFileSync(at('ledger', 'c'), 'utf8'), 'bmore', 'reading works')
  await replica.startAgain()
  await armed()
  mkdirSync(at('refused'))
  t.ok(existsSync(at('refused')), 'and changes again with the replica')
})

await t.test('ack: a quorum', async (t) => {
  const third = await addHost(sandbox, primary, 'third')
  await third.serve(join(image.dir, 'third'))
  await primary.introduce(third)
  const options = ['--ack', 'sync-log', '--loss-after', `${LOSS_MS}ms`, '--on-loss', 'continue']
  await primary.holdfast(
    ...[
      'replicate',
      'data',
      '--to',
      'replica',
      '--ack-at',
      'durability',
      '--quorum',
      '1',
      ...options,
    ],
  )
  await primary.holdfast('replicate', 'data', '--to', 'third', ...options)
  await armed()
  t.match(await primary.holdfast('status', 'data'), /durability, for 1 of the synchronous replicas/)
  await third.stopServing('SIGKILL')
  const one = new Waiters()
  one.add('fsync', 'bash', '-c', `echo x >${at('q')} && sync ${at('q')}`)
  await until(() => one.ended.length === 1, 'one replica to be enough', 15_000)
  await client.setAcknowledge({ quorum: null })
  const all = new Waiters()
  all.add('fsync', 'bash', '-c', `echo y >>${at('q')} && sync ${at('q')}`)
  await sleep(SOON_MS)
  t.same(all.ended, [], 'all are not there')
  // Who waits already goes on by a change of what is waited for.
  await client.setAcknowledge({ quorum: 1 })
  t.same(await all.all(), [0])
  await third.startAgain()
  await armed()
  await client.setAcknowledge({ quorum: null })
  await primary.holdfast('unmount', 'data')
})
