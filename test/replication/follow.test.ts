/**
 * The replica is the side that connects: introduced in that direction, two of them at one listener,
 * strangers and askers for another's volume refused, and what was lost on the way asked for again.
 */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { Journal } from '../../src/journal/store.js'
import { HoldfastError } from '../../src/lib/errors.js'
import { silentLogger } from '../../src/lib/log.js'
import { formatUuid } from '../../src/record/frame.js'
import { Channel } from '../../src/replication/channel.js'
import { hostIdentity } from '../../src/replication/identity.js'
import type { Header } from '../../src/replication/message.js'
import { Peers } from '../../src/replication/peers.js'
import { ReplicaHost } from '../../src/replication/serve.js'
import { connectTls } from '../../src/replication/tls.js'
import { changeBase, fillBase, kill, until } from '../harness/faults.js'
import { type Host, makeHosts } from '../harness/hosts.js'
import { makeImage } from '../harness/image.js'
import { bash } from '../harness/run.js'
import { openSandbox } from '../harness/sandbox.js'
import { compareTrees } from '../harness/volume.js'

t.setTimeout(800_000)
const sandbox = await openSandbox(t)
const [primary, replica] = await makeHosts(sandbox)
const image = await makeImage(sandbox, { fs: 'xfs', mib: 4096 })
const dir = join(image.dir, 'data')
const root = join(image.dir, 'replicas')
const AT = `${primary.address}:7421`
const MOUNT = ['--ring', sandbox.rings, '--ring-size', '64M']

const status = async () => (await primary.status('data')).replicas
const hosted = (host: Host) => host.replicas()
const differences = async (tree: string) => {
  const waited = await primary.tryHoldfast('wait', 'data', '--timeout', '60s')
  if (waited.code !== 0) throw new Error(`${waited.stderr}\n${replica.log.slice(-3000)}`)
  return compareTrees(dir, tree)
}

await t.test('follow: introduced and connected from the replica', async (t) => {
  mkdirSync(dir)
  await fillBase(dir)
  await primary.holdfast('mount', dir, ...MOUNT)
  await changeBase(dir)
  // Nothing listens on the primary yet: the command that makes the token does.
  await replica.introduceTo(primary, AT)
  await replica.serveWithoutListening(root)
  const early = await replica.tryHoldfast('replica', 'follow', 'nobody', 'data')
  t.match(early.stderr, /no peer nobody/)
  const added = await primary.tryHoldfast('replicate', 'data', '--to', 'replica')
  t.equal(added.code, 0)
  await until(async () => (await status())[0]?.problem !== null, 'the primary to have no address')
  t.match((await status())[0]?.problem, { message: /replica has no address/ })
  await primary.holdfast('replicate', 'data', '--to', 'replica', '--listen', AT)
  t.match(await primary.holdfast('status', 'data'), /replica +replica listening/)
  await replica.holdfast('replica', 'follow', 'primary', 'data')
  t.equal(await differences(join(root, 'data', 'tree')), '')
  const list = await hosted(replica)
  t.match(list, {
    address: null,
    follows: [{ volume: 'data', connection: 'connected', problem: null }],
  })
  t.match(await replica.holdfast('replica', 'list'), /follows +data of primary: connected/)
})

await t.test('follow: again after deaths of both sides', async (t) => {
  const [{ pid }] = [await primary.status('data')]
  await kill(pid)
  await primary.holdfast('mount', 'data')
  await bash('echo more >more; rm -rf new/lot', { cwd: dir })
  t.equal(await differences(join(root, 'data', 'tree')), '', 'the primary died')
  await replica.stopServing('SIGKILL')
  await bash('echo still more >more', { cwd: dir })
  await replica.startAgain()
  t.equal(await differences(join(root, 'data', 'tree')), '', 'the replica died')
})

await t.test('follow: others at the same listener', async (t) => {
  const before = (await status())[0]?.connections ?? 0
  const identity = await hostIdentity(join(sandbox.root, 'stranger'))
  const { fingerprint } = await primary.json<{ fingerprint: string }>('peer', 'list')
  const FOLLOW = { type: 'follow', protocol: 2, version: '1', host: 'h', volume: 'data' } as const
  const peers = new Peers(join(primary.env.HOLDFAST_STATE_ROOT ?? '', '.host'))
  const ask = async (first: Header) => {
    const script = `
      import { connectTls } from '${new URL('../../src/replication/tls.js', import.meta.url)}'
      import { Channel } from '${new URL('../../src/replication/channel.js', import.meta.url)}'
      const [options, first] = JSON.parse(process.argv[1])
      const channel = new Channel(await connectTls(options), {
        onMessage: ({ header }) => { console.log(JSON.stringify(header)); process.exit(0) },
        onClose: (error) => { console.log(JSON.stringify({ closed: error.message })); process.exit(0) },
      })
      channel.send(first)`
    const given = JSON.stringify([{ address: AT, identity, fingerprint }, first])
    const args = ['--input-type=module', '-e', script, given]
    return JSON.parse(await replica.run(process.execPath, args)) as Header
  }
  t.match(await ask(FOLLOW), { type: 'refuse', code: 'PEER_UNKNOWN', message: /not know you/ })
  peers.add({ name: 'other', fingerprint: identity.fingerprint, address: null })
  const refused = { type: 'refuse', code: 'PEER_UNKNOWN', message: /no volume data for you/ }
  t.match(await ask(FOLLOW), refused, 'a peer that the volume was not given to')
  await primary.holdfast('replicate', 'data', '--to', 'other', '--listen', AT)
  t.match(await ask(FOLLOW), { type: 'hello', name: 'data' }, 'then it was')
  const another = { type: 'refuse', code: 'PEER_UNKNOWN', message: /no volume else for you/ }
  t.match(await ask({ ...FOLLOW, volume: 'else' }), another)
  t.match(await ask({ ...FOLLOW, protocol: 77 }), { type: 'refuse', code: 'PROTOCOL_VERSION' })
  t.match(await ask({ type: 'introduce', secret: 'x', name: 'y' }), {
    type: 'refuse',
    code: 'TOKEN',
  })
  t.match(await ask({ type: 'ping' }), { type: 'refuse', code: 'PROTOCOL' })
  await primary.holdfast('replicate', 'data', '--stop', 'other')
  t.match((await status())[0], { peer: 'replica', connection: 'connected' }, 'not disturbed')
  const { connections } = (await status())[0] ?? {}
  // One more where the machine was too busy for a ping; not one for each that was refused.
  t.ok((connections ?? 9) <= before + 1, `${connections} connections, ${before} before`)
})

