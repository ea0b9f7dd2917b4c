/**
 * The fault campaign: PostgreSQL, SQLite, random operations and a checked load on a replicated
 * volume, while the link is cut, throttled, and mute one way, and both sides are killed at random
 * instants. Every round ends with equal trees; every `wait` that returned told the truth; databases
 * started on a copy of the replica's tree have every row that was acknowledged before such a wait.
 *
 * HOLDFAST_KILLS and HOLDFAST_SEED make it longer, or repeat it.
 */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { Postgres, Sqlite } from '../harness/databases.js'
import { Chance, checkLoad, chooseSeed, kill, Load, setting, until } from '../harness/faults.js'
import { tool } from '../harness/files.js'
import { lastLogs, makeHosts } from '../harness/hosts.js'
import { makeImage } from '../harness/image.js'
import { attempt, type RunResult, run } from '../harness/run.js'
import { openSandbox } from '../harness/sandbox.js'
import { compareTrees } from '../harness/volume.js'

const KILLS_CI = 4
/** Rounds after which the databases are started on a copy of the replica's tree. */
const ROUNDS_PER_PROOF = 4
const WAIT = ['--timeout', '80s']
/** What one waits for at most: a busy machine replays slowly, but it must get on. */
const WAITS = 4
/** Operations of each thread of a load: it is the faults that are tried, not the speed. */
const OPS = 1500
const FAULTS = {
  killReplica: 5,
  killPrimary: 4,
  killBoth: 1,
  cutLink: 2,
  throttle: 2,
  mutePrimary: 1,
  muteReplica: 1,
} as const
type Fault = keyof typeof FAULTS
const CHOICE = Object.entries(FAULTS).flatMap(([fault, weight]) =>
  Array.from({ length: weight }, () => fault as Fault),
)

const kills = setting('HOLDFAST_KILLS', KILLS_CI)
const seed = chooseSeed()
t.setTimeout(600_000 + kills * 120_000)
t.comment(`seed ${seed}, ${kills} kills: HOLDFAST_SEED=${seed} HOLDFAST_KILLS=${kills}`)

const chance = new Chance(seed)
const sandbox = await openSandbox(t)
const [primary, replica] = await makeHosts(sandbox)
const [here, there] = await Promise.all(
  ['here', 'there'].map((name) => makeImage(sandbox, { fs: 'xfs', mib: 8192, name })),
)
if (here === undefined || there === undefined) throw new Error('no images')
const dir = join(here.dir, 'data')
const root = join(there.dir, 'replicas')
const tree = join(root, 'data', 'tree')
const postgres = new Postgres({ data: join(dir, 'pg'), sockets: join(sandbox.root, 'sockets') })
const databases = { 'delete.db': 'delete', 'wal.db': 'wal' } as const
const sqlite = Object.keys(databases).map((name) => new Sqlite(join(dir, name)))
const done = new Map<string, number>()
const count = (what: string) => done.set(what, (done.get(what) ?? 0) + 1)
const killed = () => done.get('SIGKILL') ?? 0
let markers = 0

/** What is under way on the volume. */
interface Work {
  load: Load
  loads: { dir: string; name: string; ack: string }[]
  diff: Promise<RunResult> | undefined
}

async function startLoad(round: number, work?: Work): Promise<Work> {
  const loads = work?.loads ?? []
  const name = `round-${round}-${loads.length}`
  const ack = join(sandbox.root, `${name}.ack`)
  loads.push({ dir: join(dir, name), name, ack })
  mkdirSync(join(dir, name))
  const threads = chance.between(1, 3)
  const loadSeed = seed + round * 100 + loads.length
  const load = await Load.begin({
    dir: join(dir, name),
    ack,
    seed: loadSeed,
    threads,
    ops: OPS,
    seconds: 600,
  })
  return { load, loads, diff: work?.diff }
}

