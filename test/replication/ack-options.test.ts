import t from 'tap'
import {
  AckPathsSchema,
  formatAckAt,
  parseAckAt,
  parseAckPath,
} from '../../src/replication/ack-options.js'
import { codeOf } from '../harness/code.js'

t.test('ack options: paths are bytes below the root', async (t) => {
  t.same(parseAckPath('/ledger=sync-log'), { path: '/ledger', ack: 'sync-log' })
  t.same(parseAckPath('/a/b=c/=async'), { path: '/a/b=c', ack: 'async' }, 'the last = counts')
  t.same(parseAckPath('/caf\\351=sync-apply').path, '/caf\\351', 'bytes that are no UTF-8')
  t.same(parseAckPath('/..a/...=async').path, '/..a/...')
  for (const text of [
    '/=async',
    'ledger=async',
    '/a/../b=async',
    '/a/./b=async',
    '/a//b=async',
    '/ledger',
    '/ledger=sync',
    '=async',
    '/a\\000b=async',
  ]) {
    t.equal(
      codeOf(() => parseAckPath(text)),
      'USAGE',
      text,
    )
  }
  const twice = [parseAckPath('/a=async'), parseAckPath('/a/=sync-log')]
  t.notOk(AckPathsSchema.safeParse(twice).success, 'one path twice')
  t.notOk(AckPathsSchema.safeParse([{ path: '/a/', ack: 'async' }]).success, 'one way to write it')
})

t.test('ack options: points', async (t) => {
  t.same(parseAckAt('durability'), [])
  t.same(parseAckAt('close, rename'), ['rename', 'close'])
  t.same(parseAckAt('every-op'), ['every-op'])
  t.equal(
    codeOf(() => parseAckAt('durability,write')),
    'USAGE',
  )
  t.equal(formatAckAt(parseAckAt('durability,close')), 'durability, close')
  t.equal(formatAckAt(['every-op']), 'every-op')
})
