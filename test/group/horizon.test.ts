/**
 * The commit horizon of a group: processes count through volumes on three hosts, reached by TLS and by
 * ssh, while their replicas apply up to common markers only. What the replicas have all applied is one
 * instant whenever it is looked at, by what was applied and by views; without a horizon the same check finds
 * chains that no instant can have shown.
 *
 * HOLDFAST_WATCH_MS and HOLDFAST_KILLS make it longer; HOLDFAST_SEED repeats it.
 */
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { Chance, chooseSeed, kill, setting, until } from '../harness/faults.js'
import {
  brokenChains,
  brokenInTrees,
  endChains,
  type Moment,
  startChains,
} from '../harness/group.js'
import { type Seen, Shop, statusOf } from '../harness/horizon.js'
import { makeImage } from '../harness/image.js'
import { openSandbox } from '../harness/sandbox.js'
import { compareTrees } from '../harness/volume.js'

const WATCH_MS = setting('HOLDFAST_WATCH_MS', 5_000)
const KILLS = setting('HOLDFAST_KILLS', 3)
const CHAINS = 2
/** Leaves the CPUs to the replicas. */
const PACE = { pauseS: 0.015 }
const seed = chooseSeed()
t.setTimeout(300_000 + WATCH_MS * 4)
t.comment(`seed ${seed}: HOLDFAST_SEED=${seed}`)

const chance = new Chance(seed)
const sandbox = await openSandbox(t)
const image = await makeImage(sandbox, { fs: 'xfs', mib: 6144 })
const shop = await Shop.make(sandbox, image)
t.teardown(() => shop.end())
const { members } = shop
const defined = (moment: Moment | undefined): moment is Moment => moment !== undefined
const mutual = (seen: readonly Seen[]) => {
  const { moments } = shop
  return seen.map((each) => shop.mutual(each, moments)).filter(defined)
}
const applied = (seen: readonly Seen[]) => seen.map((each) => each.applied)
const allAt = () => shop.allAt()
/** They do, and nothing has come after it. */
const atEnd = async () => {
  const { horizon } = await shop.see()
  const captured = members.map(async (each) => (await statusOf(each)).captured.seq)
  const cut = horizon?.horizon
  return cut != null && `${await Promise.all(captured)}` === `${shop.momentOf(cut)}` && allAt()
}

await t.test('horizon: replicas are one instant whenever they are looked at', async (t) => {
  const chains = await startChains(members, CHAINS, PACE)
  const loose = await shop.watch(WATCH_MS / 2)
  await shop.serve()
  await until(allAt, 'all trees to stand at it')
  const seen = await shop.watch(WATCH_MS)
  let views = 0
  for (let n = 0; n < 3; n += 1) {
    const moment = shop.mutual(await shop.see())
    const at = join(sandbox.root, `views-${n}`)
    views += moment === undefined ? 1 : await shop.brokenAt(moment, CHAINS, at)
  }
  t.equal(views, 0, 'views of the replicas at the mutual cut show one instant, 3 times')
  await endChains(chains)
  t.equal(shop.beyond(seen), 0, `no tree of ${seen.length * 3} was beyond the horizon`)
  const cuts = mutual(seen)
  t.equal(cuts.length, seen.length, 'there was a mutual cut every time')
  t.equal(await brokenChains(members, CHAINS, cuts), 0, `${cuts.length} mutual cuts, none broken`)
  const exact = seen.filter(({ applied }, n) => `${applied}` === `${cuts[n]}`)
  t.comment(
    `${exact.length} of ${seen.length} times all trees stood at it, else some were on the way`,
  )
  const before = await brokenChains(members, CHAINS, applied(loose))
  t.ok(
    before > 0,
    `without a horizon: ${before} broken chains in ${loose.length} looks at the trees`,
  )
  const raw = await brokenChains(members, CHAINS, applied(seen))
  t.comment(`with it, the trees just as they are: ${raw} in ${seen.length} looks`)
  t.ok(raw / seen.length < before / loose.length, 'which is less')
  await until(atEnd, 'the horizon to reach the end')
  for (const [n, { dir }] of members.entries()) {
    t.equal(await compareTrees(dir, shop.trees[n] ?? ''), '', `v${n} and its replica are equal`)
  }
  const idle = shop.horizons.length
  await shop.watch(1_000)
  t.equal(shop.horizons.length, idle, 'where nothing changes, nothing is marked')
})

await t.test('horizon: a snapshot of the group is one', async (t) => {
  const chains = await startChains(members, CHAINS, PACE)
  await shop.stop()
  await shop.hub.holdfast('group', 'snapshot', 'create', 'shop', '--name', 'tuesday')
  await sleep(300)
  const stood = applied(await shop.watch(200))
  t.ok(
    stood.every((each) => `${each}` === `${stood[0]}`),
    'nobody moves it: nothing is applied',
  )
  await shop.serve('--interval', '600ms')
  await until(
    () => shop.horizons.some((each) => each.snapshot === 'tuesday'),
    'it to be the horizon',
  )
  await endChains(chains)
})

await t.test('horizon: its server and a daemon are killed', async (t) => {
  const chains = await startChains(members, CHAINS, PACE)
  const all: Seen[] = []
  for (let n = 0; n < KILLS; n += 1) {
    const watching = shop.watch(1_500)
    await sleep(chance.between(100, 900))
    await shop.stop('SIGKILL')
    await shop.see()
    shop.start()
    all.push(...(await watching))
  }
  const [, one] = members
  if (one === undefined) throw new Error('no member')
  await endChains(chains)
  await kill((await statusOf(one)).pid)
  all.push(...(await shop.watch(500)))
  await one.host.holdfast('mount', one.volume)
  const again = await startChains(members, CHAINS, PACE)
  all.push(...(await shop.watch(2_500)))
  await endChains(again)
  t.equal(shop.beyond(all), 0, `no tree of ${all.length * 3} was beyond the horizon`)
  t.equal(await brokenChains(members, CHAINS, mutual(all)), 0, 'no mutual cut is broken')
  await until(atEnd, 'the horizon to reach the end')
  t.equal(brokenInTrees(shop.trees, CHAINS), 0, 'what the trees show is one instant')
  t.equal(await shop.stop(), 0, 'it ends in order')
  await shop.group('serve', '--off')
  t.equal((await statusOf(one)).horizon, null, 'and a member has none any more')
})
