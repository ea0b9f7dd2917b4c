/**
 * A history that finds no room, because its disk is full or its limit is reached, while a snapshot is
 * held and applications write on. `drop`: applications never notice; the snapshot is lost, and says so
 * everywhere; its view answers EIO and never wrong bytes; later snapshots work again. `refuse`: what is
 * looked at stays exact, changes get ENOSPC and change nothing, and go on when there is room.
 */
import { readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import {
  mountSnapshot,
  type SnapshotView,
  unmountSnapshot,
} from '../../src/daemon/snapshot-views.js'
import { createSnapshot, destroySnapshot, listSnapshots, mount } from '../../src/index.js'
import { daemonPid, errnoOfPath, kill, until } from '../harness/faults.js'
import { FILE_SYSTEMS, type Image, makeImage } from '../harness/image.js'
import { attempt, bash, run } from '../harness/run.js'
import { openSandbox } from '../harness/sandbox.js'
import { compareTrees, mountVolume, replayAndCompare, type TestVolume } from '../harness/volume.js'

const MIB = 1 << 20
/** The file that is rewritten: more than the history has room for. */
const FILE_MIB = 160
/** The least that a history can be limited to. */
const LIMIT_BYTES = 128 * MIB
/** Longest that one write may take while there is no room, on a busy machine. */
const WRITE_MS_MAX = 5_000
const VIEW_LOOK_MS = 3_000

t.setTimeout(900_000)
const sandbox = await openSandbox(t)
const images = await Promise.all(FILE_SYSTEMS.map((fs) => makeImage(sandbox, { fs, mib: 4096 })))

interface Written {
  done: number
  refused: number
  longestMs: number
  seconds: number
  error: string
}

/** Rewrites a file from its beginning on, in a process of its own. */
async function rewrite(
  path: string,
  { count, bytes = MIB, salt = 1 }: { count: number; bytes?: number; salt?: number },
): Promise<Written> {
  const script = `
import errno, json, os, sys, time
path, count, size, salt = sys.argv[1], *map(int, sys.argv[2:])
f = os.open(path, os.O_WRONLY)
done = refused = 0
longest, error, begun = 0, '', time.monotonic()
for i in range(count):
    at = time.monotonic()
    try:
        os.pwrite(f, bytes([(i + salt) % 251 + 1]) * size, i * size)
        done += 1
    except OSError as e:
        refused += 1
        error = errno.errorcode[e.errno]
    longest = max(longest, time.monotonic() - at)
print(json.dumps({'done': done, 'refused': refused, 'error': error,
    'longestMs': int(longest * 1000), 'seconds': time.monotonic() - begun}))`
  const args = ['-c', script, path, `${count}`, `${bytes}`, `${salt}`]
  return JSON.parse(await run('python3', args)) as Written
}

/** Takes all space of a file system; gives it back when it is removed. */
async function takeSpace(dir: string): Promise<string> {
  const ballast = join(dir, 'ballast')
  const free = async () => {
    const [blocks = 0, size = 0] = (await run('stat', ['-f', '-c', '%f %S', dir]))
      .trim()
      .split(' ')
      .map(Number)
    return blocks * size
  }
  await attempt('fallocate', ['-l', `${await free()}`, ballast])
  for (
    let left = await free(), tries = 0;
    left > 0 && tries < 20;
    left = await free(), tries += 1
  ) {
    const more = await attempt('bash', ['-c', `head -c ${left} /dev/zero >>${ballast}`])
    if (more.code !== 0) break
  }
  return ballast
}

/** A volume with a file that is not rewritten in one breath, and a few more. */
async function protect(image: Image, name: string, options: object): Promise<TestVolume> {
  const fill = (dir: string) =>
    bash(
      `head -c ${FILE_MIB * MIB} /dev/urandom >big; mkdir sub; echo then >sub/name; cp sub/name other; sync -f .`,
      { cwd: dir },
    )
  return mountVolume(sandbox, image, { name, fill, options })
}

/** Space that further tests need. */
async function clear(test: TestVolume, ...copies: string[]): Promise<void> {
  await run('rm', ['-rf', '--', test.dir, test.base, ...copies])
}

const cksum = (path: string) => bash(`cksum <'${path}'`)
const pastOf = (name: string) => listSnapshots().find((each) => each.name === name)?.past
const logOf = ({ volume }: TestVolume) =>
  readFileSync(join(volume.stateDirectory, 'daemon.log'), 'utf8')

async function mountOne(name: string): Promise<SnapshotView> {
  const [view] = await mountSnapshot(name)
  if (view === undefined) throw new Error(`${name} has no view`)
  return view
}

/** What a lost snapshot has to say of itself, wherever one looks. */
async function isToldLost(t: Tap, test: TestVolume, snapshot: string, view: SnapshotView) {
  const seq = view.seq
  const { history } = await test.volume.status()
  t.ok(history.floor > seq, `status: moments before ${history.floor} are lost`)
  t.equal(pastOf(snapshot), 'lost', 'the list says so')
  t.equal(errnoOfPath(join(view.path, 'never-asked-for')), 'EIO', 'its view answers EIO')
  const all = await attempt('bash', ['-c', `cat '${view.path}'/sub/* '${view.path}/big' | wc -c`])
  t.not(all.stdout.trim(), `${FILE_MIB * MIB + 5}`, 'no tree is shown any more')
  await unmountSnapshot(snapshot, true)
  await t.rejects(
    mountSnapshot(snapshot),
    { code: 'HISTORY_RANGE', message: /past of snapshot .* is lost/, hint: /--history-size/ },
    'it cannot be mounted',
  )
  await until(
    () => logOf(test).includes('the past of a snapshot is lost'),
    'the log to say so',
    VIEW_LOOK_MS * 3,
  )
}
type Tap = Pick<typeof t, 'ok' | 'equal' | 'not' | 'rejects' | 'comment' | 'match' | 'same'>

/** A snapshot taken now is exact while everything is changed. */
async function worksAgain(t: Tap, test: TestVolume, name: string) {
  const right = await cksum(join(test.dir, 'other'))
  await createSnapshot({ volumes: [test.volume.name], name })
  writeFileSync(join(test.dir, 'other'), 'changed since')
  await bash('mv sub moved; echo more >>moved/name', { cwd: test.dir })
  const view = await mountOne(name)
  t.equal(await cksum(join(view.path, 'other')), right, `${name} is what was there`)
  t.equal(readFileSync(join(view.path, 'sub/name'), 'utf8'), 'then\n')
  t.equal(pastOf(name), 'kept')
  await unmountSnapshot(name, true)
  await bash('mv moved sub; echo then >sub/name', { cwd: test.dir })
}

for (const image of images) {
  const { fs } = image
  for (const mode of ['snapshots', 'continuous'] as const) {
    await t.test(`full: the disk of the history, drop, ${mode}, ${fs}`, async (t) => {
      const disk = await makeImage(sandbox, { fs, mib: 512, name: `drop-${mode}-${fs}` })
      const test = await protect(image, `drop-${mode}-${fs}`, {
        history: mode,
        historyDirectory: disk.dir,
      })
      const big = join(test.dir, 'big')
      await createSnapshot({ volumes: [test.volume.name], name: `s-${mode}-${fs}` })
      const view = await mountOne(`s-${mode}-${fs}`)
      const right = await cksum(join(view.path, 'sub/name'))
      await rewrite(big, { count: 8 })
      const ballast = await takeSpace(disk.dir)
      const small = { count: 4_000, bytes: 4096, salt: 7 }
      const written = await rewrite(big, { count: FILE_MIB, salt: 3 })
      t.same([written.done, written.refused], [FILE_MIB, 0], 'no write met an error')
      t.ok(written.longestMs < WRITE_MS_MAX, `the longest took ${written.longestMs} ms`)
      const many = await rewrite(big, small)
      t.comment(`4 KiB writes with no room: ${Math.round(many.done / many.seconds)}/s`)
      t.same([many.done, many.refused], [small.count, 0])
      t.ok(many.longestMs < WRITE_MS_MAX, `nor small ones: ${many.longestMs} ms`)
      t.ok((await test.volume.status()).history.lost > 0, 'status counts what was lost')
      await isToldLost(t, test, `s-${mode}-${fs}`, view)
      t.equal(await cksum(join(test.dir, 'sub/name')), right)
      await kill(daemonPid(test.volume.name))
      await mount({ dir: test.dir, name: test.volume.name })
      t.equal(pastOf(`s-${mode}-${fs}`), 'lost', 'also when the daemon was killed')
      const after = await rewrite(big, small)
      t.same([after.done, after.refused], [small.count, 0], 'which starts with no room')
      rmSync(ballast)
      await worksAgain(t, test, `again-${mode}-${fs}`)
      const free = (await test.volume.status()).history.bytes
      t.comment(`${free / MIB} MiB of history are left`)
      t.equal(await replayAndCompare(test), '', 'the journal has everything')
      await clear(test)
    })
  }

  await t.test(`full: the limit of the history, drop, ${fs}`, async (t) => {
    const test = await protect(image, `limit-${fs}`, { historyBytes: LIMIT_BYTES })
    const { name } = test.volume
    await createSnapshot({ volumes: [name], name: `limit-${fs}` })
    const view = await mountOne(`limit-${fs}`)
    const written = await rewrite(join(test.dir, 'big'), { count: FILE_MIB })
    t.same([written.done, written.refused], [FILE_MIB, 0], 'no write met an error')
    await isToldLost(t, test, `limit-${fs}`, view)
    await worksAgain(t, test, `limit-again-${fs}`)
    await until(
      async () => (await test.volume.status()).history.bytes <= LIMIT_BYTES / 2,
      'what was kept for nothing to go',
    )
    t.equal(await replayAndCompare(test), '')
    await clear(test)
  })

  for (const why of ['disk', 'limit'] as const) {
    await t.test(`full: the ${why} of the history, refuse, ${fs}`, async (t) => {
      const disk = await makeImage(sandbox, { fs, mib: 512, name: `refuse-${why}-${fs}` })
      const limit = why === 'limit' ? { historyBytes: LIMIT_BYTES } : {}
      const test = await protect(image, `refuse-${why}-${fs}`, {
        historyDirectory: disk.dir,
        historyFull: 'refuse',
        ...limit,
      })
      const { name } = test.volume
      const big = join(test.dir, 'big')
      const copy = join(image.dir, `${name}.copy`)
      await run('cp', ['-a', '--reflink=never', test.dir, copy])
      await createSnapshot({ volumes: [name], name })
      const view = await mountOne(name)
      const ballast = why === 'disk' ? await takeSpace(disk.dir) : undefined
      const written = await rewrite(big, { count: FILE_MIB })
      t.match(written.error, /ENOSPC/, `${written.refused} of ${FILE_MIB} writes were refused`)
      t.ok(written.done > 0, 'those that found room were not')
      t.ok(written.longestMs < WRITE_MS_MAX, `the longest took ${written.longestMs} ms`)
      const before = await cksum(big)
      const last = statSync(big, { bigint: true })
      const refused = await attempt('bash', [
        '-c',
        `cd '${test.dir}'; dd if=/dev/zero of=big bs=1M count=1 seek=${FILE_MIB - 1} conv=notrunc status=none`,
      ])
      t.match(refused.stderr, /No space left/)
      t.equal(await cksum(big), before, 'a refused write changes nothing')
      t.equal(statSync(big, { bigint: true }).mtimeNs, last.mtimeNs, 'not even a time')
      t.equal(await compareTrees(view.path, copy), '', 'the view is exact')
      t.equal(pastOf(name), 'kept')
      t.equal((await test.volume.status()).history.lost, 0)
      if (ballast !== undefined) {
        rmSync(ballast)
        const free = await rewrite(big, { count: FILE_MIB, salt: 9 })
        t.same([free.done, free.refused], [FILE_MIB, 0], 'writes go on when there is room')
        t.equal(await compareTrees(view.path, copy), '', 'and the view is exact')
      }
      await unmountSnapshot(name, true)
      await destroySnapshot(name)
      const after = await rewrite(big, { count: FILE_MIB, salt: 21 })
      t.same([after.done, after.refused], [FILE_MIB, 0], 'writes go on without the snapshot')
      await worksAgain(t, test, `${name}-again`)
      t.equal(await replayAndCompare(test), '', 'refused writes are in no journal')
      await clear(test, copy)
    })
  }

  for (const full of ['drop', 'refuse'] as const) {
    await t.test(`full: everything on one disk, ${full}, ${fs}`, async (t) => {
      const disk = await makeImage(sandbox, { fs, mib: 768, name: `one-${full}-${fs}` })
      const test = await protect(disk, `one-${full}-${fs}`, {
        historyDirectory: join(disk.dir, 'past'),
        historyFull: full,
        ringWaitMs: 1_500,
      })
      const { name } = test.volume
      const base = join(image.dir, `${name}.base`)
      await run('mv', [test.base, base])
      const big = join(test.dir, 'big')
      await createSnapshot({ volumes: [name], name })
      const view = await mountOne(name)
      const copy = join(image.dir, `${name}.copy`)
      await run('cp', ['-a', '--reflink=never', base, copy])
      const ballast = await takeSpace(disk.dir)
      const written = await rewrite(big, { count: FILE_MIB })
      if (full === 'drop') t.same([written.done, written.refused], [FILE_MIB, 0], 'no error')
      else t.match(written.error, /ENOSPC/, `${written.refused} writes were refused`)
      t.ok(written.longestMs < WRITE_MS_MAX, `the longest took ${written.longestMs} ms`)
      const more = await attempt('bash', ['-c', `head -c 4000000 /dev/zero >'${test.dir}/new'`])
      t.match(more.stderr, /No space left/, 'a full disk is shown as one')
      await bash(`timeout 20 ls -lR '${test.dir}' >/dev/null; timeout 20 cat '${big}' >/dev/null`)
      if (full === 'drop') await isToldLost(t, test, name, view)
      else t.equal(await compareTrees(view.path, copy), '', 'the view is exact')
      rmSync(ballast)
      await unmountSnapshot(name, true)
      const again = await rewrite(big, { count: 16, salt: 5 })
      t.same([again.done, again.refused], [16, 0], 'it goes on')
      await worksAgain(t, test, `${name}-again`)
      await test.volume.unmount()
      const { problems } = await test.volume.verify()
      t.same(problems, [])
      await test.volume.replay({ onto: base })
      t.equal(await compareTrees(test.dir, base), '', 'the journal has everything')
      await clear(test, base, copy)
    })
  }
}
