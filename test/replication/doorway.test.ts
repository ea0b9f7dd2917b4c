import { EventEmitter } from 'node:events'
import t from 'tap'
import { REFUSALS_LOGGED_MAX } from '../../src/lib/limits.js'
import type { Logger } from '../../src/lib/log.js'
import { Doorway } from '../../src/replication/doorway.js'

class Visitor extends EventEmitter {
  readonly remoteAddress: string
  readonly remotePort: number
  destroyed = false

  constructor(remoteAddress: string, remotePort: number) {
    super()
    this.remoteAddress = remoteAddress
    this.remotePort = remotePort
  }

  destroy(): void {
    this.destroyed = true
    this.emit('close')
  }
}

function doorway() {
  const lines: string[] = []
  const log = { warn: (_about: unknown, text: string) => lines.push(text) } as unknown as Logger
  return { door: new Doorway(log, { max: 10 }), lines }
}

t.test('doorway: a crowd from one place keeps nobody else out', async (t) => {
  const { door } = doorway()
  const guest = new Visitor('192.0.2.1', 1)
  door.enter(guest)
  const crowd = Array.from({ length: 1000 }, (_, port) => new Visitor('198.51.100.7', port))
  for (const each of crowd) door.enter(each)
  t.equal(door.waiting, 10)
  t.notOk(guest.destroyed)
  t.equal(crowd.filter(({ destroyed }) => destroyed).length, 991)
  t.notOk(crowd.at(-1)?.destroyed, 'the oldest go first')
  const network = Array.from({ length: 100 }, (_, n) => new Visitor(`2001:db8:1:1::${n}`, n))
  for (const each of network) door.enter(each)
  t.notOk(guest.destroyed, 'nor one from all addresses of a network')
})

t.test('doorway: who has passed is not counted, nor who has left', async (t) => {
  const { door } = doorway()
  const known = Array.from({ length: 8 }, (_, port) => new Visitor('192.0.2.1', port))
  for (const each of known) {
    door.enter(each)
    door.pass(new Visitor(each.remoteAddress, each.remotePort))
  }
  t.equal(door.waiting, 0)
  const gone = new Visitor('192.0.2.2', 1)
  door.enter(gone)
  gone.destroy()
  t.equal(door.waiting, 0)
  for (let port = 0; port < 100; port += 1) door.enter(new Visitor('192.0.2.1', 100 + port))
  t.notOk(known.some(({ destroyed }) => destroyed))
})

t.test('doorway: refusals are told of, within bounds', async (t) => {
  const { door, lines } = doorway()
  for (let n = 0; n < 1000; n += 1) door.refused({ n })
  t.equal(lines.length, REFUSALS_LOGGED_MAX)
  await new Promise((resolve) => setTimeout(resolve, 1_100))
  t.same(lines.slice(REFUSALS_LOGGED_MAX), ['refused: as many more'])
  door.refused({})
  t.equal(lines.length, REFUSALS_LOGGED_MAX + 2)
})
