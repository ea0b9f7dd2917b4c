/**
 * Cuts: while processes count in pairs of files, one on each of two volumes, no snapshot of both ever
 * shows the second of a pair ahead of the first, or more than one behind; markers without a hold do.
 * Then what must not go wrong when something does: nothing stays on hold, nothing torn is kept.
 *
 * HOLDFAST_CUTS and HOLDFAST_SEED make it longer, or repeat it.
 */
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import {
  type Certificate,
  createSnapshot,
  destroySnapshot,
  findSnapshot,
  HoldfastError,
  listSnapshots,
  mount,
} from '../../src/index.js'
import { commonInstant, heldNs } from '../../src/snapshot/certificate.js'
import { isBroken } from '../harness/chains.js'
import { Counts, quantile } from '../harness/counts.js'
import { Chance, chooseSeed, daemonPid, kill, setting, until } from '../harness/faults.js'
import { HOLDFAST, projectFile } from '../harness/files.js'
import { makeImage } from '../harness/image.js'
import { attempt, run, start } from '../harness/run.js'
import { openSandbox } from '../harness/sandbox.js'
import { compareTrees, mountVolume, type TestVolume } from '../harness/volume.js'

const cuts = setting('HOLDFAST_CUTS', 100)
const seed = chooseSeed()
const PAIRS = 4
/** Snapshots that are looked at as trees, too. */
const REPLAYED = 3
const KILLS = 8

t.setTimeout(400_000 + cuts * 500)
t.comment(`seed ${seed}, ${cuts} cuts: HOLDFAST_SEED=${seed} HOLDFAST_CUTS=${cuts}`)
const chance = new Chance(seed)
const sandbox = await openSandbox(t)
const [here, there] = await Promise.all([
  makeImage(sandbox, { fs: 'xfs', mib: 4096, name: 'here' }),
  makeImage(sandbox, { fs: 'ext4', mib: 4096, name: 'there' }),
])
const left = await mountVolume(sandbox, here, { name: 'left' })
const right = await mountVolume(sandbox, there, { name: 'right' })
const both = ['left', 'right']

/** Processes that count in pairs; ended by their group. */
async function startPairs(): Promise<ChildProcess> {
  const script = projectFile('test/harness/chain.py')
  const child = start('python3', [script, `${PAIRS}`, left.dir, right.dir])
  await once(child.stdout ?? child, 'data')
  return child
}

async function endPairs(child: ChildProcess): Promise<void> {
  const ended = once(child, 'close')
  process.kill(-(child.pid ?? 0), 'SIGKILL')
  await ended
}

const pairFile = ({ dir }: TestVolume, pair: number) => join(dir, `chain-${pair}`)

/** What the pairs of a volume held at a seq, by its journal. */
function counts({ volume, dir }: TestVolume): Counts {
  const files = Array.from({ length: PAIRS }, (_, k) => `chain-${k}`)
  return new Counts(volume.stateDirectory, dir, files)
}

/** Pairs that no instant can have shown, among the cuts at these seqs. */
function torn(at: readonly { left: bigint; right: bigint }[]): number {
  const [lefts, rights] = [counts(left), counts(right)]
  let count = 0
  for (const seqs of at) {
    for (let pair = 0; pair < PAIRS; pair += 1) {
      const values = [lefts.at(pair, seqs.left), rights.at(pair, seqs.right)]
      if (isBroken(values, pair)) count += 1
    }
  }
  return count
}

const seqsOf = ({ members }: Certificate) => {
  const of = (name: string) => BigInt(members.find(({ volume }) => volume === name)?.seq ?? 0)
  return { left: of('left'), right: of('right') }
}

