/**
 * Comparison, repair and resync of a replica: whatever is done to its tree behind its back is found,
 * named and mended, while applications go on; what differs, and little more, is sent.
 */
import {
  chmodSync,
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { ReplicaStatus } from '../../src/daemon/replica-status.js'
import type { VerifyProgress } from '../../src/daemon/verification.js'
import {
  Chance,
  changeBase,
  chooseSeed,
  fillBase,
  kill,
  Load,
  setting,
  until,
} from '../harness/faults.js'
import { lastLogs, makeHosts } from '../harness/hosts.js'
import { makeImage } from '../harness/image.js'
import { run } from '../harness/run.js'
import { openSandbox } from '../harness/sandbox.js'
import { compareTrees } from '../harness/volume.js'

const WAIT = ['--timeout', '60s']
/** A silent connection is noticed in 10 s, and the next one may take 15 s to be tried. */
const SHOWS_MS = 60_000
const DIFFERS = 5
const ROUNDS_CI = 2

const rounds = setting('HOLDFAST_ROUNDS', ROUNDS_CI)
const seed = chooseSeed()
t.setTimeout(480_000 + rounds * 60_000)
t.comment(`seed ${seed}, ${rounds} rounds: HOLDFAST_SEED=${seed} HOLDFAST_ROUNDS=${rounds}`)

const sandbox = await openSandbox(t)
const [primary, replica] = await makeHosts(sandbox)
const [here, there] = await Promise.all(
  ['here', 'there'].map((name) => makeImage(sandbox, { fs: 'xfs', mib: 8192, name })),
)
if (here === undefined || there === undefined) throw new Error('no images')
const dir = join(here.dir, 'data')
const root = join(there.dir, 'replicas')
const tree = join(root, 'data', 'tree')

const status = async () => {
  const [shown] = (await primary.status('data')).replicas
  if (shown === undefined) throw new Error('no replica')
  return shown
}
const bash = (script: string, cwd: string) => run('bash', ['-euc', script], { cwd })
const applied = () => primary.holdfast('wait', 'data', ...WAIT)
const differences = async (...options: string[]) => {
  await applied()
  return compareTrees(dir, tree, ...options)
}
/** The tree, by a way past its guard. */
const past = join(sandbox.root, 'past', 'tree')
async function openPast(): Promise<void> {
  mkdirSync(join(past, '..'), { recursive: true })
  await run('mount', ['--bind', join(root, 'data'), join(past, '..')])
}
/** Waits for something to be said of the replica; else the logs are told. */
async function shows(what: string, holds: (shown: ReplicaStatus) => boolean): Promise<void> {
  await until(async () => holds(await status()), what, SHOWS_MS).catch(async (cause: unknown) => {
    const shown = JSON.stringify(await status())
    throw new Error(`${what}: ${shown}\n${lastLogs('data', primary, [replica])}`, { cause })
  })
}
const reconnected = () => shows('the replica to be back', (at) => at.connection === 'connected')
/** `verify`, with the paths and what differs there. */
async function verify(...flags: string[]) {
  const { code, stdout, stderr } = await primary.tryHoldfast('verify', 'data', '--json', ...flags)
  if (stdout === '') throw new Error(stderr)
  const progress = JSON.parse(stdout) as VerifyProgress
  const [found] = progress.replicas
  const all = (found?.list ?? []).map(
    ({ path, what }) => `${Buffer.from(path, 'base64').toString('latin1')} ${what}`,
  )
  // Zeros stored where the volume has a hole: told, but no difference.
  const holes = all.filter((line) => line.endsWith(' holes'))
  const list = all.filter((line) => !holes.includes(line))
  return { code, result: found?.result, differences: found?.differences, list, holes, progress }
}

mkdirSync(dir)
await fillBase(dir)
await primary.holdfast('mount', dir, '--ring', sandbox.rings, '--ring-size', '64M')
await changeBase(dir)
await bash(
  `mkdir -p v/deep v/doomed; cd v
   head -c 3000000 /dev/urandom >data; head -c 200000 /dev/urandom >short; echo small >small
   truncate -s 2M holes; printf x | dd of=holes bs=1 seek=1048576 conv=notrunc status=none
   ln small linked; ln -s target symlink; mkfifo fifo; mknod device c 1 3
   echo a >deep/a; echo b >deep/b; setfattr -n user.one -v 1 deep/a; echo c >doomed/c`,
  dir,
)
await replica.serve(root)
await primary.introduce(replica)
await primary.holdfast('replicate', 'data', '--to', 'replica')
await applied()

await t.test('verify: equal replicas are proven equal', async (t) => {
  t.equal((await status()).proven, null, 'nothing is known yet')
  const { code, result, list, progress } = await verify()
  t.same({ code, result, list }, { code: 0, result: 'equal', list: [] })
  t.ok(progress.objects > 10 && progress.bytes > 3_000_000, 'all was read')
  const { proven, verified } = await status()
  t.ok(Date.now() - Date.parse(proven?.at ?? '') < 60_000, 'status says when')
  t.equal(verified?.differences, 0)
  t.match(await primary.holdfast('status', 'data'), /proven equal/)
})

/** Every kind of damage, and how it is called. */
const DAMAGE: [script: string, path: RegExp, what: RegExp][] = [
  ['printf Z | dd of=data bs=1 seek=1000000 conv=notrunc status=none', /^\/v\/data$/, /data/],
  ['truncate -s 100000 short', /^\/v\/short$/, /size/],
  ['rm deep/b', /^\/v\/deep\/b$/, /missing/],
  ['echo new >deep/new', /^\/v\/deep\/new$/, /extra/],
  ['mkdir -p deep/more/below; echo x >deep/more/below/x', /^\/v\/deep\/more$/, /extra/],
  ['mv doomed elsewhere', /^\/v\/doomed$/, /missing/],
  ['chmod 600 small', /^\/v\/(small|linked)$/, /mode/],
  ['chown 12:13 fifo', /^\/v\/fifo$/, /owner/],
  ['touch -hd 2001-01-01 symlink', /^\/v\/symlink$/, /mtime/],
  ['setfattr -n user.one -v 2 deep/a', /^\/v\/deep\/a$/, /xattrs/],
  ['rm linked; cp -p small linked', /^\/v\/linked$/, /another object/],
  ['rm device; mknod device c 1 5', /^\/v\/device$/, /another object/],
]

await t.test('resync: over the first connection, too', async (t) => {
  await bash('head -c 30000000 /dev/urandom >v/much', dir)
  await applied()
  const { bytesSent: before } = await status()
  await bash('printf changed | dd of=v/much bs=1 seek=5000000 conv=notrunc status=none', dir)
  await primary.holdfast('resync', 'data')
  const { bytesSent, copy } = await status()
  t.equal(copy, 'UpToDate')
  t.ok(bytesSent - before < 10_000_000, `${bytesSent - before} bytes sent`)
  t.equal(await differences(), '')
})

await t.test('verify: names every kind of damage, and repairs it', async (t) => {
  const refused = await replica.attempt('touch', [join(tree, 'v/data')])
  t.match(refused.stderr, /Read-only file system/, 'the tree is guarded')
  await openPast()
  for (const [script] of DAMAGE) await bash(script, join(past, 'v'))
  await bash(
    'fallocate -l 65536 holes; dd if=/dev/zero of=holes bs=64k count=1 conv=notrunc',
    join(past, 'v'),
  )
  const { code, result, differences: count, list, holes } = await verify()
  t.match(holes.join(), '/v/holes holes', 'zeros in a hole are told')
  t.equal(code, DIFFERS)
  t.equal(result, 'different')
  t.ok((count ?? 0) >= DAMAGE.length)
  for (const [script, path, what] of DAMAGE) {
    const named = list.some((line) => {
      const at = line.indexOf(' ')
      return path.test(line.slice(0, at)) && what.test(line.slice(at + 1))
    })
    t.ok(named, `${script}: ${list.join('; ')}`)
  }
  t.equal((await status()).copy, 'Inconsistent')
  const lacking = await primary.tryHoldfast('wait', 'data', '--timeout', '1s')
  t.equal(lacking.code, 1, 'nobody is told that it has everything')
  const text = await primary.tryHoldfast('verify', 'data')
  t.equal(text.code, DIFFERS)
  t.match(text.stdout, /differs.*\n(.*\n)*.*\/v\/deep\/new +extra/)
  const repaired = await verify('--repair')
  t.equal(repaired.code, 0, repaired.list.join('; '))
  t.equal(repaired.result, 'repaired')
  t.equal(await differences(), '', 'equal again')
  t.equal((await status()).copy, 'UpToDate')
  t.same((await verify()).list, [], 'and proven so')
})

await t.test('verify: under load, with damage meanwhile', async (t) => {
  const chance = new Chance(seed)
  for (let round = 1; round <= rounds; round += 1) {
    const load = {
      dir: join(dir, `l${round}`),
      ack: join(sandbox.root, `l${round}`),
      seed: seed + round,
    }
    mkdirSync(load.dir)
    const running = await Load.begin({ ...load, threads: 2, seconds: 4 })
    await sleep(chance.between(100, 800))
    const quiet = await verify()
    t.same(quiet.list, [], `round ${round}: no false alarm`)
    // Bytes of files that nobody writes to, and names beside them.
    const offset = chance.between(0, 2_999_999)
    const fd = openSync(join(past, 'v/data'), 'r+')
    const byte = Buffer.alloc(1)
    byte[0] = (readFileSync(join(past, 'v/data'))[offset] ?? 0) ^ 0x55
    writeSync(fd, byte, 0, 1, offset)
    closeSync(fd)
    chmodSync(join(past, 'v/short'), 0o600)
    await bash(
      chance.pick(['rm v/deep/b', 'mv v/deep/a v/deep/z', 'rm -r v/doomed', 'ln v/data v/x']),
      past,
    )
    const { code, list } = await verify('--repair')
    t.equal(code, 0, list.join('; '))
    t.ok(
      list.some((line) => line.startsWith('/v/data ')),
      list.join('; '),
    )
    await running.end()
    const differs = await differences()
    if (differs !== '') return void t.fail(`round ${round}: ${differs}`)
    t.same((await verify()).list, [], 'equal')
  }
})

await t.test('verify: a guard that is taken away, and a tree in doubt', async (t) => {
  // Between two commands the guard may be up again: it looks every second.
  const server = replica.serverPid ?? 0
  process.kill(server, 'SIGSTOP')
  try {
    await run('umount', [tree])
    await bash('echo by somebody >v/small; rm v/deep/a', tree)
  } finally {
    process.kill(server, 'SIGCONT')
  }
  const before = Date.now()
  await shows('a comparison by itself', (at) => Date.parse(at.verified?.at ?? '') > before)
  await shows('the repair', ({ copy }) => copy === 'UpToDate')
  t.equal(await differences(), '')
  t.match(replica.log, /guard of the replica's tree was taken away/)
  const refused = await replica.attempt('touch', [join(tree, 'v/data')])
  t.match(refused.stderr, /Read-only file system/, 'it is guarded again')
})

await t.test('resync: only what differs is sent', async (t) => {
  await bash('mkdir bulk; for i in $(seq 40); do head -c 5000000 /dev/urandom >bulk/$i; done', dir)
  await applied()
  const whole = 40 * 5_000_000
  const before = await status()
  t.equal(before.copy, 'UpToDate')
  await replica.stopServing('SIGKILL')
  await bash(
    `for i in $(seq 40); do printf changed | dd of=bulk/$i bs=1 seek=$((i * 70000)) conv=notrunc
     done 2>/dev/null; mv bulk/1 bulk/one; rm bulk/2; cp bulk/3 bulk/copy; mkdir bulk/d; mv bulk/4 bulk/d`,
    dir,
  )
  await replica.startAgain()
  await reconnected()
  await applied()
  const at = await status()
  const text = await primary.holdfast('resync', 'data')
  t.match(text, /replica is the volume again/)
  const after = await status()
  t.equal(after.copy, 'UpToDate')
  t.ok(after.bytesSent - at.bytesSent < whole / 20, `${after.bytesSent - at.bytesSent} bytes sent`)
  t.equal(await differences(), '')
  t.same((await verify()).list, [])
})

await t.test('resync: either side killed in the middle of it', async (t) => {
  const chance = new Chance(seed)
  for (let round = 1; round <= rounds; round += 1) {
    await replica.stopServing('SIGKILL')
    await bash(
      `for i in $(seq 5 40); do head -c 70000 /dev/urandom | dd of=bulk/$i bs=1k seek=${round}00 \
       conv=notrunc; done 2>/dev/null; mv bulk/${round + 10} bulk/moved-${round}
       cp bulk/moved-${round} bulk/${round + 10}; mkdir r${round}; echo ${round} >r${round}/file`,
      dir,
    )
    await replica.startAgain()
    await reconnected()
    const load = { dir: join(dir, `k${round}`), ack: join(sandbox.root, `k${round}`), seed }
    mkdirSync(load.dir)
    const running = await Load.begin({ ...load, threads: 1, seconds: 2 })
    await primary.holdfast('resync', 'data', '--no-wait')
    await sleep(chance.between(0, 1500))
    if (chance.pick([true, false])) {
      await replica.stopServing('SIGKILL')
      await sleep(chance.between(0, 500))
      await replica.startAgain()
      await running.end()
    } else {
      await kill(primary.daemonPid('data'))
      await running.end()
      await primary.holdfast('mount', 'data')
    }
    await reconnected()
    await shows('the resync to end', ({ copy }) => copy !== 'Inconsistent')
    const differs = await differences()
    if (differs !== '') return void t.fail(`round ${round}: ${differs}`)
    t.same((await verify()).list, [], `round ${round}: equal`)
  }
})

await t.test('resync: by itself, when the journal does not reach back', async (t) => {
  const before = await status()
  await replica.stopServing('SIGKILL')
  await bash(
    `for i in $(seq 5 40); do printf again | dd of=bulk/$i bs=1 seek=$((i * 60000)) conv=notrunc
     done 2>/dev/null; mv bulk/d/4 bulk/four; rm -r bulk/d; echo x >bulk/new`,
    dir,
  )
  // Loose: nothing is kept for it.
  await primary.holdfast('replicate', 'data', '--to', 'replica', '--hold', '0')
  // The last frame stays in any case: what it has been is an earlier one now.
  for (const name of ['last', 'very-last']) {
    await primary.holdfast('journal', 'prune', 'data', '--max-size', '0')
    writeFileSync(join(dir, name), name)
  }
  await replica.startAgain()
  await shows('a resync', ({ resyncs }) => resyncs > before.resyncs)
  t.equal(await differences(), '')
  const { bytesSent, copy } = await status()
  t.equal(copy, 'UpToDate')
  t.ok(bytesSent - before.bytesSent < 20_000_000, `${bytesSent - before.bytesSent} bytes sent`)
  t.same((await verify()).list, [])
})

await t.test('baseline: an old copy at its place, and only what differs is sent', async (t) => {
  await primary.holdfast('replicate', 'data', '--stop', 'replica')
  await replica.stopServing()
  const place = join(root, 'data')
  for (const name of readdirSync(place)) {
    if (name !== 'tree') rmSync(join(place, name), { recursive: true })
  }
  await bash('for i in 6 7 8; do echo new >>bulk/$i; done; mv bulk/9 bulk/nine; rm v/short', dir)
  await replica.startAgain()
  await primary.holdfast('replicate', 'data', '--to', 'replica')
  t.equal(await differences(), '')
  const { bytesSent } = await status()
  // What was moved is another object under its new name: nobody knows it here.
  t.ok(bytesSent < 20_000_000, `${bytesSent} bytes sent`)
  t.same((await verify()).list, [])
  await primary.holdfast('unmount', 'data')
  t.equal(await replica.stopServing(), 0)
})
