/**
 * Full file systems. Journal: writers slow down, then get ENOSPC after the bounded wait, fsync fails
 * with ENOSPC, status tells it, nothing acknowledged is lost; space returns and all goes on. Backing:
 * what fits is written and journaled exactly. A journal that stands still: every wait is bounded.
 */
import { closeSync, fsyncSync, mkdirSync, openSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { mount } from '../src/index.js'
import { checkLoad, Load, until } from './harness/faults.js'
import { FILE_SYSTEMS, makeImage } from './harness/image.js'
import { attempt, bash, run } from './harness/run.js'
import { openSandbox } from './harness/sandbox.js'
import { compareTrees, mountVolume, type TestVolume } from './harness/volume.js'

const RING_WAIT_MS = 1_500
const RING_BYTES = 64 << 20
const MIB = 1 << 20
/** What a wait may last longer than it should on a busy machine. */
const SLACK_MS = 8_000

t.setTimeout(600_000)
const sandbox = await openSandbox(t)
const images = await Promise.all(FILE_SYSTEMS.map((fs) => makeImage(sandbox, { fs, mib: 2048 })))
const small = await makeImage(sandbox, { fs: 'ext4', mib: 2048, name: 'small' })

interface Filled {
  acknowledged: number
  error: string
  longestMs: number
}

/** Writes 1 MiB at a time, as much as is acknowledged, up to `mib`. */
async function fill(path: string, mib: number): Promise<Filled> {
  // In a process of its own: a blocked write must not block the test.
  const script = `
    import os, sys, time, errno
    f = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
    done, longest, error = 0, 0, ''
    for i in range(int(sys.argv[2])):
        at = time.monotonic()
        try:
            done += os.pwrite(f, bytes([i % 251 + 1]) * (1 << 20), done)
        except OSError as e:
            error = errno.errorcode[e.errno]
        longest = max(longest, time.monotonic() - at)
        if error: break
    try:
        os.fsync(f)
    except OSError as e:
        error += '/' + errno.errorcode[e.errno]
    print(done, int(longest * 1000), error)`
  const said = await run('python3', ['-c', script.replaceAll('\n    ', '\n'), path, `${mib}`])
  const [done, longest, error = ''] = said.trim().split(' ')
  return { acknowledged: Number(done), longestMs: Number(longest), error }
}

/** As replayAndCompare of the harness, for volumes that had to refuse. */
async function replayAndCompare(test: TestVolume, ...options: string[]): Promise<string> {
  await test.volume.unmount()
  const { problems } = await test.volume.verify()
  if (problems.length > 0) return JSON.stringify(problems)
  await test.volume.replay({ onto: test.base })
  return compareTrees(test.dir, test.base, ...options)
}

/** Takes all space but `mib`; gives it back when it is removed. */
async function takeSpace(dir: string, mib: number): Promise<string> {
  const ballast = join(dir, 'ballast')
  const free = await run('stat', ['-f', '-c', '%a %S', dir])
  const [blocks = 0, size = 0] = free.trim().split(' ').map(Number)
  await run('fallocate', ['-l', `${blocks * size - mib * MIB}`, ballast])
  return ballast
}

/** The volume with the short wait. */
const options = { ringWaitMs: RING_WAIT_MS, ringBytes: RING_BYTES }

await t.test('full: the file system of the journal', async (t) => {
  const image = images[0] ?? small
  const dir = join(image.dir, 'nospace')
  mkdirSync(dir)
  await bash(
    `mkdir -p ${dir}/load; echo base >${dir}/base; cp -a --reflink=never ${dir} ${dir}.base`,
  )
  const volume = await mount({
    dir,
    name: 'nospace',
    stateDirectory: join(small.dir, 'state'),
    options: { ...options, ringDirectory: sandbox.rings },
  })
  const test: TestVolume = { volume, dir, base: `${dir}.base` }
  const ballast = await takeSpace(small.dir, 64)
  const load = { dir: join(dir, 'load'), ack: join(sandbox.root, 'full.ack'), seed: 1 }
  const running = await Load.begin({ ...load, seconds: 60, fsyncRate: 0.01 })
  const { acknowledged, error, longestMs } = await fill(join(dir, 'big'), 1024)
  t.match(error, /^ENOSPC\/ENOSPC/, `ENOSPC after ${acknowledged / MIB} MiB, fsync fails as well`)
  t.ok(acknowledged > RING_BYTES / 2, 'the ring took what the journal could not')
  t.ok(longestMs >= RING_WAIT_MS / 2, `the last writes waited (${longestMs} ms)`)
  t.ok(longestMs < RING_WAIT_MS + SLACK_MS, 'no longer than bounded')
  t.equal(await running.end().then(() => ''), '', 'others got ENOSPC too')
  const blocked = await volume.status()
  t.equal(blocked.state, 'journal-blocked')
  t.equal(blocked.journal.failure, 'JOURNAL_FULL')
  t.ok(blocked.ring.refusals > 0, 'status counts refusals')
  t.ok(blocked.lag.bytes > 0, 'status tells the lag')
  const before = await bash(`head -c ${acknowledged} ${dir}/big | cksum`)

  rmSync(ballast)
  await until(
    async () => (await volume.status()).state === 'protected',
    'the journal to take frames again',
    60_000,
  )
  t.equal(await checkLoad(load), '', 'every acknowledged operation is there')
  t.equal(await bash(`head -c ${acknowledged} ${dir}/big | cksum`), before)
  const again = await fill(join(dir, 'more'), 32)
  t.same([again.acknowledged, again.error], [32 * MIB, ''], 'writes and fsync go on')
  t.equal(await replayAndCompare(test, '--holes'), '', 'replay equals the tree')
})

await t.test('full: the daemon dies while the journal is full', async (t) => {
  const tiny = await makeImage(sandbox, { fs: 'ext4', mib: 2048, name: 'tiny' })
  const image = images[1] ?? small
  const dir = join(image.dir, 'dies')
  mkdirSync(dir)
  await bash(`echo base >${dir}/base; cp -a --reflink=never ${dir} ${dir}.base`)
  const settings = { dir, name: 'dies', stateDirectory: join(tiny.dir, 'state') }
  const volume = await mount({ ...settings, options: { ...options, ringDirectory: sandbox.rings } })
  const ballast = await takeSpace(tiny.dir, 64)
  const { acknowledged } = await fill(join(dir, 'big'), 1024)
  const { pid } = await volume.status()
  process.kill(pid, 'SIGKILL')
  await until(async () => (await attempt('test', ['-e', `/proc/${pid}`])).code !== 0, 'its death')
  rmSync(ballast)
  const recovered = await mount({ dir: 'dies' })
  t.ok((recovered.start?.pendingRecords ?? 0) > 0, 'the ring kept what the journal had no room for')
  t.equal(Number(await run('stat', ['-c', '%s', join(dir, 'big')])), acknowledged)
  t.equal(await replayAndCompare({ volume: recovered, dir, base: `${dir}.base` }), '')
})

for (const image of images) {
  await t.test(`full: the backing file system, ${image.fs}`, async (t) => {
    const backing = await makeImage(sandbox, { fs: image.fs, mib: 320, name: `${image.fs}-full` })
    const test = await mountVolume(sandbox, backing, { name: `backing-${image.fs}`, options })
    // The copy of the base must have room that the volume has not.
    const base = join(image.dir, `backing-${image.fs}.base`)
    await run('mv', [test.base, base])
    const { dir } = test
    const { acknowledged, error } = await fill(join(dir, 'big'), 400)
    t.match(error, /^ENOSPC/, `ENOSPC after ${acknowledged / MIB} MiB`)
    t.equal(Number(await run('stat', ['-c', '%s', join(dir, 'big')])), acknowledged)
    const script = `cd ${dir}
      for i in $(seq 50); do head -c 7000 /dev/urandom >s$i || true; mkdir d$i || true; done
      chmod 4755 s1; setfattr -n user.a -v $(printf %1500d 1) s2 || true
      fallocate -l 200M f1 || true; fallocate -n -l 200M f2 || true; truncate -s 10M t1
      dd if=/dev/urandom of=t1 bs=64k conv=notrunc status=none || true
      fallocate -z -o 1M -l 100M t1 || true; fallocate -p -o 0 -l 1M t1 || true
      rm -f s3 s4 s5; head -c 50000 /dev/urandom >>s6 || true
      setpriv --reuid 1000 --clear-groups head -c 9000000 /dev/zero >>s1 || true; cp s6 c6 || true
      ln s6 l6 || true; ln -s $(printf %0900d 1) y || true; mv s7 d1/ || true; sync -f . || true`
    await attempt('bash', ['-c', script])
    await test.volume.unmount()
    const report = await test.volume.verify()
    t.strictSame(report.problems, [])
    await test.volume.replay({ onto: base })
    t.equal(await compareTrees(dir, base), '', 'replay equals the tree, partial writes and all')
  })
}

await t.test('full: a journal that stands still', async (t) => {
  const image = images[0] ?? small
  const still = await makeImage(sandbox, { fs: 'ext4', mib: 1024, name: 'still' })
  const dir = join(image.dir, 'still')
  mkdirSync(dir)
  await bash(`echo base >${dir}/base; cp -a --reflink=never ${dir} ${dir}.base`)
  const volume = await mount({
    dir,
    name: 'still',
    stateDirectory: join(still.dir, 'state'),
    options: { ...options, ringDirectory: sandbox.rings },
  })
  await run('fsfreeze', ['-f', still.dir])
  const thaw = () => attempt('fsfreeze', ['-u', still.dir])
  t.teardown(thaw)
  const begun = Date.now()
  const filling = fill(join(dir, 'big'), 512)
  await sleep(RING_WAIT_MS)
  const names = await bash(`cd ${dir}; timeout 20 ls >/dev/null; timeout 20 cat base`)
  t.equal(names, 'base\n', 'reads go on')
  await until(async () => (await volume.status()).ring.refusals > 0, 'a refusal', SLACK_MS * 2)
  t.ok(Date.now() - begun < RING_WAIT_MS + 2 * SLACK_MS, 'refused within the bound')
  await thaw()
  const { acknowledged, error, longestMs } = await filling
  t.match(error, /ENOSPC/, `the writer was refused after ${acknowledged / MIB} MiB`)
  t.ok(longestMs < RING_WAIT_MS + SLACK_MS, `the longest write took ${longestMs} ms`)
  const fd = openSync(join(dir, 'after'), 'w')
  writeSync(fd, 'goes on')
  fsyncSync(fd)
  closeSync(fd)
  t.equal(await replayAndCompare({ volume, dir, base: `${dir}.base` }), '')
  rmSync(join(sandbox.root, 'full.ack'), { force: true })
})