await t.test('cut: two volumes at one instant, under load', async (t) => {
  const pairs = await startPairs()
  const taken: Certificate[] = []
  const without: { left: bigint; right: bigint }[] = []
  for (let n = 0; n < cuts; n += 1) {
    taken.push(await createSnapshot({ volumes: both, name: `cut-${n}` }))
    // The same without a hold: two markers as fast as they can be set.
    const [a, b] = await Promise.all([left.volume.marker('loose'), right.volume.marker('loose')])
    without.push({ left: a, right: b })
  }
  await endPairs(pairs)
  await Promise.all([left.volume.flush(), right.volume.flush()])
  t.equal(torn(taken.map(seqsOf)), 0, `${cuts} cuts of ${PAIRS} pairs`)
  const loose = torn(without)
  t.ok(loose > 0, `the same check finds ${loose} torn pairs where nothing was held`)
  t.ok(
    taken.every(({ members }) => commonInstant(members) !== undefined),
    'each certificate has an instant',
  )
  const held = taken.map(heldNs).sort((a, b) => a - b)
  const ms = (ns: number) => (ns / 1e6).toFixed(2)
  const [p50, p99, max] = [0.5, 0.99, 1].map((q) => ms(quantile(held, q)))
  t.comment(`held: p50 ${p50} ms, p99 ${p99} ms, max ${max} ms`)
  for (const certificate of taken.slice(-REPLAYED)) {
    const writers = new Set(certificate.writing.map(({ path }) => path))
    t.ok(writers.has(pairFile(left, 0)) && writers.has(pairFile(right, 0)), 'the writers were seen')
    for (const test of [left, right]) {
      const toSeq = seqsOf(certificate)[test === left ? 'left' : 'right']
      const { appliedSeq } = await test.volume.replay({ onto: test.base, toSeq, keepState: true })
      t.equal(appliedSeq, toSeq, 'a frame ends at the marker')
    }
    for (let pair = 0; pair < PAIRS; pair += 1) {
      const values = [left, right].map(({ base }) =>
        readFileSync(join(base, `chain-${pair}`)).readBigUInt64LE(),
      )
      t.notOk(isBroken(values, pair), `pair ${pair}: ${values.join(', ')}`)
    }
  }
})

await t.test('cut: whoever orders it is killed at any moment', async (t) => {
  const pairs = await startPairs()
  const script = projectFile('dist/test/snapshot/snapshot-forever.js')
  for (let n = 0; n < KILLS; n += 1) {
    const child = start(process.execPath, [script, `killed${n}`, ...both])
    const ended = once(child, 'close')
    if (chance.next() < 0.8) await once(child.stdout ?? child, 'data')
    await sleep(chance.between(0, 300))
    child.kill('SIGKILL')
    await ended
    for (const { volume } of [left, right]) {
      await until(async () => !(await volume.status()).held, `${volume.name} to go on`)
    }
  }
  const known = listSnapshots().filter(({ name }) => name.startsWith('killed'))
  const whole = known.filter(({ state }) => state === 'complete')
  t.ok(whole.length > 0 && known.length - whole.length <= KILLS, `${whole.length} were taken`)
  await createSnapshot({ volumes: both, name: 'after-all' })
  await endPairs(pairs)
  await Promise.all([left.volume.flush(), right.volume.flush()])
  // One that only one volume knows is a true one, too: its marker was set at the instant.
  t.equal(torn(known.map(seqsOf)), 0, 'none is torn')
})

await t.test(
  'cut: a volume that cannot come to rest, one that dies, one that is gone',
  async (t) => {
    const pairs = await startPairs()
    const count = () => readFileSync(pairFile(left, 0)).readBigUInt64LE()
    const refused = async (volumes: string[], name: string) => {
      const order = { volumes, name, maxHoldMs: 200, attempts: 1 }
      const error = await createSnapshot(order).catch((e: unknown) => e)
      t.ok(error instanceof HoldfastError && error.code === 'SNAPSHOT_FAILED', String(error))
      t.throws(() => findSnapshot(name), { code: 'SNAPSHOT_NOT_FOUND' }, 'it is not kept')
      return String(error)
    }
    await run('fsfreeze', ['-f', there.dir])
    // Its writers are inside their operations now.
    await sleep(200)
    try {
      t.match(await refused(both, 'frozen'), /no snapshot: right: I\/O did not come to rest/)
      t.equal((await left.volume.status()).held, false, 'the other one goes on')
    } finally {
      await run('fsfreeze', ['-u', there.dir])
    }
    const before = count()
    await until(() => count() > before + 100n, 'the writers to go on')
    await run('fsfreeze', ['-f', there.dir])
    await sleep(200)
    const order = { volumes: both, name: 'later', maxHoldMs: 200, attempts: 100 }
    const taking = createSnapshot(order)
    const isHeld = async () => (await left.volume.status()).held
    try {
      await until(isHeld, 'an attempt')
      await until(async () => !(await isHeld()), 'the end of that attempt')
    } finally {
      await run('fsfreeze', ['-u', there.dir])
    }
    const later = await taking
    t.ok(later.attempt > 1, 'taken when what was in the way had been written')
    const stopped = daemonPid('right')
    process.kill(stopped, 'SIGSTOP')
    t.match(
      await refused(both, 'stopped'),
      /no snapshot: right: the daemon of right did not answer/,
    )
    process.kill(stopped, 'SIGCONT')
    const killed = createSnapshot({ volumes: both, name: 'killed', maxHoldMs: 200 }).catch(String)
    await kill(daemonPid('right'))
    t.match(await killed, /SNAPSHOT_FAILED|no snapshot|killed/, 'told, or taken just before')
    await endPairs(pairs)
    t.match(await refused(both, 'dead'), /right/)
    t.equal((await left.volume.status()).held, false)
    right.volume = await mount({ dir: 'right' })
    await until(async () => (await right.volume.status()).state === 'protected', 'the recovery')
    await right.volume.unmount()
    t.match(await refused(both, 'gone'), /no snapshot: right: volume right is not mounted/)
    await createSnapshot({ volumes: ['left'], name: 'alone' })
  },
)

