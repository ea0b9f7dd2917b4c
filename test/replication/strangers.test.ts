/** Who is not let in, and that nobody else is disturbed by it. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { HoldfastError } from '../../src/lib/errors.js'
import { silentLogger } from '../../src/lib/log.js'
import { Channel } from '../../src/replication/channel.js'
import { hostIdentity, type Identity } from '../../src/replication/identity.js'
import type { Header } from '../../src/replication/message.js'
import { Peers } from '../../src/replication/peers.js'
import { ReplicaHost } from '../../src/replication/serve.js'
import { connectTls } from '../../src/replication/tls.js'
import { until } from '../harness/faults.js'
import { makeHosts } from '../harness/hosts.js'
import { makeImage } from '../harness/image.js'
import { openSandbox } from '../harness/sandbox.js'

t.setTimeout(600_000)
const sandbox = await openSandbox(t)
const ADDRESS = '127.0.0.1:17420'
const HELLO: Extract<Header, { type: 'hello' }> = {
  type: 'hello',
  protocol: 2,
  version: '0.1.0',
  host: 'h',
  volume: '0b3f9a34-7f0a-4a8e-9d57-2f6d3a2b1c00',
  name: 'data',
  epoch: 1,
  end: 0,
}

/** Why channels were closed. */
const reasons = new Map<Channel, string>()

/** A replica server in this process, and how to speak to it. */
async function server(t: Test) {
  const directory = t.testdir()
  const identity = await hostIdentity(join(directory, 'host'))
  const peers = new Peers(join(directory, 'host'))
  const root = join(sandbox.root, `root-${Date.now()}`)
  const host = await ReplicaHost.start({
    listen: ADDRESS,
    root,
    name: 'server',
    identity,
    peers,
    log: silentLogger(),
  })
  t.teardown(() => host.close())
  const address = ADDRESS
  const speak = async (who: string, header: Header) => {
    const own = await hostIdentity(join(directory, who))
    const socket = await connectTls({ address, identity: own, fingerprint: identity.fingerprint })
    return new Promise<{ answer: Header | undefined; channel: Channel }>((resolve) => {
      const channel: Channel = new Channel(socket, {
        onMessage: ({ header: answer }) => resolve({ answer, channel }),
        onClose: (error) => {
          reasons.set(channel, error.message)
          resolve({ answer: undefined, channel })
        },
      })
      channel.send(header)
    })
  }
  const known = async (who: string) => {
    const { fingerprint } = await hostIdentity(join(directory, who))
    return peers.add({ name: who, fingerprint, address: null })
  }
  return { host, peers, speak, known, address, identity }
}

// Before the first test: tap ends when nothing is left to do between two.
const [primary, replica] = await makeHosts(sandbox)
const image = await makeImage(sandbox, { fs: 'xfs', mib: 1024 })
const dir = join(image.dir, 'data')
mkdirSync(dir)
await primary.holdfast('mount', dir, '--ring', sandbox.rings, '--ring-size', '64M')
await replica.serve(join(image.dir, 'replicas'))
await primary.introduce(replica)
await primary.holdfast('replicate', 'data', '--to', 'replica')
await primary.holdfast('wait', 'data', '--timeout', '60s')

await t.test('strangers: refused by name, until they are introduced', async (t) => {
  const { peers, speak, address, identity } = await server(t)
  const first = await speak('mallory', HELLO)
  t.match(first.answer, { type: 'refuse', code: 'PEER_UNKNOWN' })
  const wrong = await speak('mallory', { type: 'introduce', secret: 'guess', name: 'mallory' })
  t.match(wrong.answer, { type: 'refuse', code: 'TOKEN' })
  const { name, fingerprint } = { name: 'server', fingerprint: identity.fingerprint }
  const token = peers.invite({ name, address, fingerprint })
  const json = Buffer.from(token.slice('holdfast-'.length), 'base64url').toString()
  const { secret } = JSON.parse(json) as { secret: string }
  const right = await speak('alice', { type: 'introduce', secret, name: 'alice' })
  t.match(right.answer, { type: 'introduced', name: 'server' })
  const welcome = await speak('alice', HELLO)
  t.match(welcome.answer, { type: 'welcome', logged: null, applied: 0 })
  welcome.channel.close(new HoldfastError('CONNECTION', 'done', { op: 'test' }))
})

await t.test('strangers: a peer reaches its own volumes only', async (t) => {
  const { speak, known, peers, host } = await server(t)
  await known('alice')
  await known('bob')
  const alice = await speak('alice', HELLO)
  t.match(alice.answer, { type: 'welcome' })
  const bob = await speak('bob', HELLO)
  t.match(bob.answer, { type: 'refuse', code: 'PEER_UNKNOWN' })
  t.match(
    (await speak('bob', { ...HELLO, volume: HELLO.volume.replace('00', '01'), name: '../up' }))
      .answer,
    { type: 'refuse', code: 'PEER_REFUSED' },
  )
  t.match((await speak('alice', { ...HELLO, protocol: 3, version: '9.9' })).answer, {
    type: 'refuse',
    code: 'PROTOCOL_VERSION',
    message: /protocol 3 of holdfast 9\.9 there, protocol 2/,
  })
  t.equal(reasons.get(alice.channel), undefined, 'alice was not disturbed')
  t.equal(host.replicas.length, 1)
  peers.remove('alice')
  await until(() => !alice.channel.isOpen, 'a removed peer to be cut off')
})

