/**
 * The past of a replica: random operations on the primary are stopped at random places and a full copy
 * of its tree is kept; later the replica shows each of these places exactly, although its server is
 * killed again and again while it applies them.
 *
 * HOLDFAST_OPS and HOLDFAST_SEED make it longer, or repeat it.
 */
import { once } from 'node:events'
import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { HistoryStatus } from '../../src/daemon/history.js'
import type { ReplicaPoint } from '../../src/daemon/replica-history.js'
import { Chance, chooseSeed, fillBase, setting } from '../harness/faults.js'
import { tool } from '../harness/files.js'
import { lastLogs, makeHosts } from '../harness/hosts.js'
import { makeImage } from '../harness/image.js'
import { bash, run, start } from '../harness/run.js'
import { openSandbox } from '../harness/sandbox.js'
import { compareTrees } from '../harness/volume.js'

const ops = setting('HOLDFAST_OPS', 3_000)
const seed = chooseSeed()
const REFERENCES = 6
const KILLS = 3
t.setTimeout(600_000 + ops * 60)
t.comment(`seed ${seed}, ${ops} operations: HOLDFAST_SEED=${seed} HOLDFAST_OPS=${ops}`)

const sandbox = await openSandbox(t)
const chance = new Chance(seed)
const [primary, replica] = await makeHosts(sandbox)
const [here, there] = await Promise.all([
  makeImage(sandbox, { fs: 'xfs', mib: 8192, name: 'here' }),
  makeImage(sandbox, { fs: 'xfs', mib: 8192, name: 'there' }),
])
const dir = join(here.dir, 'data')
const view = join(sandbox.root, 'view')

interface Reference {
  seq: number
  timeMs: number
  copy: string
}
const references: Reference[] = []
let copies = 0

/** Nothing runs on the volume: its tree, to be compared with later. */
async function keep(): Promise<void> {
  // Stores to mappings that nobody has written out are on no side of a moment.
  await bash('find . -type f -print0 | xargs -0 -r sync', { cwd: dir })
  copies += 1
  const copy = join(here.dir, `reference-${copies}`)
  const { captured } = await primary.status('data')
  await run('cp', ['-a', '--reflink=never', '--sparse=always', '--', dir, copy])
  references.push({ seq: captured.seq, timeMs: Date.now(), copy })
}

async function caughtUp(): Promise<void> {
  const waited = await primary.tryHoldfast('wait', 'data', '--timeout', '120s')
  if (waited.code === 0) return
  throw new Error(`${waited.stderr}\n${lastLogs('data', primary, [replica])}`)
}

const show = (...when: string[]) => replica.holdfast('history', 'mount', 'data', view, ...when)
const hide = () => replica.holdfast('history', 'unmount', view)

async function check(t: Pick<typeof import('tap').t, 'equal'>, when: string): Promise<void> {
  for (const { seq, copy } of references) {
    await show('--to-seq', `${seq}`)
    t.equal(await compareTrees(view, copy), '', `${when}: the replica at ${seq}`)
    await hide()
  }
}

await t.test('replica history: it is off until somebody wants it', async (t) => {
  mkdirSync(dir)
  await fillBase(dir)
  await primary.holdfast('mount', dir, '--ring', sandbox.rings, '--ring-size', '64M')
  await replica.serve(join(there.dir, 'replicas'))
  await primary.introduce(replica)
  await primary.holdfast('replicate', 'data', '--to', 'replica')
  await caughtUp()
  const refused = await replica.tryHoldfast('history', 'mount', 'data', view, '--to-seq', '1')
  t.match(refused.stderr, /keeps no history/)
  const settings = ['--mode', 'continuous', '--history-size', '8G']
  const status = await replica.json<HistoryStatus>('replica', 'history', 'data', ...settings)
  t.match(status, { mode: 'continuous', bytesMax: 8 * 1024 ** 3 })
  const early = await replica.tryHoldfast('history', 'mount', 'data', view, '--to-seq', '1')
  t.match(early.stderr, /the history reaches back to seq/)
  t.notOk(existsSync(view), 'what could not be shown leaves no directory')
})

