import t from 'tap'
import { LagMeter } from '../../src/replication/lag.js'
import { RateLimit } from '../../src/replication/rate.js'

t.test('rate: what is sent in the long run is what is allowed', async (t) => {
  let now = 0
  const rate = new RateLimit(1_000_000, () => now)
  let sent = 0
  const frames = [1_000, 500_000, 20, 70_000, 1_048_576]
  while (now < 60_000) {
    const pause = rate.pauseMs
    if (pause > 0) now += Math.min(pause, 200)
    else {
      const bytes = frames[sent % frames.length] ?? 1
      rate.spend(bytes)
      sent += bytes
    }
  }
  t.ok(Math.abs(sent - 60_000_000) < 1_200_000, `${sent} bytes in a minute`)
  now += 3_600_000
  t.equal(rate.pauseMs, 0)
  let burst = 0
  while (rate.pauseMs === 0) {
    rate.spend(10_000)
    burst += 10_000
  }
  t.ok(burst <= 120_000, `after a rest ${burst} bytes at once`)
})

t.test('lag: bytes and age of what lies behind a place', async (t) => {
  const meter = new LagMeter((records) => Number(records) * 100)
  meter.sample(10n, 1_000n, 1_000)
  meter.sample(10n, 1_000n, 9_000)
  meter.sample(20n, 5_000n, 9_100)
  meter.sample(30n, 6_000n, 9_200)
  t.same(meter.behind(30n, 9_300), { bytes: 0, ms: 0 })
  t.same(meter.behind(10n, 9_300), { bytes: 5_000, ms: 300 }, 'since it was last seen idle')
  t.same(meter.behind(20n, 9_300), { bytes: 1_000, ms: 200 })
  t.same(meter.behind(25n, 9_300), { bytes: 1_000, ms: 200 }, 'never less than the truth')
  t.same(meter.behind(5n, 9_300), { bytes: 5_500, ms: 8_300 }, 'before the first sample')
  t.equal(meter.capturedAt(9_150), 20n)
  t.equal(meter.capturedAt(1), 0n)
  for (let n = 31; n < 50_000; n += 1) meter.sample(BigInt(n), BigInt(n * 1_000), 10_000 + n)
  const { bytes, ms } = meter.behind(20n, 60_000)
  t.ok(bytes >= 49_999_000 - 6_000 && bytes <= 49_999_000 - 5_000, `${bytes} after many samples`)
  t.ok(ms >= 50_000 && ms < 51_000, `${ms} ms`)
})
