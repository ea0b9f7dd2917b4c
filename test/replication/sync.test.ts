/**
 * Synchronous replicas: what fsync has returned for is at the replica, whatever becomes of the
 * primary; and what happens to fsync when the replica is lost.
 *
 * A trial is one fsync that returned before the primary was destroyed: its daemon killed while several
 * writers are at work, its disk discarded. HOLDFAST_TRIALS for each mode; HOLDFAST_SEED repeats.
 */
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { ControlClient } from '../../src/daemon/client.js'
import { Chance, chooseSeed, kill, setting, until } from '../harness/faults.js'
import { makeHosts } from '../harness/hosts.js'
import { makeImage } from '../harness/image.js'
import { attempt, start } from '../harness/run.js'
import { openSandbox } from '../harness/sandbox.js'

const TRIALS_CI = 120
/** Trials before the primary is destroyed; at a random one of these. */
const TRIALS_PER_DEATH = { from: 60, to: 240 }
const WRITERS = 4

const trials = setting('HOLDFAST_TRIALS', TRIALS_CI)
const seed = chooseSeed()
t.setTimeout(300_000 + trials * 2_000)
t.comment(`seed ${seed}: HOLDFAST_SEED=${seed} HOLDFAST_TRIALS=${trials}`)

const sandbox = await openSandbox(t)
const [primary, replica] = await makeHosts(sandbox)
const [here, there] = await Promise.all(
  ['here', 'there'].map((name) => makeImage(sandbox, { fs: 'xfs', mib: 4096, name })),
)
if (here === undefined || there === undefined) throw new Error('no images')
const dir = join(here.dir, 'data')
const root = join(there.dir, 'replicas')
const tree = join(root, 'data', 'tree')
const acks = join(sandbox.root, 'acks')
process.env.HOLDFAST_RUN_DIR = join(sandbox.root, 'primary', 'run')
const client = new ControlClient('data')

/**
 * Writes for ever: a file, its content, fsync, its directory's fsync; then the same with a rename over
 * another. Notes each step that has returned, by one write(2) to a file outside of the volume.
 */
const WRITER = `
import os, sys
top, log = sys.argv[1:]
os.makedirs(top)
ack = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
dirfd = os.open(top, os.O_RDONLY)
os.fsync(dirfd)
n = 0
while True:
    name = f"f{n % 50}"
    fd = os.open(f"{top}/{name}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(fd, f"{n} ".encode() * (1 + n * 37 % 3000))
    os.fsync(fd)
    os.close(fd)
    os.rename(f"{top}/{name}.new", f"{top}/{name}")
    os.fsync(dirfd)
    os.write(ack, f"{n}\\n".encode())
    n += 1
`

async function armed(): Promise<void> {
  await until(async () => {
    const { replicas } = await client.status()
    return replicas.length > 0 && replicas.every(({ waitedFor }) => waitedFor)
  }, 'fsync to wait for the replica')
}

/** How many of a writer's rounds have returned. */
function acknowledged(writer: number): number {
  const log = `${acks}-${writer}`
  return existsSync(log) ? readFileSync(log, 'utf8').split('\n').length - 1 : 0
}

const sum = () => Array.from({ length: WRITERS }, (_, n) => acknowledged(n)).reduce((a, b) => a + b)

/** What is not in the replica's tree of a writer's rounds that have returned; empty: nothing. */
function missing(writer: number): string {
  const count = acknowledged(writer)
  for (let n = Math.max(0, count - 50); n < count; n += 1) {
    const path = join(tree, `w${writer}`, `f${n % 50}`)
    const found = existsSync(path) ? readFileSync(path, 'utf8') : ''
    // A later round may have come over it, acknowledged or not.
    const at = Number.parseInt(found, 10)
    const whole = found === `${at} `.repeat(1 + ((at * 37) % 3000))
    if (!(at >= n && at % 50 === n % 50 && whole))
      return `${path}: round ${n}, not ${found.slice(0, 20)}`
  }
  return ''
}

const missingOfAll = () =>
  Array.from({ length: WRITERS }, (_, n) => missing(n)).filter((text) => text !== '')