await t.test('follow: removed, and stopped', async (t) => {
  await primary.holdfast('peer', 'remove', 'replica')
  await until(async () => (await hosted(replica)).follows[0]?.connection === 'refused', 'a refusal')
  t.match((await hosted(replica)).follows, [{ problem: { message: /not know you/ } }])
  await replica.holdfast('replica', 'follow', 'primary', 'data', '--stop')
  const again = await replica.tryHoldfast('replica', 'follow', 'primary', 'data', '--stop')
  t.equal(again.code, 3)
  t.match(again.stderr, /data of primary is not followed/)
  t.same((await hosted(replica)).follows, [])
  await primary.holdfast('unmount', 'data')
})

await t.test('follow: what was lost on the way is asked for again', async (t) => {
  const { host, speak, close } = await server(t)
  const journal = Journal.open({
    path: join(primary.env.HOLDFAST_STATE_ROOT ?? '', 'data', 'journal'),
    readOnly: true,
  })
  t.teardown(() => journal.close())
  const { uuid } = journal.meta()
  const frames = [...journal.frames()].map(({ bytes, lastSeq, chain, firstSeq }) => ({
    bytes: Buffer.from(bytes),
    lastSeq: Number(lastSeq),
    before: { seq: Number(firstSeq) - 1, chain: Buffer.from(bytes).toString('hex', 64, 72) },
    at: { seq: Number(lastSeq), chain: Buffer.from(chain).toString('hex') },
  }))
  const [first, second, third] = frames
  const last = frames.at(-1)
  if (first === undefined || second === undefined || third === undefined || last === undefined) {
    throw new Error('a journal of three frames was expected')
  }
  const { channel, heard } = await speak({
    type: 'hello',
    protocol: 2,
    version: '1',
    host: 'h',
    volume: formatUuid(uuid),
    name: 'data',
    epoch: 1,
    end: last.lastSeq,
  })
  const header = { type: 'frame', end: third.lastSeq, authorised: 0 } as const
  channel.send({ type: 'reset', at: first.before })
  channel.send(header, first.bytes)
  channel.send(header, third.bytes)
  await until(() => heard.some(({ type }) => type === 'again'), 'the gap to be noticed')
  const wants = () => heard.filter(({ type }) => type === 'again')
  t.same(wants(), [{ type: 'again', logged: first.at }], 'once')
  channel.send(header, second.bytes)
  channel.send(header, third.bytes)
  const logged = () => Number(host.replicas[0]?.state.logged?.seq)
  await until(() => logged() === third.lastSeq, 'what was sent again to be logged')
  t.equal(wants().length, 1)
  // There is more, and it does not come.
  channel.send({ type: 'advance', end: third.lastSeq + 5, authorised: 0 })
  await until(() => wants().length === 2, 'a standstill to be noticed')
  t.same(wants()[1], { type: 'again', logged: third.at })
  t.ok(channel.isOpen)
  await close()
})

/** A replica server in this process, and how to speak to it. */
async function server(t: Test) {
  const directory = t.testdir()
  const identity = await hostIdentity(join(directory, 'host'))
  const own = await hostIdentity(join(directory, 'own'))
  const peers = new Peers(join(directory, 'host'))
  peers.add({ name: 'own', fingerprint: own.fingerprint, address: null })
  const address = '127.0.0.1:17423'
  const log = silentLogger()
  const place = join(sandbox.root, 'in-process')
  const host = await ReplicaHost.start({
    listen: address,
    root: place,
    name: 's',
    identity,
    peers,
    log,
  })
  t.teardown(() => host.close())
  const speak = async (hello: Header) => {
    const { fingerprint } = identity
    const heard: Header[] = []
    const channel = new Channel(await connectTls({ address, identity: own, fingerprint }), {
      onMessage: (message) => heard.push(message.header),
      onClose: () => {},
    })
    t.teardown(() => channel.close(new HoldfastError('CONNECTION', 'done', { op: 'test' })))
    channel.send(hello)
    await until(() => heard.some(({ type }) => type === 'welcome'), 'a welcome')
    return { channel, heard }
  }
  const close = async () => {
    await sleep(10)
    await host.close()
  }
  return { host, speak, close }
}
