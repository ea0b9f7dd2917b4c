import t from 'tap'
import { BufferPool } from '../../src/lib/buffer-pool.js'

const KiB = 1024

t.test('buffer pool: memory that was given comes again, as long as it was asked for', async (t) => {
  const pool = new BufferPool({ bytesMax: 2048 * KiB })
  const first = pool.take(600 * KiB)
  t.equal(first.length, 600 * KiB)
  pool.give(first.buffer)
  const again = pool.take(513 * KiB)
  t.equal(again.buffer, first.buffer, 'of a length like it')
  t.equal(again.length, 513 * KiB)
  t.not(pool.take(600 * KiB).buffer, first.buffer, 'it is taken')
})

t.test('buffer pool: what has another owner, or is too much, is not kept', async (t) => {
  const pool = new BufferPool({ bytesMax: 256 * KiB })
  const large = pool.take(600 * KiB).buffer
  pool.give(large)
  t.not(pool.take(600 * KiB).buffer, large, 'more than the pool keeps')
  const small = pool.take(10)
  pool.give(small.buffer)
  t.not(pool.take(10).buffer, small.buffer, 'small ones have memory of their own')
  const moved = pool.take(100 * KiB).buffer
  structuredClone(moved, { transfer: [moved] })
  pool.give(moved)
  t.equal(pool.take(100 * KiB).length, 100 * KiB, 'given to another thread meanwhile')
})

t.test('buffer pool: what is taken now has its memory kept, whatever came before', async (t) => {
  const pool = new BufferPool({ bytesMax: 1100 * KiB })
  const before = [1, 2, 3, 4].map(() => pool.take(200 * KiB).buffer)
  pool.give(...before)
  const now = pool.take(500 * KiB).buffer
  pool.give(now)
  t.equal(pool.take(500 * KiB).buffer, now, 'memory of another size made room')
  t.ok(before.includes(pool.take(200 * KiB).buffer), 'no more of it than was needed')
  t.equal(pool.take(300 * KiB).length, 300 * KiB)
})

t.test('buffer pool: a copy is one', async (t) => {
  const pool = new BufferPool({ bytesMax: 0 })
  const bytes = Buffer.from('abc')
  const copy = pool.copy(bytes)
  bytes.fill(0)
  t.equal(copy.toString(), 'abc')
})
