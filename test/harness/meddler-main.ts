/**
 * The process of a meddler (meddler.ts): takes connections of the primary, makes one each to the
 * replica, and passes on what it has meddled with. Commands come on stdin, one JSON line each; what
 * it has done is said on stdout.
 */
import { connect as connectTcp, createServer as createTcpServer, type Socket } from 'node:net'
import { createInterface } from 'node:readline'
import type { Duplex } from 'node:stream'
import { connect as connectTls, TLSSocket } from 'node:tls'
import { encodeMessage, type Message, MessageReader } from '../../src/replication/message.js'
import { Chance } from './faults.js'
import type { MeddlerCommand, MeddlerEvent, MeddlerOptions } from './meddler.js'
import { type Direction, Tamperer } from './tamper.js'

const options = JSON.parse(process.argv[2] ?? '') as MeddlerOptions
const chance = new Chance(options.seed)
const tamperer = new Tamperer(chance, (fault) => say({ kind: 'fault', fault }))
let command: MeddlerCommand = { faults: [], every: 1, below: 0, hold: null }
const pumps = new Set<() => void>()

function say(event: MeddlerEvent): void {
  process.stdout.write(`${JSON.stringify(event)}\n`)
}

/** Passes on what `change` makes of each piece, no faster than it is taken. */
function pump(
  from: Duplex,
  to: Duplex,
  direction: Direction,
  change: (piece: Buffer) => Buffer[] | 'end',
): void {
  const go = () => {
    if (command.hold === direction || to.writableNeedDrain) from.pause()
    else from.resume()
  }
  pumps.add(go)
  to.on('drain', go)
  from.on('data', (piece: Buffer) => {
    const pieces = change(piece)
    if (pieces === 'end') {
      // What the stream has read already would come all the same.
      from.removeAllListeners('data')
      from.destroy()
      to.destroy()
      return
    }
    for (const each of pieces) to.write(each)
    go()
  })
  from.on('error', () => {})
  from.on('end', () => to.end())
  from.on('close', () => {
    pumps.delete(go)
    to.destroy()
  })
  go()
}

/** Inside of TLS: message by message. */
function inside(direction: Direction): (piece: Buffer) => Buffer[] | 'end' {
  const reader = new MessageReader()
  return (piece) => {
    const out: Buffer[] = []
    for (const message of reader.push(piece)) {
      const passed = { header: message.header, body: Buffer.from(message.body) }
      const changed = meddle(direction, passed)
      if (changed === 'end') return 'end'
      out.push(...changed)
    }
    return out
  }
}

function meddle(direction: Direction, message: Message): Buffer[] | 'end' {
  tamperer.record(message)
  const { faults, every } = command
  const due = faults.length > 0 && chance.between(1, every) === 1
  const changed = due ? tamperer.tamper(direction, message, faults) : undefined
  return changed ?? tamperer.release(direction, encodeMessage(message.header, message.body))
}

/** Below TLS: bytes. */
function below(): (piece: Buffer) => Buffer[] {
  let left = chance.between(2_000, 400_000)
  return (piece) => {
    left -= piece.length
    if (left > 0 || command.below === 0) return [piece]
    left = Number.POSITIVE_INFINITY
    const at = chance.between(0, piece.length - 1)
    const fault = chance.pick(['raw-flip', 'raw-lost', 'raw-twice'] as const)
    say({ kind: 'fault', fault })
    if (fault === 'raw-twice') return [piece, piece]
    if (fault === 'raw-lost') return [piece.subarray(0, at)]
    const flipped = Buffer.from(piece)
    flipped.writeUInt8(flipped.readUInt8(at) ^ (1 << chance.between(0, 7)), at)
    return [flipped]
  }
}

function accept(client: Socket): void {
  client.on('error', () => {})
  const { upstream, primary, replica } = options
  if (chance.next() < command.below) {
    const server = connectTcp(upstream)
    pump(client, server, 'up', below())
    pump(server, client, 'down', below())
    return
  }
  const secured = new TLSSocket(client, {
    isServer: true,
    key: replica.key,
    cert: replica.certificate,
    minVersion: 'TLSv1.3',
    requestCert: true,
    rejectUnauthorized: false,
  })
  const server = connectTls({
    ...upstream,
    key: primary.key,
    cert: primary.certificate,
    minVersion: 'TLSv1.3',
    rejectUnauthorized: false,
  })
  secured.setNoDelay(true)
  server.setNoDelay(true)
  pump(secured, server, 'up', inside('up'))
  pump(server, secured, 'down', inside('down'))
}

createInterface({ input: process.stdin }).on('line', (line) => {
  command = JSON.parse(line) as MeddlerCommand
  for (const go of pumps) go()
  say({ kind: 'obeyed' })
})
process.stdin.on('end', () => process.exit(0))
createTcpServer(accept).listen(options.listen, () => say({ kind: 'listening' }))
