/**
 * A link that is slow: passes TCP connections on, byte for byte and in order, and later than they came.
 * `slow-link-main LISTEN-PORT TO-PORT HOST THERE-MS BACK-MS JITTER-MS`; says `listening`. Both ways
 * differ, as links do that are lopsided.
 */
import { connect, createServer, type Socket } from 'node:net'

const [listen, to, host = '', there, back, jitter] = process.argv.slice(2)

/** Passes on what comes, each piece a while after it came, and none before the one before it. */
function delay(from: Socket, into: Socket, ms: number): void {
  let free = 0
  const later = (act: () => void) => {
    free = Math.max(free, performance.now() + ms + Math.random() * Number(jitter))
    setTimeout(act, free - performance.now())
  }
  from.on('data', (piece) => later(() => into.write(piece)))
  from.on('end', () => later(() => into.end()))
  from.on('close', () => later(() => into.destroy()))
  from.on('error', () => {})
}

createServer((socket) => {
  const upstream = connect(Number(to), host)
  for (const each of [socket, upstream]) each.setNoDelay(true)
  delay(socket, upstream, Number(there))
  delay(upstream, socket, Number(back))
}).listen(Number(listen), host, () => process.stdout.write('listening\n'))
