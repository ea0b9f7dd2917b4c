import t from 'tap'
import { Retry } from '../../src/replication/retry.js'

t.test('retry: the pause doubles up to its limit, and starts anew after success', async (t) => {
  const retry = new Retry({ minMs: 100, maxMs: 350 })
  t.ok(retry.isDue(0), 'nothing has failed')
  t.equal(retry.failed(1_000), 100)
  t.notOk(retry.isDue(1_099))
  t.ok(retry.isDue(1_100))
  t.equal(retry.failed(2_000), 200)
  t.equal(retry.failed(3_000), 350)
  t.equal(retry.failed(4_000), 350)
  retry.succeeded()
  t.ok(retry.isDue(4_000))
  t.equal(retry.failed(5_000), 100)
})