/** Random operations with the same results on a plain directory; ends by itself. */
async function startDiff(round: number): Promise<RunResult> {
  const [left, right] = [join(dir, `diff-${round}`), join(here?.dir ?? '', `diff-${round}`)]
  for (const each of [left, right]) mkdirSync(each)
  const args = ['--left', left, '--right', right, '--users', '--ops', '800', '--seed', `${seed}`]
  const result = await attempt(tool('fsdiff'), [...args, '--check-every', '0'])
  await attempt('chattr', ['-R', '-i', '-a', right])
  rmSync(right, { recursive: true, force: true })
  return result
}

async function startDatabases(): Promise<void> {
  await postgres.boot()
  for (const each of [postgres, ...sqlite]) each.start(chance.between(0, 20))
}

async function killDaemon(): Promise<void> {
  await kill(primary.daemonPid('data'))
  count('SIGKILL')
}

async function killServer(): Promise<void> {
  await replica.stopServing('SIGKILL')
  count('SIGKILL')
}

async function killPrimary(round: number, work: Work): Promise<Work> {
  await killDaemon()
  // One that was still making its directories has nothing to be asked for.
  await work.load.end().catch((error: Error) => {
    if (!error.message.includes('prepare:')) throw error
    work.loads.pop()
  })
  await work.diff
  for (const each of [...sqlite, postgres])
    await (each === postgres ? postgres.bury() : each.kill())
  await primary.holdfast('mount', 'data')
  await startDatabases()
  return { ...(await startLoad(round, work)), diff: undefined }
}

/** One fault; everything is up again afterwards. */
async function strike(fault: Fault, round: number, work: Work): Promise<Work> {
  count(fault)
  const some = () => sleep(chance.pick([50, 300, 1500, 3000]) * chance.next())
  switch (fault) {
    case 'killReplica':
      for (let n = chance.between(1, 4); n > 0; n -= 1) {
        await killServer()
        await some()
        await replica.startAgain()
        await sleep(chance.between(0, 700))
      }
      return work
    case 'killPrimary':
      return killPrimary(round, work)
    case 'killBoth': {
      const [after] = await Promise.all([killPrimary(round, work), killServer()])
      await replica.startAgain()
      return after
    }
    case 'cutLink':
      await replica.setLink('down')
      await some()
      await replica.setLink('up')
      return work
    case 'throttle':
      await primary.throttle(chance.pick([2, 20, 100]))
      await some()
      await primary.throttle(undefined)
      return work
    case 'mutePrimary':
    case 'muteReplica': {
      const [from, to] = fault === 'mutePrimary' ? [primary, replica] : [replica, primary]
      await from.setMute(to, true)
      await (chance.next() < 0.1 ? sleep(12_000) : some())
      await from.setMute(to, false)
      return work
    }
  }
}

/** What every `wait` promises: what was written before it is in the replica's tree. */
async function promise(): Promise<string> {
  markers += 1
  const name = `marker-${markers % 20}`
  const text = `${markers}`.repeat(chance.pick([1, 3000]))
  writeFileSync(join(dir, name), text)
  const { code } = await primary.tryHoldfast('wait', 'data', '--timeout', '3s')
  if (code !== 0) return ''
  count('wait')
  if (!existsSync(join(tree, name))) return `${name} is not there after wait`
  return readFileSync(join(tree, name), 'utf8') === text ? '' : `${name} is another after wait`
}

async function waitLong(): Promise<string> {
  let said = ''
  for (let n = 0; n < WAITS; n += 1) {
    const { code, stderr } = await primary.tryHoldfast('wait', 'data', ...WAIT)
    if (code === 0) return ''
    said = stderr
  }
  return said
}

