/** The stream of a connection by TLS: both ends in this process, and what programs do to it. */
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { connect as connectPlain } from 'node:net'
import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect as connectNode, createServer, type TLSSocket } from 'node:tls'
import t, { type Test } from 'tap'
import { HoldfastError } from '../../src/lib/errors.js'
import { silentLogger } from '../../src/lib/log.js'
import { Channel } from '../../src/replication/channel.js'
import { Doorway } from '../../src/replication/doorway.js'
import { hostIdentity } from '../../src/replication/identity.js'
import type { Link } from '../../src/replication/link.js'
import type { Message } from '../../src/replication/message.js'
import { connectTls, listenTls } from '../../src/replication/tls.js'
import { until } from '../harness/faults.js'

const ADDRESS = '127.0.0.1:17421'
const MIB = 1 << 20

t.setTimeout(120_000)
const directory = t.testdir()
const own = await hostIdentity(`${directory}/client`)
const identity = await hostIdentity(`${directory}/server`)
const { fingerprint } = identity

/** A listener that keeps what comes. */
async function listen(t: Test) {
  const arrived: Link[] = []
  const refused: string[] = []
  const doorway = new Doorway(silentLogger())
  doorway.refused = ({ error }) => void refused.push(String(error))
  const server = await listenTls({
    address: ADDRESS,
    identity,
    doorway,
    onConnection: (link, from) => {
      t.equal(from, own.fingerprint)
      arrived.push(link)
    },
  })
  t.teardown(() => server.close())
  return { server, arrived, refused, doorway }
}

/** The two ends of one connection. */
async function pair(t: Test) {
  const { arrived, ...listening } = await listen(t)
  const client = await connectTls({ address: ADDRESS, identity: own, fingerprint })
  client.on('error', () => {})
  await until(() => arrived.length === 1, 'the connection')
  return { client, server: arrived[0] as Link, arrived, listening }
}

async function contents(stream: Duplex): Promise<Buffer> {
  const pieces: Buffer[] = []
  stream.on('data', (piece: Buffer) => pieces.push(piece))
  await once(stream, 'end')
  return Buffer.concat(pieces)
}

t.test('link: everything arrives, both ways, and then the end', async (t) => {
  const { client, server } = await pair(t)
  const [up, down] = [randomBytes(20 * MIB), randomBytes(9 * MIB)]
  for (let at = 0; at < up.length; at += 300_000) client.write(up.subarray(at, at + 300_000))
  server.write(down)
  client.end('the end')
  server.end()
  const [above, below] = await Promise.all([contents(server), contents(client)])
  t.ok(above.equals(Buffer.concat([up, Buffer.from('the end')])))
  t.ok(below.equals(down))
  await until(() => client.closed && server.closed, 'both to be closed')
  t.equal(client.remotePort, 17421)
  t.equal(server.remoteAddress, '127.0.0.1')
})

t.test('link: who does not read holds the other, and pieces are not mixed up', async (t) => {
  const { client, server } = await pair(t)
  server.pause()
  const much = randomBytes(64 * MIB)
  let taken = false
  t.equal(
    client.write(much, () => {
      taken = true
    }),
    false,
  )
  t.equal(client.writableLength, much.length)
  await sleep(300)
  t.notOk(taken)
  t.ok(server.readableLength <= MIB, `${server.readableLength} bytes wait here`)
  client.end()
  client.resume()
  const got: Buffer[] = []
  server.on('data', (piece: Buffer) => {
    got.push(Buffer.from(piece))
    // Back to paused, again and again.
    if (got.length % 50 === 0) {
      server.pause()
      setTimeout(() => server.resume(), 1)
    }
  })
  server.resume()
  await once(server, 'end')
  t.ok(taken)
  t.ok(Buffer.concat(got).equals(much))
})

t.test('link: frames of all sizes through channels, and a hand-over on the way', async (t) => {
  const { client, server } = await pair(t)
  const sizes = [1, 100, 5_000, 70_000, 129_000, 400_000, 2 * MIB]
  const bodies = Array.from({ length: 200 }, (_, n) => randomBytes(sizes[n % sizes.length] ?? 1))
  const got: Buffer[] = []
  const take = ({ body }: Message) => void got.push(Buffer.from(body))
  const onClose = () => {}
  const sender = new Channel(client, { onMessage: take, onClose })
  const first: Channel = new Channel(server, {
    onMessage: (message) => {
      take(message)
      // Another channel goes on with the stream.
      if (got.length === 1) new Channel(first.release(), { onMessage: take, onClose })
    },
    onClose,
  })
  for (const [end, body] of bodies.entries()) {
    sender.send({ type: 'frame', end, authorised: end }, body)
    if (end % 7 === 0) await sender.drained()
  }
  await until(() => got.length === bodies.length, 'all frames')
  t.ok(bodies.every((body, n) => body.equals(got[n] as Buffer)))
})

t.test('link: what was said last goes out, also when all is torn down', async (t) => {
  const { client, server, listening } = await pair(t)
  let said: Message | undefined
  let why: HoldfastError | undefined
  new Channel(client, {
    onMessage: (message) => {
      said = message
    },
    onClose: (error) => {
      why = error
    },
  })
  const channel = new Channel(server, { onMessage: () => {}, onClose: () => {} })
  channel.refuse(new HoldfastError('CONNECTION', 'it stops', { op: 'test' }))
  await listening.server.close()
  t.ok(server.closed, 'nothing is left when the server is closed')
  await until(() => why !== undefined, 'the end')
  t.match(said?.header, { type: 'refuse', message: 'it stops' })
  t.equal(why?.message, 'the peer closed the connection')
})

