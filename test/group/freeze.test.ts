/**
 * Freeze: in the middle of a workload through three hosts, reached by TLS and by ssh, the link over which one
 * of them is copied is cut, and then one host altogether. The others freeze, applications go on, the trees of
 * the replicas settle at one instant; thawed, all catch up. With the group off the same check of the same
 * trees fails.
 */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { chooseSeed, until } from '../harness/faults.js'
import {
  brokenChains,
  brokenInTrees,
  endChains,
  type Member,
  startChains,
} from '../harness/group.js'
import { type Seen, Shop, statusOf } from '../harness/horizon.js'
import { makeImage } from '../harness/image.js'
import { openSandbox } from '../harness/sandbox.js'
import { compareTrees } from '../harness/volume.js'

const CHAINS = 2
/** Leaves the CPUs to the replicas. */
const PACE = { pauseS: 0.015 }
const WAIT_MS = 60_000
const seed = chooseSeed()
t.setTimeout(400_000)
t.comment(`seed ${seed}: HOLDFAST_SEED=${seed}`)

const sandbox = await openSandbox(t)
const image = await makeImage(sandbox, { fs: 'xfs', mib: 6144 })
const shop = await Shop.make(sandbox, image)
t.teardown(() => shop.end())
const { members, vault } = shop
const [hub, one, two] = members as [Member, Member, Member]

const frozen = () => shop.see().then(({ horizon }) => horizon?.frozen ?? null)
const captured = async () =>
  Promise.all(members.map((each) => statusOf(each).then((s) => s.captured.seq)))
const last = (seen: readonly Seen[]) => `${seen.at(-1)?.applied}`

/** Every mutual cut of what was seen is one instant, and no tree is beyond the horizon. */
async function requireMutual(t: Tap, seen: readonly Seen[], when: string): Promise<void> {
  t.equal(shop.beyond(seen), 0, `${when}: no tree of ${seen.length * 3} was beyond the horizon`)
  const { moments } = shop
  const all = seen.flatMap((each) => {
    const cut = shop.mutual(each, moments)
    return cut === undefined ? [] : [cut]
  })
  t.equal(all.length, seen.length, `${when}: there was a mutual cut every time`)
  t.equal(await brokenChains(members, CHAINS, all), 0, `${when}: ${all.length} cuts, none broken`)
}
type Tap = Pick<typeof t, 'equal' | 'ok' | 'match' | 'comment'>

/** Trees equal their volumes once the last change of those is the horizon. */
async function requireEqual(t: Tap): Promise<void> {
  await until(
    async () => {
      const { horizon, applied } = await shop.see()
      return horizon?.frozen === null && `${applied}` === `${await captured()}`
    },
    'all to catch up',
    WAIT_MS,
  ).catch((error: Error) => {
    throw new Error(`${error.message}: ${shop.said}`)
  })
  for (const [n, { dir }] of members.entries()) {
    t.equal(await compareTrees(dir, shop.trees[n] ?? ''), '', `v${n} and its replica are equal`)
  }
}

await t.test('freeze: the link of one copy is cut', async (t) => {
  const chains = await startChains(members, CHAINS, PACE)
  await shop.serve()
  const watching = shop.watch(9_000, 40)
  await sleep(2_000)
  await one.host.setMute(vault, true)
  const seen = await watching
  await until(async () => (await frozen()) !== null, 'the group to freeze', WAIT_MS)
  t.match((await frozen())?.why ?? '', /^one\/v1 to vault: /, 'it says what has failed')
  await sleep(500)
  const before = await captured()
  const still = await shop.watch(1_500, 40)
  const after = await captured()
  t.ok(
    after.every((seq, n) => seq > (before[n] ?? 0)),
    'applications go on, on all hosts',
  )
  t.ok(
    still.every(({ applied }) => `${applied}` === last(still)),
    'the trees stand',
  )
  await requireMutual(t as Tap, [...seen, ...still], 'cut')
  for (const each of members) {
    t.match(
      (await statusOf(each)).horizon?.frozen?.why,
      /^one\/v1 to vault: /,
      `${each.volume} says so`,
    )
  }
  const shown = await shop.show()
  t.ok(shown.mutual, 'there is a mutual cut')
  const moment = shop.momentOf(shown.mutual ?? { seqs: {} })
  const views = await shop.brokenAt(moment, CHAINS, join(sandbox.root, 'views'))
  t.equal(views, 0, 'views of the replicas show it')
  t.comment(await shop.group('show'))
  await one.host.setMute(vault, false)
  await until(() => shop.allAt(), 'whoever had not heard of the horizon to hear of it', WAIT_MS)
  t.ok(await frozen(), 'it is frozen all the same')
  t.equal(brokenInTrees(shop.trees, CHAINS), 0, 'the trees, as they are, show one instant')
  await shop.group('thaw')
  await endChains(chains)
  await requireEqual(t as Tap)
})

