/** What is known of another clock is true, whatever the link does; and intervals prove what they prove. */
import t from 'tap'
import { RemoteClock } from '../../src/group/clock.js'
import { judge } from '../../src/group/verdict.js'
import { Chance, chooseSeed } from '../harness/faults.js'

const MS = 1_000_000
const seed = chooseSeed()
const chance = new Chance(seed)
t.comment(`seed ${seed}: HOLDFAST_SEED=${seed}`)

/** Another clock, far away: its offset and drift, and links that are lopsided and unsteady. */
function distant() {
  const offset = chance.between(-1e10, 1e10)
  const ppm = chance.between(-150, 150)
  const [there, back] = [chance.between(0, 30 * MS), chance.between(0, 30 * MS)]
  let now = chance.between(1e12, 1e13)
  const shown = (at: number) => BigInt(Math.round(at + offset + at * ppm * 1e-6))
  const wait = (ns: number) => {
    now += ns
  }
  const jitter = () => chance.next() ** 4 * 20 * MS
  const exchange = () => {
    const sentNs = BigInt(Math.round(now))
    wait(there + jitter())
    const remoteNs = shown(now)
    wait(back + jitter())
    return { sentNs, remoteNs, receivedNs: BigInt(Math.round(now)) }
  }
  // Less what rounding to whole ns takes at both ends.
  const least = Math.max(0, Math.min(there, back) - 4)
  const oneWayNs = BigInt(Math.floor(chance.pick([0, 0.5, 1]) * least))
  return { shown, wait, exchange, now: () => now, roundTrip: there + back, oneWayNs }
}

t.test(
  'clock: the offset is within its bound, half the round trip beyond the distance',
  async (t) => {
    let wrong = 0
    let wide = 0
    for (let n = 0; n < 200; n += 1) {
      const far = distant()
      const clock = new RemoteClock(far)
      for (let k = 0; k < 100; k += 1) {
        if (!clock.add(far.exchange())) wrong += 1
        far.wait(chance.between(0, 2_000) * MS)
        const at = BigInt(Math.round(far.now()))
        const { offsetNs, errorNs } = clock.at(at)
        const off = far.shown(far.now()) - at - offsetNs
        if (off > errorNs || -off > errorNs) wrong += 1
        const worst = far.roundTrip / 2 - Number(far.oneWayNs) + 12 * MS
        if (k > 50 && Number(errorNs) > worst) wide += 1
      }
    }
    t.equal(wrong, 0)
    t.ok(wide < 200, `${wide} of 9,800 bounds are wider than a good exchange gives`)
  },
)

t.test('clock: what is faster than it can be is refused', async (t) => {
  const clock = new RemoteClock({ oneWayNs: 1_000n })
  t.ok(clock.add({ sentNs: 0n, remoteNs: 5_000n, receivedNs: 2_000n }))
  t.same(clock.at(2_000n).offsetNs, 4_000n, 'nothing is left to doubt')
  t.throws(() => clock.add({ sentNs: 0n, remoteNs: 5_000n, receivedNs: 1_999n }), RangeError)
})

t.test('clock: a jump is noticed, and then forgotten', async (t) => {
  for (let n = 0; n < 50; n += 1) {
    const far = distant()
    const clock = new RemoteClock()
    for (let k = 0; k < 16; k += 1) clock.add(far.exchange())
    const jump = BigInt(60 * MS + chance.between(0, 1e9)) * (chance.next() < 0.5 ? -1n : 1n)
    const jumped = () => {
      const found = far.exchange()
      return { ...found, remoteNs: found.remoteNs + jump }
    }
    t.notOk(clock.add(jumped()))
    t.equal(clock.at(BigInt(Math.round(far.now()))).jumps, 1)
    t.ok(clock.add(jumped()))
  }
})

t.test('verdict: an instant that all intervals have in common, errors included', async (t) => {
  const host = (offsetNs: bigint, errorNs: bigint, ...rests: [bigint, bigint][]) => ({
    offsetNs,
    errorNs,
    rests: rests.map(([restNs, releaseNs]) => ({ restNs, releaseNs })),
  })
  const at = (aimNs: bigint, ...hosts: ReturnType<typeof host>[]) => judge(() => hosts, aimNs)
  t.same(at(12n, host(0n, 0n, [10n, 20n])), { instantNs: 12n, slackNs: 2n })
  t.same(at(9n, host(0n, 0n, [10n, 20n])), { instantNs: 15n, slackNs: 5n }, 'later than was aimed')
  const two = [host(0n, 0n, [10n, 20n]), host(100n, 3n, [112n, 140n])] as const
  t.same(at(16n, ...two), { instantNs: 16n, slackNs: 1n })
  t.same(at(0n, host(0n, 0n, [10n, 20n]), host(100n, 9n, [112n, 140n])), { slackNs: -1n })
  t.same(at(0n, host(0n, 0n, [10n, 20n], [21n, 30n])), { slackNs: -1n })
  const meeting = at(0n, host(0n, 0n, [10n, 20n], [20n, 30n]))
  t.same(meeting, { instantNs: 20n, slackNs: 0n })
})

t.test('verdict: what a clock shows at another instant proves nothing', async (t) => {
  // It drifts by one in ten: what is known at 1000, when all is over, is wrong by 90 at 100.
  const drifting = (instantNs: bigint) => [
    { offsetNs: 0n, errorNs: 0n, rests: [{ restNs: 90n, releaseNs: 110n }] },
    { offsetNs: instantNs / 10n, errorNs: 2n, rests: [{ restNs: 200n, releaseNs: 215n }] },
  ]
  const late = judge(() => drifting(1_000n), 100n)
  t.ok(late.instantNs !== undefined, 'by the clock of later it would pass')
  t.equal(judge(drifting, 100n).instantNs, undefined, 'by that of the instant it does not')
  const there = (instantNs: bigint) => {
    const [near, far] = drifting(instantNs)
    const rests = [{ restNs: 114n, releaseNs: 125n }]
    return [near, { ...far, rests }] as ReturnType<typeof drifting>
  }
  t.ok(judge(there, 100n).instantNs !== undefined, 'and what was at rest together passes')
})
