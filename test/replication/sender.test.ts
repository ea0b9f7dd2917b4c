import t from 'tap'
import { Sender } from '../../src/replication/sender.js'
import { NO_VERDICT } from '../../src/replication/verdict.js'
import { codeOf } from '../harness/code.js'

const CHAIN = Buffer.from('0102030405060708', 'hex')
const chainAt = (seq: bigint) => (seq === 50n ? CHAIN : undefined)
const welcome = (logged: { seq: number; chain: string } | null, baseline = false) =>
  ({
    type: 'welcome',
    protocol: 2,
    version: '0',
    host: 'there',
    logged,
    applied: 40,
    baseline,
    tree: true,
  }) as const
const ack = (logged: number, applied: number, since: number | null = null, baseline = false) =>
  ({
    type: 'ack',
    logged,
    applied,
    baseline,
    since,
    failure: null,
    needs: 0,
    verdict: NO_VERDICT,
  }) as const
const frame = (lastSeq: bigint, bytes: number) => ({ lastSeq, bytes: Buffer.alloc(bytes) })

t.test('sender: goes on where the replica is, if that is a place of the journal', async (t) => {
  const sender = new Sender({ window: 100 })
  const chain = CHAIN.toString('hex')
  const resume = { kind: 'resume', after: 50n, lost: null }
  t.same(sender.welcome(welcome({ seq: 50, chain }), chainAt), resume)
  t.same(sender.positions, { sent: 50n, logged: 50n, applied: 40n })
  t.match(sender.welcome(welcome({ seq: 51, chain }), chainAt), { kind: 'baseline' }, 'no place')
  const other = 'ffffffffffffffff'
  const fork = sender.welcome(welcome({ seq: 50, chain: other }), chainAt)
  t.match(fork, { kind: 'baseline', reason: /another way/ })
  t.match(sender.welcome(welcome(null), chainAt), { kind: 'baseline', reason: /nothing/ })
  t.same(sender.reset({ lastSeq: 50n, chain: CHAIN }), { seq: 50, chain })
  t.ok(sender.baseline)
})

t.test(
  'sender: what is acknowledged before the welcome was taken counts for nothing',
  async (t) => {
    const sender = new Sender({ window: 100 })
    sender.begin()
    sender.ack(ack(50, 40))
    sender.ack(ack(99, 99))
    t.same(sender.positions, { sent: 0n, logged: 0n, applied: 0n })
    sender.welcome(welcome({ seq: 50, chain: CHAIN.toString('hex') }), chainAt)
    t.same(sender.positions, { sent: 50n, logged: 50n, applied: 40n })
    sender.ack(ack(50, 50))
    t.same(sender.positions, { sent: 50n, logged: 50n, applied: 50n })
    t.equal(
      codeOf(() => sender.ack(ack(99, 50))),
      'PROTOCOL',
    )
  },
)

t.test('sender: at most a window is under way', async (t) => {
  const sender = new Sender({ window: 100 })
  sender.welcome(welcome({ seq: 50, chain: CHAIN.toString('hex') }), chainAt)
  sender.sentFrame(frame(60n, 60))
  t.ok(sender.hasRoom)
  sender.sentFrame(frame(70n, 60))
  t.notOk(sender.hasRoom)
  sender.ack(ack(65, 40))
  t.ok(sender.hasRoom, 'the first frame is logged')
  t.equal(sender.bytesUnderWay, 60)
  t.same(sender.positions, { sent: 70n, logged: 65n, applied: 40n })
  sender.ack(ack(70, 70))
  t.equal(sender.bytesUnderWay, 0)
})

t.test('sender: goes back to where something was lost, if it still can', async (t) => {
  const sender = new Sender({ window: 100 })
  const chain = CHAIN.toString('hex')
  sender.welcome(welcome({ seq: 50, chain }), chainAt)
  sender.sentFrame(frame(60n, 60))
  sender.sentFrame(frame(70n, 60))
  t.notOk(sender.hasRoom)
  const again = (seq: number, there = chain) =>
    sender.again({ type: 'again', logged: { seq, chain: there } }, chainAt)
  t.notOk(again(60), 'no place of the journal')
  t.notOk(again(50, 'ffffffffffffffff'), 'another way')
  t.notOk(sender.again({ type: 'again', logged: null }, chainAt), 'nowhere')
  t.equal(sender.positions.sent, 70n)
  t.ok(again(50))
  t.equal(sender.positions.sent, 50n)
  t.equal(sender.bytesUnderWay, 0)
})

t.test('sender: nobody is believed to have what they cannot have', async (t) => {
  const chain = CHAIN.toString('hex')
  const begin = () => {
    const sender = new Sender({ window: 100 })
    sender.welcome(welcome({ seq: 50, chain }), chainAt)
    sender.sentFrame(frame(60n, 60))
    sender.ack(ack(55, 52))
    return sender
  }
  const claims = { 'more than was sent': ack(61, 52), 'less than before': ack(54, 52) }
  for (const [what, claim] of Object.entries({ ...claims, 'not logged': ack(60, 61) })) {
    const sender = begin()
    t.equal(
      codeOf(() => sender.ack(claim)),
      'PROTOCOL',
      what,
    )
    t.same(sender.positions, { sent: 60n, logged: 55n, applied: 52n }, `${what}: nothing of it`)
  }
  const ahead = { ...welcome({ seq: 50, chain }), applied: 51 }
  t.match(begin().welcome(ahead, chainAt), { kind: 'baseline' }, 'a tree ahead of its log')
  t.equal(begin().positions.applied, 52n)
  t.match(begin().welcome(welcome({ seq: 50, chain }), chainAt), { kind: 'resume', lost: 55n })
})

t.test('sender: what was said before a reset does not count', async (t) => {
  const sender = new Sender({ window: 100 })
  sender.welcome(welcome({ seq: 40, chain: CHAIN.toString('hex') }), chainAt)
  sender.reset({ lastSeq: 50n, chain: CHAIN })
  sender.ack(ack(45, 45))
  t.same([sender.baseline, sender.positions.logged], [true, 50n], 'of the old log and tree')
  sender.sentFrame(frame(60n, 10))
  sender.ack(ack(60, 60, 50, true))
  t.same([sender.baseline, sender.positions.logged], [true, 60n], 'of the new ones')
  sender.ack(ack(60, 60, 50))
  t.same([sender.baseline, sender.positions.applied], [false, 60n], 'and whole')
})
