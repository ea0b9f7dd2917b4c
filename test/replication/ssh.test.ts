/**
 * Replication over ssh, with a real sshd: what a person is told when it does not work, equal trees
 * when it does, and no process left behind by cut links and deaths on either side.
 */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { parseSshUrl, sshArguments } from '../../src/replication/ssh.js'
import { codeOf } from '../harness/code.js'
import {
  Chance,
  changeBase,
  chooseSeed,
  fillBase,
  kill,
  setting,
  until,
} from '../harness/faults.js'
import { HOLDFAST } from '../harness/files.js'
import { lastLogs, makeHosts } from '../harness/hosts.js'
import { makeImage } from '../harness/image.js'
import { bash } from '../harness/run.js'
import { openSandbox } from '../harness/sandbox.js'
import { Sshd } from '../harness/ssh.js'
import { compareTrees } from '../harness/volume.js'

const ROUNDS = setting('HOLDFAST_ROUNDS', 2)
const seed = chooseSeed()
t.setTimeout(800_000 + ROUNDS * 60_000)
t.comment(`seed ${seed}, ${ROUNDS} rounds: HOLDFAST_SEED=${seed} HOLDFAST_ROUNDS=${ROUNDS}`)

await t.test('ssh: addresses and arguments', async (t) => {
  const given = 'ssh://root@[2001:db8::7]:2222/srv/re plicas'
  t.match(parseSshUrl(given), { user: 'root', host: '2001:db8::7', port: 2222 })
  t.equal(parseSshUrl('ssh://host/').root, undefined)
  for (const url of [
    'ssh://',
    'ssh://-oProxyCommand=x',
    'ssh://-l@host',
    'ssh://h:0',
    'ssh://h:99999',
    'host',
  ]) {
    t.equal(
      codeOf(() => parseSshUrl(url)),
      'USAGE',
      url,
    )
  }
  const args = sshArguments({ url: given, config: null, program: 'sudo holdfast', self: "o'clock" })
  t.same(args.slice(-3), [
    '--',
    '2001:db8::7',
    `sudo holdfast replica serve --stdio --as 'o'\\''clock' --root '/srv/re plicas'`,
  ])
  t.ok(args.includes('BatchMode=yes'))
})

const sandbox = await openSandbox(t)
const [primary, replica] = await makeHosts(sandbox)
const image = await makeImage(sandbox, { fs: 'xfs', mib: 4096 })
const dir = join(image.dir, 'data')
const root = join(image.dir, 'replicas')
const tree = join(root, 'data', 'tree')
const sshd = await Sshd.start(sandbox, replica)
const url = `ssh://${replica.address}${root}`
const CONFIG = ['--ssh-config', sshd.at('config')]
const NAMED = ['--name', 'r', '--as', 'primary', ...CONFIG]

const status = async () => (await primary.status('data')).replicas[0]
const differences = async () => {
  const waited = await primary.tryHoldfast('wait', 'data', '--timeout', '60s')
  if (waited.code !== 0) {
    throw new Error(`${waited.stderr}\n${lastLogs('data', primary, [replica])}`)
  }
  return compareTrees(dir, tree)
}
const noEnds = () => until(async () => (await sshd.ends()).length === 0, 'no process to be left')

await t.test('ssh: what a person is told', async (t) => {
  const add = (address: string, ...args: string[]) =>
    primary.tryHoldfast('peer', 'add', address, ...args)
  const unknown = await add(url, '--ssh-config', sshd.at('config-unknown'))
  t.equal(unknown.code, 1)
  t.match(unknown.stderr, /ssh to 198\.18\.0\.2 failed: .*Host key verification failed/)
  t.match(unknown.stderr, /Try it as root on this host: ssh -F .* 198\.18\.0\.2 true/)
  const stranger = await add(url, '--ssh-config', sshd.at('config-stranger'))
  t.match(stranger.stderr, /ssh to 198\.18\.0\.2 failed: .*Permission denied/)
  const nobody = await add('ssh://198.18.0.77', ...CONFIG)
  t.match(nobody.stderr, /ssh to 198\.18\.0\.77 failed: .*(No route|timed out)/)
  const missing = await add(url, ...CONFIG, '--program', 'holdfest')
  t.match(missing.stderr, /198\.18\.0\.2 has no holdfest to run: .*holdfest: command not found/)
  const noisy = await add(url, ...CONFIG, '--program', 'echo Welcome!; holdfast')
  t.match(noisy.stderr, /says "Welcome!" before holdfast does.*\n.*must print nothing/)
  sshd.program('newer', `echo 'HOLDFAST-STDIO {"protocol":9,"version":"9.1","host":"r"}'; cat`)
  const newer = await add(url, ...CONFIG, '--program', 'newer')
  t.equal(newer.code, 4)
  t.match(newer.stderr, /protocol 9 of holdfast 9\.1 there, protocol \d+ of holdfast \S+ here/)
  sshd.program('older', `echo "error: unknown option '--stdio'" >&2; exit 2`)
  const older = await add(url, ...CONFIG, '--program', 'older')
  t.match(older.stderr, /holdfast on 198\.18\.0\.2 ended with 2: error: unknown option '--stdio'/)
  const bare = [`PATH=${sandbox.root}`, process.execPath, HOLDFAST, 'peer', 'add', url]
  t.match((await primary.attempt('env', bare)).stderr, /there is no ssh on this host/)
  t.match((await add('ssh://-oProxyCommand=x')).stderr, /is no address for ssh/)
  t.same((await primary.json<{ peers: unknown[] }>('peer', 'list')).peers, [], 'none was recorded')
  await noEnds()
})

