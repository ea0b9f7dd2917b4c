/** Who is not let in, and that nobody else is disturbed by it. */
import { mkdirSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import type { HostStatus } from '../../src/daemon/replica-host.js'
import type { Status } from '../../src/daemon/status.js'
import { HoldfastError } from '../../src/lib/errors.js'
import { silentLogger } from '../../src/lib/log.js'
import { Channel } from '../../src/replication/channel.js'
import { hostIdentity } from '../../src/replication/identity.js'
import type { Header } from '../../src/replication/message.js'
import { Peers } from '../../src/replication/peers.js'
import { ReplicaHost } from '../../src/replication/serve.js'
import { connectTls } from '../../src/replication/tls.js'
import { until } from '../harness/faults.js'
import { makeHosts } from '../harness/hosts.js'
import { makeImage } from '../harness/image.js'
import { openSandbox } from '../harness/sandbox.js'

t.setTimeout(180_000)
const sandbox = await openSandbox(t)
const ADDRESS = '127.0.0.1:17420'
const HELLO: Extract<Header, { type: 'hello' }> = {
  type: 'hello',
  protocol: 1,
  version: '0.1.0',
  host: 'h',
  volume: '0b3f9a34-7f0a-4a8e-9d57-2f6d3a2b1c00',
  name: 'data',
  epoch: 1,
  end: 0,
}

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
        onClose: () => resolve({ answer: undefined, channel }),
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
  t.match((await speak('alice', { ...HELLO, protocol: 2, version: '9.9' })).answer, {
    type: 'refuse',
    code: 'PROTOCOL_VERSION',
    message: /protocol 2 of holdfast 9\.9 there, protocol 1/,
  })
  t.ok(alice.channel.isOpen, 'alice was not disturbed')
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
  t.ok(alice.channel.isOpen, 'alice was not disturbed')
})

await t.test('strangers: a removed peer stops being replicated to', async (t) => {
  const [primary, replica] = await makeHosts(sandbox)
  const image = await makeImage(sandbox, { fs: 'xfs', mib: 1024 })
  const dir = join(image.dir, 'data')
  mkdirSync(dir)
  await primary.holdfast('mount', dir, '--ring', sandbox.rings, '--ring-size', '64M')
  await replica.serve(join(image.dir, 'replicas'))
  await primary.introduce(replica)
  await primary.holdfast('replicate', 'data', '--to', 'replica')
  await primary.holdfast('wait', 'data')
  await replica.holdfast('peer', 'remove', 'primary')
  await until(async () => {
    const { replicas } = await primary.json<Status>('status', 'data')
    return replicas[0]?.connection === 'refused'
  }, 'the primary to be refused')
  await sleep(100)
  const { replicas } = await primary.json<Status>('status', 'data')
  t.match(replicas, [{ problem: { code: 'PEER_REFUSED', message: /does not know you/ } }])
  t.match((await replica.json<HostStatus>('replica', 'list')).replicas, [{ connected: false }])
  await primary.holdfast('unmount', 'data')
})