t.test('link: destroyed while it reads and writes', async (t) => {
  const { client, server } = await pair(t)
  server.pause()
  const failed: (Error | null | undefined)[] = []
  client.write(randomBytes(32 * MIB), (error) => failed.push(error))
  client.write('more', (error) => failed.push(error))
  client.resume()
  await sleep(50)
  const begun = performance.now()
  client.destroy()
  await once(client, 'close')
  t.ok(performance.now() - begun < 1_000)
  t.ok(failed.every((error) => error instanceof Error))
  server.resume()
  await Promise.race([once(server, 'end'), once(server, 'error')])
})

t.test('link: strangers of all kinds are refused and leave nothing behind', async (t) => {
  const { arrived, refused, doorway } = await listen(t)
  const [host = '', port = ''] = ADDRESS.split(':')
  const plain = connectPlain({ host, port: Number(port) }, () =>
    plain.write('GET / HTTP/1.1\r\n\r\n'),
  )
  plain.on('error', () => {}).resume()
  const nameless: TLSSocket = connectNode({ host, port: Number(port), rejectUnauthorized: false })
  nameless.on('error', () => {}).resume()
  await until(() => refused.length === 2, 'both to be refused')
  t.match(refused.sort(), [/no TLS handshake: .*no certificates/, /no TLS handshake: .*corrupt/])
  const gone = connectPlain({ host, port: Number(port) }, () => gone.destroy())
  await until(() => refused.length === 3, 'who hangs up')
  await until(() => doorway.waiting === 0, 'the doorway to be empty')
  t.equal(arrived.length, 0)
  const wrong = connectTls({ address: ADDRESS, identity: own, fingerprint: 'f'.repeat(64) })
  await t.rejects(wrong, { code: 'PEER_UNKNOWN', details: { found: fingerprint } })
  const nobody = connectTls({ address: '127.0.0.1:1', identity: own, fingerprint })
  await t.rejects(nobody, { code: 'CONNECTION', message: /cannot connect to .*ECONNREFUSED/ })
})

t.test('link: what has ended is gone, whenever the garbage is collected', async (t) => {
  const { doorway, arrived } = await listen(t)
  const ours = () => {
    const maps = readFileSync('/proc/self/maps', 'latin1').split('\n').length
    return { maps, descriptors: readdirSync('/proc/self/fd').length }
  }
  let before = ours()
  for (let n = 0; n < 150; n += 1) {
    const link = await connectTls({ address: ADDRESS, identity: own, fingerprint })
    link.destroy()
    await until(() => arrived.length === n + 1, 'the other end')
    arrived[n]?.destroy()
    if (n === 0) before = ours()
  }
  await until(() => doorway.waiting === 0, 'all to be gone')
  // A stack and its guard page for each thread, of which a link has two at either end.
  t.ok(ours().maps < before.maps + 100, `${before.maps} mappings, then ${ours().maps}`)
  t.ok(ours().descriptors < before.descriptors + 20, 'nor sockets')
})

t.test('link: Node speaks with it, as an older holdfast does', async (t) => {
  const { arrived } = await listen(t)
  const [host = '', port = ''] = ADDRESS.split(':')
  const about = { key: own.key, cert: own.certificate, rejectUnauthorized: false }
  const client = connectNode({ ...about, host, port: Number(port), minVersion: 'TLSv1.3' })
  client.write('hello')
  await until(() => arrived.length === 1, 'the connection')
  const server = arrived[0] as Link
  const body = randomBytes(3 * MIB)
  const [said] = (await once(server, 'data')) as [Buffer]
  t.equal(`${said}`, 'hello')
  server.end(body)
  t.ok((await contents(client)).equals(body))

  const node = createServer({
    key: identity.key,
    cert: identity.certificate,
    requestCert: true,
    rejectUnauthorized: false,
  })
  node.on('secureConnection', (socket) => socket.pipe(socket))
  await new Promise<void>((resolve) => node.listen(17422, '127.0.0.1', resolve))
  t.teardown(() => node.close())
  const link = await connectTls({ address: '127.0.0.1:17422', identity: own, fingerprint })
  link.end(body)
  t.ok((await contents(link)).equals(body), 'tickets are passed over')
})

t.test('link: a process, or a worker, that ends in the middle of it', async (t) => {
  const at = (name: string) =>
    JSON.stringify(new URL(`../../src/replication/${name}.js`, import.meta.url))
  const script = `
    import { isMainThread, Worker } from 'node:worker_threads'
    import { connectTls } from ${at('tls')}
    const options = ${JSON.stringify({ address: ADDRESS, identity: own, fingerprint })}
    if (process.argv[2] === 'worker' && isMainThread) {
      const worker = new Worker(new URL(import.meta.url), { argv: ['worker'] })
      worker.once('message', async () => { await worker.terminate(); console.log('done') })
    } else {
      const link = await connectTls(options)
      link.on('error', () => {}).resume()
      link.write(Buffer.alloc(32 << 20))
      setTimeout(async () => {
        if (isMainThread) { console.log('done'); process.exit(0) }
        else (await import('node:worker_threads')).parentPort.postMessage('now')
      }, 100)
    }`
  const file = `${t.testdir({ 'ends.mjs': script })}/ends.mjs`
  const { arrived } = await listen(t)
  for (const kind of ['process', 'worker']) {
    const child = spawn(process.execPath, [file, kind], { stdio: ['ignore', 'pipe', 'inherit'] })
    let said = ''
    child.stdout.on('data', (text) => {
      said += text
    })
    const [code] = await once(child, 'close')
    t.equal(code, 0, kind)
    t.equal(said, 'done\n')
  }
  t.equal(arrived.length, 2)
})