async function newPrimary(ack: string): Promise<void> {
  mkdirSync(dir)
  await primary.holdfast('mount', dir, '--ring', sandbox.rings, '--ring-size', '64M')
  await client.replicate({ peer: 'replica', ack: ack as 'sync-log' | 'sync-apply' })
  await armed()
}

/** Nothing of it is left: mount, tree, journal and ring. */
async function discardPrimary(): Promise<void> {
  await attempt('umount', ['-l', dir])
  for (const path of [dir, join(sandbox.root, 'primary', 'state', 'data')]) {
    rmSync(path, { recursive: true, force: true })
  }
  await attempt('bash', ['-c', `rm -f ${sandbox.rings}/*`])
}

async function discardReplica(): Promise<void> {
  // In order: the guard of its tree goes with it.
  await replica.stopServing()
  rmSync(join(root, 'data'), { recursive: true, force: true })
  await replica.startAgain()
}

/** Kills the daemon after about so many trials, while the writers go on. */
async function destroyAfter(count: number, chance: Chance): Promise<void> {
  for (let n = 0; n < WRITERS; n += 1) rmSync(`${acks}-${n}`, { force: true })
  const { pid } = await client.status()
  const writers: ChildProcess[] = []
  for (let n = 0; n < WRITERS; n += 1) {
    writers.push(start('python3', ['-c', WRITER, join(dir, `w${n}`), `${acks}-${n}`]))
  }
  const ended = writers.map((writer) => once(writer, 'close'))
  await until(() => sum() >= count, 'the trials', 120_000)
  await sleep(chance.between(0, 20))
  await kill(pid)
  await Promise.all(ended)
}

await replica.serve(root)
await primary.introduce(replica)

for (const ack of ['sync-log', 'sync-apply'] as const) {
  await t.test(`${ack}: what fsync has returned for survives the primary`, async (t) => {
    const chance = new Chance(seed)
    const begun = Date.now()
    const tally = { trials: 0, deaths: 0, lost: 0 }
    while (tally.trials < trials) {
      const count = Math.min(
        chance.between(TRIALS_PER_DEATH.from, TRIALS_PER_DEATH.to),
        trials - tally.trials,
      )
      await newPrimary(ack)
      await destroyAfter(count, chance)
      await discardPrimary()
      // In the tree at that moment; or in the log, which is applied in its own time.
      if (ack === 'sync-log') {
        await until(() => missingOfAll().length === 0, 'the log to be applied', 10_000).catch(
          () => {},
        )
      }
      const lost = missingOfAll()
      tally.trials += sum()
      tally.deaths += 1
      tally.lost += lost.length
      if (lost.length > 0) t.comment(`${lost.join('\n')}\n${replica.log.slice(-2000)}`)
      await discardReplica()
    }
    const seconds = Math.round((Date.now() - begun) / 1000)
    t.comment(JSON.stringify({ ack, ...tally, seconds, seed }))
    t.equal(tally.lost, 0, `${tally.trials} trials, ${tally.deaths} deaths`)
  })
}

await t.test('sync: a lost replica, and each policy', async (t) => {
  await newPrimary('sync-log')
  const write = () =>
    attempt('dd', ['if=/dev/zero', `of=${join(dir, 'file')}`, 'bs=4k', 'count=1', 'conv=fsync'])
  await client.replicate({ peer: 'replica', onLoss: 'continue', lossMs: 2_000 })
  await armed()
  await replica.stopServing('SIGKILL')
  const begun = Date.now()
  t.equal((await write()).code, 0, 'continue: fsync succeeds in the end')
  const waitedMs = Date.now() - begun
  t.ok(waitedMs >= 1_500 && waitedMs < 15_000, `after the bound: ${waitedMs} ms`)
  await until(async () => {
    const { replicas } = await client.status()
    return replicas[0]?.waitedFor === false
  }, 'status to say that nobody is waited for')
  await replica.startAgain()
  await armed()
  await client.replicate({ peer: 'replica', onLoss: 'refuse' })
  await armed()
  await replica.stopServing('SIGKILL')
  const refused = await write()
  t.match(refused.stderr, /Input\/output error/, 'refuse: fsync fails')
  await replica.startAgain()
  await armed()
  t.equal((await write()).code, 0, 'and works again with the replica')
})
