import t from 'tap'
import { BaselineProgress } from '../../src/daemon/baseline-progress.js'

const MIB = 2 ** 20
/** So much that the objects themselves hardly count. */
const total = { objects: 10, bytes: 1000 * MIB }

t.test('baseline: both the scan and the replica have to get there', async (t) => {
  const progress = new BaselineProgress(0)
  const half = { objects: 5, bytes: 500 * MIB }
  const counting = progress.update({
    scan: { ...half, total: null },
    captured: 500 * MIB,
    applied: 100 * MIB,
    now: 0,
  })
  t.match(counting, { percent: null, bytesTotal: null, secondsLeft: null })
  t.equal(counting.bytes, 100 * MIB)
  const later = progress.update({
    scan: { ...half, total },
    captured: 500 * MIB,
    applied: 250 * MIB,
    now: 1_000,
  })
  t.ok(Math.abs((later.percent ?? 0) - 25) < 0.1, 'half scanned, half of that applied')
  t.equal(later.bytesPerSecond, 150 * MIB)
  t.ok(Math.abs((later.secondsLeft ?? 0) - 5) < 0.1, 'what is left at that rate')
  const last = progress.update({
    scan: { ...total, total },
    captured: 1000 * MIB,
    applied: 1000 * MIB,
    now: 2_000,
  })
  t.equal(last.percent, 99.9, 'all of it is for the replica to say')
})

t.test('baseline: what was captured before it began does not count', async (t) => {
  const progress = new BaselineProgress(5000)
  const scan = { objects: 0, bytes: 100, total: { objects: 0, bytes: 200 } }
  const news = progress.update({ scan, captured: 5100, applied: 5000, now: 0 })
  t.equal(news.percent, 0)
})

t.test('baseline: live changes meanwhile do not make it go back for ever', async (t) => {
  const progress = new BaselineProgress(0)
  const scan = { objects: 4, bytes: 100 * MIB, total }
  progress.update({ scan, captured: 100 * MIB, applied: 100 * MIB, now: 0 })
  const back = progress.update({ scan, captured: 200 * MIB, applied: 100 * MIB, now: 1_000 })
  t.ok(back.bytesPerSecond >= 0)
  t.equal(back.secondsLeft, null, 'no rate, no promise')
  const on = progress.update({ scan, captured: 200 * MIB, applied: 200 * MIB, now: 2_000 })
  t.equal(on.bytesPerSecond, 50 * MIB)
})

t.test('baseline: what comes past the journal counts when the scan is over', async (t) => {
  const progress = new BaselineProgress(5000)
  const scan = { objects: 10, bytes: MIB, total: { objects: 10, bytes: 101 * MIB } }
  const news = { scan, captured: 5000, applied: 5000 }
  t.match(progress.update({ ...news, now: 0 }), { objects: 0, bytes: 0 })
  t.match(progress.update({ ...news, filled: 50 * MIB, now: 1_000 }), {
    objects: 10,
    bytes: 51 * MIB,
  })
})
