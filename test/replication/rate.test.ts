import t from 'tap'
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