await t.test('freeze: a host is cut off, and its coordinator is frozen by hand', async (t) => {
  const chains = await startChains(members, CHAINS, PACE)
  await sleep(1_000)
  await two.host.setLink('down')
  const seen = await shop.watch(4_000, 40)
  await until(async () => (await frozen()) !== null, 'the group to freeze', WAIT_MS)
  t.match((await frozen())?.why ?? '', /^two\/v2/, 'it says who is missing')
  await sleep(500)
  const still = await shop.watch(1_000, 40)
  t.ok(
    still.every(({ applied }) => `${applied}` === last(still)),
    'the trees stand',
  )
  const why = (await statusOf(hub)).horizon?.frozen?.why
  t.equal(why, (await frozen())?.why, 'a member says it, too')
  await two.host.setLink('up')
  const told = async () => (await statusOf(two)).horizon?.frozen != null
  await until(told, 'the host to be told when it is back', WAIT_MS)
  await until(() => shop.allAt(), 'all trees to stand at the horizon', WAIT_MS)
  await requireMutual(t as Tap, [...seen, ...still], 'cut off')
  t.equal(brokenInTrees(shop.trees, CHAINS), 0, 'the trees, as they are, show one instant')
  await shop.group('thaw')
  await until(async () => (await shop.watch(300)).length > 0 && (await frozen()) === null, 'a thaw')
  await shop.group('freeze', '--why', 'by hand')
  await until(() => shop.allAt(), 'all trees to stand at the horizon', WAIT_MS)
  t.equal(brokenInTrees(shop.trees, CHAINS), 0, 'frozen by hand they do, too')
  t.match(await shop.group('show'), /frozen since .*: by hand/)
  await shop.group('thaw')
  await endChains(chains)
  await requireEqual(t as Tap)
})

await t.test('freeze: applications are held, where that is asked for', async (t) => {
  const chains = await startChains(members, CHAINS, PACE)
  const requireHeld = async (when: string) => {
    const before = await captured()
    await sleep(1_000)
    t.same(await captured(), before, `${when}: nothing is changed on any host`)
    const names = members.map(({ dir }) => readdirSync(dir))
    t.ok(
      names.every((each) => each.length > 0),
      `${when}: reading goes on`,
    )
  }
  const goOn = async (since: readonly number[], when: string) => {
    const moved = async () => (await captured()).every((seq, n) => seq > (since[n] ?? 0))
    await until(moved, `applications to go on ${when}`, WAIT_MS)
  }
  const said = await shop.group('freeze', '--hold-applications', '60s')
  t.match(said, /applications are held for 1 min 0 s at most/)
  await requireHeld('by hand')
  t.ok(Number((await statusOf(one)).horizon?.heldMs) > 40_000, 'status tells it')
  let since = await captured()
  await shop.group('thaw')
  await goOn(since, 'with the thaw')

  await shop.group('freeze')
  await shop.group('freeze', '--hold-applications', '10s')
  await shop.stop('SIGKILL')
  await requireHeld('nobody serves')
  since = await captured()
  await goOn(since, 'by themselves')
  t.ok(await frozen(), 'it is frozen all the same')
  t.equal((await statusOf(two)).horizon?.heldMs, 0)
  await shop.group('thaw')

  shop.start('--hold-applications', '60s')
  await one.host.setMute(vault, true)
  await until(async () => (await frozen()) !== null, 'the group to freeze', WAIT_MS)
  await until(async () => Number((await statusOf(two)).horizon?.heldMs) > 0, 'all to be told')
  await requireHeld('a copy has failed')
  await one.host.setMute(vault, false)
  since = await captured()
  await shop.group('thaw')
  await goOn(since, 'with the thaw')
  await endChains(chains)
  await requireEqual(t as Tap)
})

await t.test('freeze: with the group off, the same cut tears the replicas apart', async (t) => {
  const chains = await startChains(members, CHAINS, PACE)
  await shop.stop()
  await shop.group('serve', '--off')
  await sleep(1_000)
  await one.host.setMute(vault, true)
  await sleep(2_500)
  await endChains(chains)
  await sleep(1_000)
  const broken = brokenInTrees(shop.trees, CHAINS)
  t.ok(broken > 0, `the trees, as they are: ${broken} of ${CHAINS} chains broken`)
  await one.host.setMute(vault, false)
})
