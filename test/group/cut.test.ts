/**
 * Cuts of a group: processes count through volumes on four hosts, whose clocks differ by seconds and
 * drift, behind links of which one is slow and lopsided. No snapshot, by either method, ever shows a
 * number on a later host that an earlier one does not have; markers without a hold do.
 *
 * HOLDFAST_CUTS and HOLDFAST_SEED make it longer, or repeat it.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { GroupView } from '../../src/daemon/group-views.js'
import type { GroupStatus } from '../../src/daemon/groups.js'
import { quantile } from '../harness/counts.js'
import { Chance, chooseSeed, setting } from '../harness/faults.js'
import {
  brokenChains,
  brokenInTrees,
  type CutTold,
  endChains,
  endMembers,
  looseMarkers,
  type Moment,
  makeMembers,
  momentOf,
  setClock,
  startChains,
  takeCuts,
} from '../harness/group.js'
import { type Host, makeSwitched } from '../harness/hosts.js'
import { makeImage } from '../harness/image.js'
import { openSandbox } from '../harness/sandbox.js'

const CUTS = setting('HOLDFAST_CUTS', 12)
const CHAINS = 4
const seed = chooseSeed()
const SLOW = { there: 6, back: 1, jitter: 1 }
t.setTimeout(400_000 + CUTS * 3_000)
t.comment(`seed ${seed}, ${CUTS} cuts: HOLDFAST_SEED=${seed} HOLDFAST_CUTS=${CUTS}`)

const chance = new Chance(seed)
const sandbox = await openSandbox(t)
const image = await makeImage(sandbox, { fs: 'xfs', mib: 6144 })
const hosts = await makeSwitched(sandbox, ['hub', 'one', 'two', 'three'])
const [hub] = hosts as [Host, ...Host[]]
for (const host of hosts) {
  const offsetMs = chance.between(-9_000, 9_000)
  setClock(host, { offsetMs, driftPpm: chance.between(-40, 40) })
}
const slow = ({ name }: Host) => (name === 'three' ? SLOW : undefined)
const members = await makeMembers(sandbox, image, { hosts, slow })
t.teardown(() => endMembers(members))

const heldMs = ({ taken }: Extract<CutTold, { taken: unknown }>) =>
  taken.hosts
    .flatMap((each) => each.members)
    .map((each) => Number(BigInt(each.releaseNs) - BigInt(each.closedNs)) / 1e6)

async function campaign(t: Tap, method: 'scheduled' | 'barrier'): Promise<Moment[]> {
  const told = await takeCuts(hub, { group: 'shop', count: CUTS, method })
  const good = told.filter((each) => 'taken' in each)
  const bad = told.filter((each) => 'failed' in each)
  for (const each of bad.slice(0, 3)) t.comment(`not taken: ${each.failed}`)
  t.ok(good.length >= CUTS * 0.9, `${method}: ${good.length} of ${CUTS} were taken`)
  t.ok(good.every(({ taken }) => taken.method === method))
  for (const [n, { host }] of members.entries()) {
    const held = good.map((each) => heldMs(each)[n] ?? 0).sort((a, b) => a - b)
    const [p50, p99, max] = [0.5, 0.99, 1].map((share) => quantile(held, share).toFixed(2))
    t.comment(`${method}: ${host.name} held: p50 ${p50} ms, p99 ${p99} ms, max ${max} ms`)
  }
  return good.map(({ taken }) => momentOf(members, taken))
}
type Tap = typeof t

await t.test('group: made, shown, with the clocks of its hosts', async (t) => {
  const named = members.map(({ host, volume }) => `${host.name}/${volume}`)
  await hub.holdfast('group', 'create', 'shop', ...named.map((each) => each.replace('hub/', '')))
  const found = await hub.json<GroupStatus>('group', 'show', 'shop')
  t.same(
    found.status.map(({ state }) => state),
    members.map(() => 'protected'),
  )
  const slow = found.hosts.find(({ host }) => host === 'three')
  t.ok(Number(slow?.clock?.errorNs) >= 2.5e6, 'a lopsided link leaves a clock uncertain')
  t.comment(await hub.holdfast('group', 'show', 'shop'))
  const distance = (ms: string) => hub.tryHoldfast('peer', 'distance', 'three', '--at-least', ms)
  t.match((await distance('100ms')).stdout, /three is at least 100 ms away/)
  t.match(await hub.holdfast('group', 'show', 'shop'), /three: it is not as far away as was said/)
  await distance(`${SLOW.back - 1}ms`)
  t.match(await hub.holdfast('group', 'show', 'shop'), /three +-?\d/)
})

await t.test('group: one instant on four hosts, by each method', async (t) => {
  const chains = await startChains(members, CHAINS)
  const scheduled = await campaign(t as Tap, 'scheduled')
  const barrier = await campaign(t as Tap, 'barrier')
  const loose: Moment[] = []
  for (let n = 0; n < CUTS; n += 1) loose.push(await looseMarkers(members))
  await hub.holdfast('group', 'snapshot', 'create', 'shop', '--name', 'kept')
  await sleep(500)
  await endChains(chains)
  const shown = ['group', 'snapshot', 'mount', 'shop', 'kept']
  const { views } = await hub.json<{ views: GroupView[] }>(...shown)
  t.same(
    views.map(({ host, volume }) => `${host}/${volume}`).length,
    members.length,
    'every host shows its part',
  )
  const trees = members.map(
    ({ volume }) => views.find((each) => each.volume === volume)?.path ?? '',
  )
  t.equal(brokenInTrees(trees, CHAINS), 0, 'what the views show is one instant')
  t.match(await hub.holdfast('group', 'snapshot', 'unmount', 'shop', 'kept'), /is unmounted/)
  t.equal(await brokenChains(members, CHAINS, scheduled), 0, 'scheduled: none is torn')
  t.equal(await brokenChains(members, CHAINS, barrier), 0, 'barrier: none is torn')
  const torn = await brokenChains(members, CHAINS, loose)
  t.ok(torn > 0, `the same check finds ${torn} torn where nothing was held`)
})
