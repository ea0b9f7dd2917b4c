import t from 'tap'
import { TIMELINE_SPANS_MAX, TIMELINE_STEP_MS } from '../../src/lib/limits.js'
import { Timeline } from '../../src/replication/timeline.js'

const STEP = TIMELINE_STEP_MS

t.test('timeline: bytes and seconds behind a position', async (t) => {
  const timeline = new Timeline()
  t.same(timeline.behind(0n, 5_000), { bytes: 0, seconds: 0 }, 'nothing there, nothing behind')
  timeline.note({ seq: 10n, bytes: 1000, at: 1_000 })
  timeline.note({ seq: 30n, bytes: 5000, at: 1_000 + 2 * STEP })
  t.same(timeline.behind(30n, 5_000), { bytes: 0, seconds: 0 })
  t.equal(timeline.behind(10n, 5_000).bytes, 4000, 'exact where a span ends')
  t.equal(timeline.behind(20n, 5_000).bytes, 2000, 'linear within one')
  t.equal(timeline.behind(0n, 5_000).bytes, 5000)
  t.equal(timeline.behind(0n, 5_000).seconds, 4)
  t.equal(timeline.behind(10n, 5_000).seconds, 4 - (2 * STEP) / 1000)
})

t.test('timeline: an idle hour does not make a lag of an hour', async (t) => {
  const timeline = new Timeline()
  timeline.note({ seq: 1n, bytes: 10, at: 0 })
  timeline.note({ seq: 2n, bytes: 20, at: 3_600_000 })
  t.equal(timeline.behind(1n, 3_600_500).seconds, 0.5)
})

t.test('timeline: what was there before is known at its ends', async (t) => {
  const timeline = new Timeline([
    { seq: 100n, bytes: -1000, at: 0 },
    { seq: 200n, bytes: 0, at: 10_000 },
  ])
  timeline.note({ seq: 201n, bytes: 70, at: 20_000 })
  t.equal(timeline.behind(150n, 20_000).bytes, 570)
  t.equal(timeline.behind(150n, 20_000).seconds, 15)
  t.equal(timeline.behind(200n, 21_000).seconds, 1)
  t.equal(timeline.behind(3n, 20_000).bytes, 1070, 'older than all that is known: all of it')
})

t.test('timeline: bounded, and no more than a step wrong however much was noted', async (t) => {
  const timeline = new Timeline()
  const count = TIMELINE_SPANS_MAX * 5
  for (let n = 1; n <= count; n += 1) {
    timeline.note({ seq: BigInt(n), bytes: n * 100, at: n * STEP })
  }
  const now = count * STEP
  for (const part of [0.01, 0.1, 0.5, 0.9, 0.999]) {
    const position = Math.floor(count * part)
    const { bytes, seconds } = timeline.behind(BigInt(position), now)
    const age = ((count - position) * STEP) / 1000
    t.equal(bytes, (count - position) * 100, 'equal changes at an equal pace: exact')
    t.ok(Math.abs(seconds - age) <= 0.05 * age + (2 * STEP) / 1000, `${seconds} for ${age}`)
  }
})