await t.test('snapshot: from the command line', async (t) => {
  const cli = (...args: string[]) => attempt(process.execPath, [HOLDFAST, 'snapshot', ...args])
  const made = await cli('create', left.dir, '--name', 'named', '--label', 'why=test')
  t.match(made.stdout, /^snapshot named of left; I\/O was held for [\d.]+ [µm]?s\n/, made.stderr)
  t.match((await cli('create', 'left', '--name', 'named')).stderr, /has a snapshot named already/)
  t.equal((await cli('create', 'left', '--name', 'named')).code, 4)
  t.match(await cli('create', 'left', '--name', 'a/b'), { code: 2, stderr: /no name for a snap/ })
  t.match(await cli('create', 'left', '--label', 'x'), { code: 2, stderr: /KEY=VALUE/ })
  t.match(await cli('create', 'left', '--max-hold', '1h'), { code: 2, stderr: /1 to 10000 ms/ })
  // As after a boot: nothing is mounted, and there is no run directory.
  const env = { HOLDFAST_RUN_DIR: join(sandbox.root, 'no', 'run') }
  const create = [HOLDFAST, 'snapshot', 'create', 'left']
  const booted = await attempt(process.execPath, create, { env })
  t.match(booted, { code: 1, stderr: /no snapshot: left: volume left is not mounted/ })
  t.match(await cli('create', 'nowhere'), { code: 3, stderr: /no volume nowhere/ })
  t.match(
    (await cli('list', 'left')).stdout,
    /^NAME .*\n(.*\n)*named .* left .* complete .*why=test/,
  )
  t.match((await cli('show', 'named')).stdout, /^named {2}complete\n.*taken/)
  const { snapshots } = JSON.parse((await cli('list', '--json')).stdout) as {
    snapshots: Certificate[]
  }
  t.ok(snapshots.some(({ labels }) => labels.why === 'test'))
  const replay = ['journal', 'replay', 'left', '--onto', left.base, '--keep-state', '--json']
  const to = (...args: string[]) => attempt(process.execPath, [HOLDFAST, ...replay, ...args])
  t.match(await to('--to-snapshot', 'nothing'), { code: 3, stderr: /no snapshot nothing/ })
  const replayed = await to('--to-snapshot', 'named')
  const { appliedSeq } = JSON.parse(replayed.stdout) as { appliedSeq: number }
  t.equal(appliedSeq, findSnapshot('named').members[0]?.seq, replayed.stderr)
  t.match(await cli('destroy', 'cut-0', 'named'), { code: 0, stdout: /named is forgotten/ })
  t.match(await cli('show', 'named'), { code: 3, stderr: /there is no snapshot named/ })
  for (const { name } of listSnapshots()) await destroySnapshot(name)
  t.match((await cli('list')).stdout, /^no snapshots$/m)
  const pages = readdirSync(join(sandbox.root, 'run')).filter((name) => name.startsWith('.cut'))
  t.ok(pages.length <= KILLS, 'what the dead have left is removed with time')
  await left.volume.unmount()
  await left.volume.replay({ onto: left.base })
  t.equal(await compareTrees(left.dir, left.base), '', 'replay gives the same tree')
})

await t.test('snapshot: one name on a host; one that the journal no longer reaches', async (t) => {
  left.volume = await mount({ dir: 'left' })
  await createSnapshot({ volumes: ['left'], name: 'old' })
  const again = createSnapshot({ volumes: ['right'], name: 'old' })
  await t.rejects(again, { code: 'SNAPSHOT_EXISTS' }, 'also on another volume')
  t.equal(findSnapshot('old').state, 'complete')
  // The last frame stays in any case.
  for (const name of ['more', 'and-more']) {
    writeFileSync(join(left.dir, name), name)
    await left.volume.prune({ maxBytes: 0 })
  }
  t.equal(findSnapshot('old').state, 'pruned')
  await left.volume.unmount()
})