await t.test('strangers: plain text, garbage and silence', async (t) => {
  const { speak, known, address } = await server(t)
  await known('alice')
  const alice = await speak('alice', HELLO)
  const [host = '', port = ''] = address.split(':')
  const ended = (bytes: Buffer) =>
    new Promise<number>((resolve) => {
      const begun = Date.now()
      const socket = connect({ host, port: Number(port) }, () => socket.write(bytes))
      socket.on('error', () => {})
      socket.on('close', () => resolve(Date.now() - begun))
      socket.resume()
    })
  const times = await Promise.all([
    ended(Buffer.from('GET / HTTP/1.1\r\n\r\n')),
    ended(Buffer.alloc(100_000, 0x5a)),
    ended(Buffer.alloc(0)),
    ended(Buffer.of(0x16, 0x03)),
  ])
  t.ok(Math.max(...times) < 9_000, `all were ended: ${times.join(', ')} ms`)
  t.equal(reasons.get(alice.channel), undefined, 'alice was not disturbed')
})

await t.test('strangers: slow, after the handshake and in it', async (t) => {
  const { speak, known, address, identity } = await server(t)
  await known('alice')
  const alice = await speak('alice', HELLO)
  const directory = join(sandbox.root, 'stranger')
  const begin = async (own: Identity, bytes: Buffer, everyMs: number) => {
    const begun = Date.now()
    const socket = await connectTls({ address, identity: own, fingerprint: identity.fingerprint })
    const timer = setInterval(() => socket.write('x'), everyMs)
    socket.on('error', () => {})
    socket.resume()
    socket.write(bytes)
    await new Promise((resolve) => socket.once('close', resolve))
    clearInterval(timer)
    return Date.now() - begun
  }
  const prefix = (bytes: number) => {
    const head = Buffer.alloc(8)
    head.writeUInt32LE(bytes, 0)
    head.writeUInt32LE(100, 4)
    return head
  }
  const stranger = await hostIdentity(directory)
  const dripping = async () => {
    const begun = Date.now()
    const [host = '', port = ''] = address.split(':')
    const socket = connect({ host, port: Number(port) })
    const hello = Buffer.from('16030102000100', 'hex')
    let at = 0
    const timer = setInterval(() => socket.write(hello.subarray(at, ++at)), 100)
    socket.on('error', () => {})
    await new Promise((resolve) => socket.once('close', resolve))
    clearInterval(timer)
    return Date.now() - begun
  }
  const [large, small, drip] = await Promise.all([
    begin(stranger, prefix(8_000_000), 100),
    begin(stranger, prefix(5_000), 100),
    dripping(),
  ])
  t.ok(large < 4_500, `more than a stranger may say: ${large} ms`)
  t.ok(small < 12_000, `a message that never ends: ${small} ms`)
  t.ok(drip < 12_000, `a handshake byte by byte: ${drip} ms`)
  t.equal(reasons.get(alice.channel), undefined, 'alice was not disturbed')
})

await t.test('strangers: a crowd', async (t) => {
  // As many as it can, all the time, from the same host as the server.
  const script = `let made = 0, closed = 0
    const one = () => { const s = require('net').connect(${replica.port}, '${replica.address}')
      s.on('connect', () => { made += 1; s.write(Buffer.of(0x16, 3, 1)) })
      s.on('error', () => {}); s.on('close', () => { closed += 1; setTimeout(one, 1000) }) }
    for (let n = 0; n < 1500; n += 1) one()
    setInterval(() => console.log(made, closed), 100)`
  const crowd = replica.start(process.execPath, ['-e', script])
  t.teardown(() => crowd.kill('SIGKILL'))
  let said = ''
  crowd.stdout?.setEncoding('utf8').on('data', (text: string) => {
    said = text
  })
  await until(() => Number(said.split(' ')[0]) > 1_500, 'the crowd')
  for (let n = 0; n < 3; n += 1) {
    writeFileSync(join(dir, `in-the-crowd-${n}`), 'x')
    await primary.holdfast('wait', 'data', '--timeout', '20s')
  }
  const shown = async () => (await primary.status('data')).replicas[0]
  t.equal((await shown())?.connections, 1, 'the replica goes on over the same connection')
  await replica.setLink('down')
  await until(async () => (await shown())?.connection !== 'connected', 'the cut to be noticed')
  await replica.setLink('up')
  writeFileSync(join(dir, 'again'), 'x')
  await primary.holdfast('wait', 'data', '--timeout', '40s')
  t.equal((await shown())?.connections, 2, 'and gets in again')
  const [made = 0, closed = 0] = said.trim().split('\n').at(-1)?.split(' ').map(Number) ?? []
  t.ok(closed > 1_000, `${made} connections were made, ${closed} were closed`)
  crowd.kill('SIGKILL')
  const refusals = replica.log.split('\n').filter((line) => line.includes('refused'))
  t.match(refusals.join('\n'), /refused: as many more/)
  t.ok(refusals.length < closed, `${refusals.length} lines of the log tell of it`)
  const peak = await replica.run('grep', ['RssAnon', `/proc/${replica.serverPid}/status`])
  const [, kib = '0'] = /(\d+) kB/.exec(peak) ?? []
  t.ok(Number(kib) < 400_000, `the server has ${kib} KiB`)
})

await t.test('strangers: a removed peer stops being replicated to', async (t) => {
  await replica.holdfast('peer', 'remove', 'primary')
  await until(async () => {
    const { replicas } = await primary.status('data')
    return replicas[0]?.connection === 'refused'
  }, 'the primary to be refused')
  await sleep(100)
  const { replicas } = await primary.status('data')
  t.match(replicas, [{ problem: { code: 'PEER_REFUSED', message: /does not know you/ } }])
  t.match((await replica.replicas()).replicas, [{ connected: false }])
  await primary.holdfast('unmount', 'data')
})
