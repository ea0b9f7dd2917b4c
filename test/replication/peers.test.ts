import { existsSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { formatFingerprint, hostIdentity } from '../../src/replication/identity.js'
import { Peers, parseToken } from '../../src/replication/peers.js'
import { codeOf } from '../harness/code.js'
import { projectFile } from '../harness/files.js'
import { run } from '../harness/run.js'

const FINGERPRINT = 'ab'.repeat(32)

t.test('identity: made once, kept, for this host only', async (t) => {
  const directory = join(t.testdir(), '.host')
  const first = await hostIdentity(directory)
  t.same(await hostIdentity(directory), first)
  t.match(first.fingerprint, /^[0-9a-f]{64}$/)
  t.match(formatFingerprint(first.fingerprint), /^([0-9a-f]{4} ){15}[0-9a-f]{4}$/)
  t.equal(statSync(join(directory, 'key.pem')).mode & 0o777, 0o600)
  t.equal(statSync(directory).mode & 0o777, 0o700)
  t.not((await hostIdentity(t.testdir())).fingerprint, first.fingerprint)
})

t.test('peers: a token is good once', async (t) => {
  const peers = new Peers(t.testdir())
  const self = { name: 'here', address: '192.0.2.1:7420', fingerprint: FINGERPRINT }
  const token = parseToken(`  ${peers.invite(self)}\n`)
  t.match(token, self)
  t.notOk(peers.redeem('another'), 'a guess')
  t.ok(peers.redeem(token.secret))
  t.notOk(peers.redeem(token.secret), 'the second time')
  for (const text of ['', 'holdfast-', 'holdfast-e30', 'something', 'holdfast-????']) {
    t.equal(
      codeOf(() => parseToken(text)),
      'TOKEN',
    )
  }
})

t.test('peers: processes that change them at the same time lose nothing', async (t) => {
  const directory = t.testdir()
  const script = `
    import { Peers } from '${projectFile('dist/src/replication/peers.js')}'
    const peers = new Peers(process.argv[1])
    const self = { name: 'here', address: 'h:1', fingerprint: '${FINGERPRINT}' }
    for (let n = 0; n < 8; n += 1) peers.invite(self)`
  const node = () =>
    run(process.execPath, ['--input-type=module', '-e', script, directory]).catch(String)
  t.same(await Promise.all([node(), node(), node(), node()]), ['', '', '', ''])
  const { invitations } = JSON.parse(readFileSync(join(directory, 'peers.json'), 'utf8'))
  t.equal(invitations.length, 32)
})

t.test('peers: known by name and by fingerprint, until removed', async (t) => {
  const directory = t.testdir()
  const peers = new Peers(directory)
  t.same(peers.list(), [])
  t.notOk(existsSync(join(directory, 'peers.json')))
  peers.add({ name: 'one', fingerprint: FINGERPRINT, address: '192.0.2.1:7420' })
  t.match(peers.byFingerprint(FINGERPRINT), { name: 'one' })
  const other = { name: 'one', fingerprint: 'cd'.repeat(32), address: null }
  t.equal(
    codeOf(() => peers.add(other)),
    'PEER_EXISTS',
  )
  peers.add({ name: 'uno', fingerprint: FINGERPRINT, address: null })
  t.match(new Peers(directory).list(), [{ name: 'uno', address: '192.0.2.1:7420' }])
  t.equal(
    codeOf(() => peers.get('one')),
    'PEER_NOT_FOUND',
  )
  peers.remove('uno')
  t.equal(peers.byFingerprint(FINGERPRINT), undefined)
})

t.test('peers: reached by ssh, known by their address', async (t) => {
  const peers = new Peers(t.testdir())
  const ssh = { url: 'ssh://root@replica1/srv', config: null, program: 'holdfast', self: 'here' }
  peers.addSsh('one', ssh)
  t.match(peers.byUrl(ssh.url), { name: 'one', ssh })
  peers.addSsh('uno', { ...ssh, program: 'sudo holdfast' })
  t.match(peers.list(), [{ name: 'uno', ssh: { program: 'sudo holdfast' } }], 'the same peer')
  peers.add({ name: 'two', fingerprint: FINGERPRINT, address: null })
  const refused = (name: string, url: string) => codeOf(() => peers.addSsh(name, { ...ssh, url }))
  t.equal(refused('two', 'ssh://replica2'), 'PEER_EXISTS')
  t.equal(refused('three', 'replica3'), 'USAGE')
  t.equal(refused('no name', 'ssh://replica3'), 'USAGE')
  t.match(peers.byFingerprint(FINGERPRINT), { name: 'two' })
  t.equal(peers.list().length, 2)
})