await t.test('ssh: replicated, without a server there', async (t) => {
  mkdirSync(dir)
  await fillBase(dir)
  await primary.holdfast('mount', dir, '--ring', sandbox.rings, '--ring-size', '64M')
  await changeBase(dir)
  const said = await primary.holdfast('replicate', 'data', '--to', url, ...NAMED)
  t.match(said, /data is shipped to r, async/)
  t.equal(await differences(), '')
  t.match(await primary.holdfast('peer', 'list'), /r +ssh:\/\/198\.18\.0\.2\S+ +known to ssh/)
  const hosted = await replica.replicas()
  t.match(hosted, { address: null, root, replicas: [{ name: 'data', connected: true }] })
  t.same(await sshd.ends(), [hosted.pid], 'the end of ssh keeps them')
  const second = await replica.tryHoldfast('replica', 'serve', '--root', root)
  t.equal(second.code, 4)
  t.match(second.stderr, new RegExp(`served by process ${hosted.pid} \\(started over ssh\\)`))
  const elsewhere = await primary.tryHoldfast(
    'peer',
    'add',
    `ssh://${replica.address}/other`,
    ...CONFIG,
  )
  t.match(elsewhere.stderr, new RegExp(`keeps its replicas in ${root}`))
})

await t.test('ssh: cut links and deaths on both sides', async (t) => {
  const chance = new Chance(seed)
  for (let round = 1; round <= ROUNDS; round += 1) {
    const what = (['replica', 'primary', 'link'] as const)[(round - 1) % 3]
    const writing = bash(`for i in $(seq 200); do echo ${round}-$i >f$((i % 17)); done || true`, {
      cwd: dir,
    })
    await sleep(chance.between(0, 200))
    if (what === 'replica') {
      for (const pid of await sshd.ends()) await kill(pid)
    } else if (what === 'primary') {
      await kill((await primary.status('data')).pid)
      await writing
      await noEnds()
      await primary.holdfast('mount', 'data')
    } else {
      await replica.setLink('down')
      await until(async () => (await status())?.connection !== 'connected', 'the cut to be noticed')
      await replica.setLink('up')
    }
    await writing
    writeFileSync(join(dir, 'last'), `${round}`)
    const differs = await differences()
    if (differs !== '') return void t.fail(`round ${round}: ${what}: ${differs}`)
    await until(async () => (await sshd.ends()).length === 1, 'one process to be left')
  }
  t.pass(`${ROUNDS} rounds`)
})

await t.test('ssh: handed over to the server that runs there', async (t) => {
  await primary.holdfast('replicate', 'data', '--stop', 'r')
  await noEnds()
  await replica.serve(root)
  await bash('echo handed >over; rm -rf new', { cwd: dir })
  await primary.holdfast('replicate', 'data', '--to', 'r')
  t.equal(await differences(), '')
  const { replicas, address } = await replica.replicas()
  t.match(replicas, [{ name: 'data', connected: true, primary: 'primary' }])
  t.ok(address, 'by the server')
  await replica.stopServing('SIGKILL')
  await until(async () => (await status())?.connection !== 'connected', 'the death to be noticed')
  await bash('echo again >over', { cwd: dir })
  t.equal(await differences(), '', 'the end of ssh takes over')
  await primary.holdfast('replicate', 'data', '--stop', 'r')
  await noEnds()
})

await t.test('ssh: a key that may do nothing else has a name of its own', async (t) => {
  const command = `holdfast replica serve --stdio --as restricted --root ${root}`
  const key = readFileSync(sshd.at('stranger.pub'), 'utf8').trim()
  sshd.authorize(`restrict,command="${command}" ${key}`)
  const config = ['--ssh-config', sshd.at('config-stranger')]
  // Another address of the same host: another peer.
  const other = `ssh://root@${replica.address}`
  await primary.holdfast('replicate', 'data', '--to', other, '--name', 'other', ...config)
  await until(async () => (await status())?.problem?.code === 'PEER_REFUSED', 'a refusal', 60_000)
  t.match((await status())?.problem, { message: /is not this peer's/ })
  t.same(
    readdirSync(root).filter((name) => !name.startsWith('.')),
    ['data'],
  )
  await primary.holdfast('unmount', 'data')
  await noEnds()
  await sshd.stop()
})
