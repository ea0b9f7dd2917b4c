/**
 * Views of cuts, read as a backup reads them: while pairs are counted, money is moved between files and
 * two databases commit, no view of any cut breaks an invariant or lacks what was acknowledged before it
 * was ordered; SQLite and PostgreSQL recover from every copy. The same judge finds what is wrong in
 * views of moments that were chosen without a hold, and in a copy of the live tree.
 *
 * HOLDFAST_CUTS makes it longer: that many of one volume, two thirds of it of two.
 */
import { mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { type Exposed, withSnapshot } from '../../src/daemon/snapshot-views.js'
import { openView } from '../../src/daemon/views.js'
import { listSnapshots, mount } from '../../src/index.js'
import { heldNs } from '../../src/snapshot/certificate.js'
import { Postgres, Sqlite, startPgbench } from '../harness/databases.js'
import { setting } from '../harness/faults.js'
import { makeImage } from '../harness/image.js'
import { broken, Ledgers } from '../harness/ledgers.js'
import { run } from '../harness/run.js'
import { openSandbox } from '../harness/sandbox.js'
import { mountVolume, unmountVolume } from '../harness/volume.js'

const cuts = setting('HOLDFAST_CUTS', 150)
/** A recovered copy of each database: of every so many cuts. */
const SQLITE_EVERY = 5
const POSTGRES_COPIES = 3
/** Copies of the live tree, and pairs of moments without a hold, until one is torn. */
const TRIES_MAX = 50
const DATABASE_PAUSE_MS = 2

t.setTimeout(600_000 + cuts * 4_000)
const sandbox = await openSandbox(t)
const options = { historyBytes: 1 << 30 }
const [here, there] = await Promise.all([
  makeImage(sandbox, { fs: 'xfs', mib: 4096, name: 'here' }),
  makeImage(sandbox, { fs: 'ext4', mib: 4096, name: 'there' }),
])
const fill = (dir: string) => ['a', 'b'].map((name) => mkdirSync(join(dir, name)))
const left = await mountVolume(sandbox, here, { name: 'left', fill, options })
const right = await mountVolume(sandbox, there, {
  name: 'right',
  fill,
  options: { ...options, history: 'continuous' },
})
const copies = join(sandbox.root, 'copies')
mkdirSync(copies, { mode: 0o755 })

const held: number[] = []

function tellHeld(t: Tap): void {
  const sorted = held.splice(0).sort((a, b) => a - b)
  const at = (q: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? 0
  const [p50, p99, max] = [0.5, 0.99, 1].map((q) => (at(q) / 1e6).toFixed(2))
  t.comment(`held: p50 ${p50} ms, p99 ${p99} ms, max ${max} ms`)
}
type Tap = Pick<typeof t, 'comment'>

/** Takes `count` cuts and has the views of each judged; all that is wrong. */
async function judge(
  volumes: string[],
  count: number,
  look: (exposed: Exposed, n: number) => Promise<string[]> | string[],
  order: () => void,
): Promise<string[]> {
  const wrong: string[] = []
  for (let n = 0; n < count; n += 1) {
    order()
    const found = await withSnapshot({ volumes }, async (exposed) => {
      held.push(heldNs(exposed.certificate))
      return look(exposed, n)
    })
    wrong.push(...found.map((each) => `cut ${n}: ${each}`))
  }
  return wrong
}

const placesOf = (directory: string) => ({
  left: join(directory, 'a'),
  right: join(directory, 'b'),
})

/** A copy of what a database has, as a restore would bring it. */
async function copyOf(from: string, what: string): Promise<string> {
  const to = join(copies, what)
  rmSync(to, { recursive: true, force: true })
  await run('cp', ['-a', '--', from, to])
  return to
}

await t.test('views: one volume, and SQLite', async (t) => {
  const ledgers = new Ledgers(join(sandbox.root, 'ack-1'))
  await ledgers.start(placesOf(left.dir))
  mkdirSync(join(left.dir, 'sqlite'))
  const sqlite = new Sqlite(join(left.dir, 'sqlite', 'db'))
  await sqlite.make('wal')
  sqlite.start(DATABASE_PAUSE_MS)
  let acknowledged: number[] = []
  let row = 0
  const wrong = await judge(
    ['left'],
    cuts,
    async ({ path }, n) => {
      const found = broken(placesOf(path), acknowledged)
      if (n % SQLITE_EVERY !== 0) return found
      const copy = await copyOf(join(path, 'sqlite'), 'sqlite')
      const said = await Sqlite.check(join(copy, 'db'), row)
      return said === '' ? found : [...found, said]
    },
    () => {
      acknowledged = ledgers.acknowledged()
      row = sqlite.acknowledged
    },
  )
  t.same(wrong, [], `${cuts} cuts, ${ledgers.transfers} transfers, ${row} rows`)
  tellHeld(t)
  // Without a hold: the tree as a copy of it while it changes would have it.
  let torn: string[] = []
  let tries = 0
  for (; torn.length === 0 && tries < TRIES_MAX; tries += 1) {
    await Promise.all(['a', 'b'].map((name) => copyOf(join(left.dir, name), name)))
    torn = broken(placesOf(copies))
  }
  t.ok(torn.length > 0, `the same judge on copy ${tries} of the live tree: ${torn[0]}`)
  await ledgers.stop()
  await sqlite.stop()
})

await t.test('views: two volumes, and PostgreSQL', async (t) => {
  const ledgers = new Ledgers(join(sandbox.root, 'ack-2'))
  const places = { left: join(left.dir, 'a'), right: join(right.dir, 'a') }
  await ledgers.start(places)
  const sockets = join(sandbox.root, 'sockets')
  const postgres = new Postgres({ data: join(right.dir, 'pg'), sockets })
  await postgres.make()
  const pgbench = await startPgbench(sockets)
  postgres.start(DATABASE_PAUSE_MS)
  let acknowledged: number[] = []
  let row = 0
  const count = Math.ceil((cuts * 2) / 3)
  const every = Math.ceil(count / POSTGRES_COPIES)
  const wrong = await judge(
    ['left', 'right'],
    count,
    async ({ path }, n) => {
      const found = broken(
        { left: join(path, 'left', 'a'), right: join(path, 'right', 'a') },
        acknowledged,
      )
      if (n % every !== every - 1 && n !== count - 1) return found
      const copy = await copyOf(join(path, 'right', 'pg'), 'pg')
      const place = { data: copy, sockets: join(copies, `sockets-${n}`) }
      const said = [await Postgres.check(place, row), await Postgres.checkPgbench(place)]
      return [...found, ...said.filter((each) => each !== '')]
    },
    () => {
      acknowledged = ledgers.acknowledged()
      row = postgres.acknowledged
    },
  )
  t.same(wrong, [], `${count} cuts, ${ledgers.transfers} transfers, ${row} rows`)
  tellHeld(t)
  await postgres.stop()
  await pgbench.stop()
  await postgres.halt('fast')
  await ledgers.stop()
})

await t.test('views: the same judge where nothing was held', async (t) => {
  await left.volume.unmount()
  left.volume = await mount({ dir: 'left', options: { history: 'continuous' } })
  const ledgers = new Ledgers(join(sandbox.root, 'ack-3'))
  const places = { left: join(left.dir, 'a'), right: join(right.dir, 'a') }
  await ledgers.start(places)
  let torn: string[] = []
  let tries = 0
  for (; torn.length === 0 && tries < TRIES_MAX; tries += 1) {
    const seqs = await Promise.all([left, right].map(({ volume }) => volume.marker('loose')))
    const views = await Promise.all(
      [left, right].map(({ volume }, k) => openView({ volume: volume.name, seq: seqs[k] ?? 0n })),
    )
    const [one = '', other = ''] = views.map(({ path }) => path)
    torn = broken({ left: join(one, 'a'), right: join(other, 'a') })
    for (const view of views) await view.close()
  }
  t.ok(torn.length > 0, `${torn.length} wrong at pair ${tries} of moments: ${torn[0]}`)
  await ledgers.stop()
  t.same(listSnapshots(), [], 'no snapshot is left')
  const run = process.env.HOLDFAST_RUN_DIR ?? ''
  t.same(readdirSync(join(run, 'exec')), [], 'no view is left')
  for (const test of [left, right]) {
    t.equal((await test.volume.status()).history.lost, 0, 'the history had room')
    await unmountVolume(test)
  }
})