await t.test('replica history: every moment is exact, after kills too', async (t) => {
  await keep()
  mkdirSync(join(dir, 'load'))
  mkdirSync(join(here.dir, 'right'))
  const load = start(tool('fsdiff'), [
    ...['--left', join(dir, 'load'), '--right', join(here.dir, 'right'), '--users'],
    ...['--ops', `${ops}`, '--seed', `${seed}`, '--check-every', '0'],
  ])
  const ended = once(load, 'close')
  const signal = (name: NodeJS.Signals) => process.kill(-(load.pid ?? 0), name)
  for (let n = 0; n < REFERENCES && load.exitCode === null; n += 1) {
    await sleep(chance.between(100, 900))
    if (load.exitCode !== null) break
    signal('SIGSTOP')
    await sleep(100)
    await keep()
    signal('SIGCONT')
    if (n >= KILLS) continue
    await sleep(chance.between(0, 300))
    await replica.stopServing('SIGKILL')
    await replica.startAgain()
  }
  const [code] = await ended
  t.equal(code, 0, 'the load had the right results')
  await keep()
  await caughtUp()
  await check(t, 'after the load')
})

await t.test('replica history: snapshots of the primary have their names', async (t) => {
  await primary.holdfast('snapshot', 'create', 'data', '--name', 'named')
  await keep()
  await bash('echo later >after-the-snapshot', { cwd: dir })
  await caughtUp()
  const check = async (when: string) => {
    const list = await replica.json<{ points: ReplicaPoint[] }>(
      ...(['snapshot', 'list', 'data', '--replica'] as const),
    )
    t.match(list.points.at(-1), { name: 'named' }, when)
    await show('--to-snapshot', 'named', '--replica')
    t.equal(await compareTrees(view, references.at(-1)?.copy ?? ''), '', 'it is what was there')
    await hide()
  }
  await check('it is known')
  await replica.stopServing('SIGKILL')
  await replica.startAgain()
  await check('also after a kill')
  const none = await replica.tryHoldfast(
    ...(['history', 'mount', 'data', view, '--to-snapshot', 'never', '--replica'] as const),
  )
  t.match(none.stderr, /keeps no snapshot never/)
})

await t.test('replica history: a view stays as it is while the replica goes on', async (t) => {
  const [first, last] = [references[0], references.at(-1)]
  if (first === undefined || last === undefined) throw new Error('no references')
  await show('--to-time', new Date(last.timeMs).toISOString(), '--replica')
  await bash('rm -rf -- ./*', { cwd: dir })
  await caughtUp()
  t.equal(await compareTrees(view, last.copy), '', 'at a time')
  const { replicas } = await replica.replicas()
  t.match(replicas[0]?.history, { mode: 'continuous', views: [{ path: view }], lost: 0 })
  t.comment(JSON.stringify(replicas[0]?.history))
  const busy = await replica.tryHoldfast('replica', 'history', 'data', '--mode', 'none')
  t.match(busy.stderr, /is seen as it was/)
  await replica.stopServing('SIGKILL')
  await replica.startAgain()
  t.notOk(existsSync(view), 'nobody answers for the view of a dead server')
  await check(t, 'after the removal of everything')
  await replica.stopServing()
  await replica.startAgain()
  await check(t, 'after an orderly restart')
})

await t.test('replica history: a baseline begins it anew', async (t) => {
  await primary.holdfast('resync', 'data')
  await caughtUp()
  const old = await replica.tryHoldfast(
    ...(['history', 'mount', 'data', view, '--to-seq', `${references[0]?.seq}`] as const),
  )
  t.match(old.stderr, /the history reaches back to seq/)
  references.splice(0)
  await bash('mkdir again; echo 1 >again/file; chmod 600 again/file', { cwd: dir })
  await keep()
  await bash('echo 2 >>again/file; mv again/file again/other; ln again/other more', { cwd: dir })
  await caughtUp()
  await check(t, 'after a baseline')
  await replica.holdfast('replica', 'history', 'data', '--mode', 'none')
  t.notOk(existsSync(join(there.dir, 'replicas', 'data', 'history')), 'what was kept is gone')
})
