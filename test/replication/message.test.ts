import t from 'tap'
import { encodeMessage, type Message, MessageReader } from '../../src/replication/message.js'
import { codeOf } from '../harness/code.js'
import { Chance, chooseSeed } from '../harness/faults.js'

const FRAME = { type: 'frame', end: 9, authorised: 7 } as const

t.test('message: whole again however the stream was cut', async (t) => {
  const seed = chooseSeed()
  t.comment(`seed ${seed}`)
  const chance = new Chance(seed)
  for (let round = 0; round < 100; round += 1) {
    const bodies = Array.from({ length: 20 }, () => {
      const length = chance.pick([1, 7, 100, 5000, 70_000])
      return Buffer.alloc(length, chance.between(0, 255))
    })
    const pieces = bodies.flatMap((body) => [
      ...encodeMessage(FRAME, body),
      ...encodeMessage({ type: 'ping' }),
    ])
    const stream = Buffer.concat(pieces)
    const reader = new MessageReader()
    const read: Message[] = []
    for (let at = 0; at < stream.length; ) {
      const length = chance.pick([1, 3, 8, 1000, 65_536])
      for (const { header, body } of reader.push(stream.subarray(at, at + length))) {
        read.push({ header, body: Buffer.from(body) })
      }
      at += length
    }
    const frames = read.filter(({ header }) => header.type === 'frame')
    if (frames.length !== bodies.length || read.length !== 2 * bodies.length) {
      return void t.fail(`round ${round}: ${read.length} messages`)
    }
    if (!frames.every(({ body }, n) => body.equals(bodies[n] as Buffer))) {
      return void t.fail(`round ${round}: another body`)
    }
  }
  t.pass('100 rounds')
})

t.test('message: what is not understood ends the connection', async (t) => {
  const push = (bytes: Buffer) => codeOf(() => [...new MessageReader().push(bytes)])
  const raw = (json: string, total = 4 + json.length, header = json.length) => {
    const head = Buffer.alloc(8)
    head.writeUInt32LE(total, 0)
    head.writeUInt32LE(header, 4)
    return Buffer.concat([head, Buffer.from(json)])
  }
  t.equal(push(raw('{"type":"ping"}')), 'none')
  t.equal(push(raw('{"type":"pong"}')), 'PROTOCOL', 'an unknown type')
  t.equal(push(raw('{"type":"ping","more":1}')), 'PROTOCOL', 'an unknown field')
  t.equal(push(raw('{"type":"frame","end":-1,"authorised":0}')), 'PROTOCOL', 'out of range')
  t.equal(push(raw('not json')), 'PROTOCOL')
  t.equal(push(raw('{"type":"ping"}x', 20, 15)), 'PROTOCOL', 'a body where none belongs')
  t.equal(push(raw('', 0xffff_ffff, 10)), 'PROTOCOL', 'too long')
  t.equal(push(raw('', 100, 99_999)), 'PROTOCOL', 'too long a header')
  t.equal(push(raw('{}', 4, 2)), 'PROTOCOL', 'a header longer than the message')
  t.equal(push(Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n')), 'PROTOCOL', 'another protocol')
})

t.test('message: a limit of its own for whoever is not known yet', async (t) => {
  const [prefix = Buffer.alloc(0)] = encodeMessage(FRAME, Buffer.alloc(1_000_000))
  t.equal(
    codeOf(() => [...new MessageReader({ bytesMax: 10_000 }).push(prefix)]),
    'PROTOCOL',
    'refused by its prefix',
  )
  const reader = new MessageReader({ bytesMax: 10_000 })
  t.equal([...reader.push(Buffer.concat(encodeMessage({ type: 'ping' })))].length, 1)
  reader.bytesMax = 2_000_000
  t.same([...reader.push(prefix)], [])
  const before = process.memoryUsage().rss
  const piece = Buffer.alloc(1)
  for (let n = 1; n < 1_000_000; n += 1) if (reader.push(piece).next().done !== true) t.fail()
  const grown = process.memoryUsage().rss - before
  t.ok(grown < 64 << 20, `a megabyte, byte by byte: ${grown} bytes more`)
  t.equal([...reader.push(piece)][0]?.body.length, 1_000_000)
})
