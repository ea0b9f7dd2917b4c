/**
 * A program that keeps values in LMDB: `write FROM TO`; `die FROM TO`, which writes, goes on writing
 * further keys and kills itself; `verify COUNT`.
 */
import { createHash } from 'node:crypto'
import { open } from 'lmdb'

const [path = '', verb = '', ...numbers] = process.argv.slice(2)
const [first = 0, last = 0] = numbers.map(Number)

/** Of all sizes up to several pages. */
function value(key: number): Buffer {
  const seed = createHash('sha256').update(String(key)).digest()
  return Buffer.alloc((key * 37) % 20_000, seed)
}

const db = open<Buffer, number>({ path, encoding: 'binary', maxReaders: 32 })
if (verb === 'verify') {
  for (let key = 0; key < first; key += 1) {
    if (db.get(key)?.equals(value(key)) !== true) throw new Error(`key ${key} is wrong`)
  }
  console.log('whole')
} else {
  const puts: Promise<unknown>[] = []
  for (let key = first; key < last; key += 1) {
    puts.push(db.put(key, value(key)))
    if (key % 100 === 0) await db.committed
  }
  await Promise.all(puts)
  await db.flushed
  if (verb === 'die') {
    for (let key = 1_000_000; key < 1_002_000; key += 1) void db.put(key, value(key))
    setTimeout(() => process.kill(process.pid, 'SIGKILL'), 5)
    await db.committed
    await new Promise(() => setTimeout(() => {}, 1_000))
  }
}
await db.close()