/** Starts the databases on a copy of the replica's tree, as a dead server leaves it. */
async function proveDatabases(round: number): Promise<string> {
  const rows = [postgres, ...sqlite].map(({ acknowledged }) => acknowledged)
  const late = await waitLong()
  if (late !== '') return late
  await sleep(chance.between(0, 300))
  await killServer()
  const copy = join(there?.dir ?? '', `copy-${round}`)
  mkdirSync(copy)
  const names = ['pg', ...Object.keys(databases)].map((name) => join(tree, name))
  const beside = Object.keys(databases).flatMap((name) =>
    ['-wal', '-journal'].map((end) => join(tree, `${name}${end}`)).filter(existsSync),
  )
  await run('cp', ['-a', ...names, ...beside, copy])
  await replica.startAgain()
  count('proof')
  const place = { data: join(copy, 'pg'), sockets: join(sandbox.root, `sockets-${round}`) }
  const wrong = [await Postgres.check(place, rows[0] ?? 0)]
  for (const [n, name] of Object.keys(databases).entries()) {
    wrong.push(await Sqlite.check(join(copy, name), rows[n + 1] ?? 0))
  }
  rmSync(copy, { recursive: true })
  return wrong.join('')
}

/** Both trees stand still: equal, and with everything that was acknowledged. */
async function compare(work: Work): Promise<string> {
  const diff = await work.diff
  if (diff !== undefined && diff.code !== 0) return `fsdiff: ${diff.stdout}${diff.stderr}`
  const late = await waitLong()
  if (late !== '') return late
  const differs = await compareTrees(dir, tree)
  if (differs !== '') return differs
  for (const { name, ack } of work.loads) {
    const lost = await checkLoad({ ack, dir: join(tree, name) })
    if (lost !== '') return `${name}: ${lost}`
    rmSync(join(dir, name), { recursive: true, force: true })
    rmSync(ack)
  }
  return ''
}

async function oneRound(round: number): Promise<string> {
  // Random operations make things immutable as well.
  const old = join(dir, `diff-${round - 1}`)
  await attempt('chattr', ['-R', '-i', '-a', old])
  rmSync(old, { recursive: true, force: true })
  await startDatabases()
  let work: Work = { ...(await startLoad(round)), diff: startDiff(round) }
  for (let n = chance.between(2, 4); n > 0 && killed() < kills; n -= 1) {
    await sleep(chance.between(30, 900))
    work = await strike(chance.pick(CHOICE), round, work)
    const lie = chance.next() < 0.6 ? await promise() : ''
    if (lie !== '') return lie
  }
  const proof = round % ROUNDS_PER_PROOF === 1 ? await proveDatabases(round) : ''
  if (proof !== '') return proof
  for (const each of sqlite) await each.stop()
  await postgres.stop()
  await postgres.halt(chance.pick(['fast', 'immediate']))
  await work.load.cut()
  return compare(work)
}

/** What both sides have logged last. */
const logs = () => lastLogs('data', primary, [replica])

await t.test('faults: set up', async (t) => {
  mkdirSync(dir)
  await primary.holdfast('mount', dir, '--ring', sandbox.rings, '--ring-size', '64M')
  await replica.serve(root)
  await primary.introduce(replica)
  await primary.holdfast('replicate', 'data', '--to', 'replica')
  await postgres.make()
  for (const [n, mode] of Object.values(databases).entries()) await sqlite[n]?.make(mode)
  await postgres.halt('fast')
  const waited = await primary.tryHoldfast('wait', 'data', ...WAIT)
  t.equal(waited.code, 0, waited.stderr)
})

await t.test(
  'faults: links and deaths under PostgreSQL, SQLite and random operations',
  async (t) => {
    let round = 0
    while (killed() < kills) {
      round += 1
      const wrong = await oneRound(round)
      if (wrong !== '') return void t.fail(`round ${round}: ${wrong}\n${logs()}`)
      t.comment(`round ${round}: ${killed()} killed`)
    }
    t.comment(JSON.stringify(Object.fromEntries(done)))
    t.ok(killed() >= kills, `${killed()} killed in ${round} rounds`)
    const shown = async () => (await primary.status('data')).replicas[0]
    await until(async () => (await shown())?.copy === 'UpToDate', 'it to be said that all is there')
    t.match(await shown(), { connection: 'connected', copy: 'UpToDate', problem: null })
    await primary.holdfast('unmount', 'data')
  },
)
