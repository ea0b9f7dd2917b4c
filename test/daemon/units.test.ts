import { spawn } from 'node:child_process'
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { expressible } from '../../src/capture/watcher.js'
import { type Clock, StepDetector } from '../../src/daemon/clock.js'
import { VolumeLock } from '../../src/daemon/lock.js'
import { describeOccupants, findOccupants } from '../../src/daemon/occupants.js'
import { recaptureNeed } from '../../src/daemon/recapture.js'
import {
  findVolume,
  listVolumes,
  newVolume,
  volumeOptions,
  writeVolume,
} from '../../src/daemon/registry.js'
import { freshMeta } from '../../src/journal/meta.js'
import { isWithin, mountAt, mountOf, parseMountinfo } from '../../src/lib/mountinfo.js'
import { until } from '../fixture.js'

t.test('mountinfo: escapes, optional fields and the newest mount', async (t) => {
  const mounts = parseMountinfo(
    [
      '22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw',
      '60 22 0:50 / /srv/my\\040data rw,nosuid - fuse.holdfast holdfast:my\\040data rw,user_id=0',
      '61 60 0:51 / /srv/my\\040data ro shared:2 master:3 - tmpfs none ro',
      '',
    ].join('\n'),
  )
  t.equal(mounts.length, 3)
  t.match(mounts[1], {
    mountpoint: '/srv/my data',
    type: 'fuse.holdfast',
    source: 'holdfast:my data',
  })
  t.equal(mountAt('/srv/my data', mounts)?.type, 'tmpfs')
  t.equal(mountAt('/srv', mounts), undefined)
  t.equal(mountOf('/srv/other', mounts)?.type, 'ext4')
  t.equal(mountOf('/srv/my data/x', mounts)?.type, 'tmpfs')
  t.ok(isWithin('/a/b', '/a') && isWithin('/a', '/a') && isWithin('/a', '/'))
  t.notOk(isWithin('/ab', '/a'))
})

t.test('occupants: who has a directory, file or mapping open', async (t) => {
  const dir = t.testdir({ sub: { file: 'x' } })
  const child = spawn('sleep', ['30'], { cwd: join(dir, 'sub'), stdio: 'ignore' })
  const reader = spawn('bash', [
    '-c',
    `exec 7<"$1"; cd /; exec sleep 30`,
    'r',
    join(dir, 'sub', 'file'),
  ])
  t.teardown(() => {
    child.kill()
    reader.kill()
  })
  await until(() => findOccupants(dir).length === 2, 'both processes')
  const found = findOccupants(dir)
  t.match(
    found.find(({ pid }) => pid === child.pid),
    { kind: 'cwd', path: join(dir, 'sub') },
  )
  await until(() => findOccupants(dir).some(({ kind }) => kind === 'open file'), 'the open file')
  t.match(describeOccupants(found, 1), /and 1 more$/)
  t.equal(findOccupants(join(dir, 'su')).length, 0)
})

t.test('registry: volumes are found by name, paths and state, also elsewhere', async (t) => {
  const home = t.testdir({ data: {}, elsewhere: {} })
  process.env.HOLDFAST_STATE_ROOT = join(home, 'root')
  const backing = join(home, 'data')
  const stateDirectory = join(home, 'elsewhere', 'state')
  const options = volumeOptions({})
  const volume = newVolume({ backing, mountpoint: backing, stateDirectory, options })
  t.equal(volume.config.name, 'data')
  writeVolume(volume)
  t.equal(listVolumes().length, 1)
  symlinkSync(backing, join(home, 'link'))
  for (const which of ['data', backing, stateDirectory, join(home, 'link')]) {
    t.equal(findVolume(which).config.uuid, volume.config.uuid, which)
  }
  t.throws(() => findVolume('nothing'), { code: 'VOLUME_NOT_FOUND' })
  const second = newVolume({ backing: '/x/data', mountpoint: '/x/data', options })
  t.match(second.config.name, /^data-[0-9a-f]{6}$/)
  t.throws(() => newVolume({ backing, mountpoint: backing, name: '../x', options }), {
    code: 'USAGE',
  })
  t.throws(() => volumeOptions({ ringBytes: 5 }), { code: 'USAGE', message: /ringBytes/ })
  mkdirSync(join(home, 'root', 'junk'))
  writeFileSync(join(home, 'root', 'junk', 'volume.json'), '{"version": 99}')
  t.equal(listVolumes().length, 1, 'an unreadable one is left out')
  t.throws(() => findVolume('junk'), { code: 'UNKNOWN_FORMAT' })
})

t.test('lock: one holder per state directory, free again after release', async (t) => {
  const home = t.testdir()
  process.env.HOLDFAST_RUN_DIR = join(home, 'run')
  const options = volumeOptions({})
  const volume = newVolume({ backing: home, mountpoint: home, stateDirectory: home, options })
  const lock = await VolumeLock.acquire(volume)
  await t.rejects(VolumeLock.acquire(volume), { code: 'VOLUME_RUNNING' })
  await t.rejects(VolumeLock.acquireOffline(volume), { code: 'VOLUME_RUNNING' })
  lock.release()
  const again = await VolumeLock.acquire(volume)
  again.release()
  // A pid file of a process that is gone, or whose number is another's now, is stale.
  const stale = { pid: process.pid, startTicks: '1', stateDirectory: home }
  writeFileSync(join(home, 'run', `${volume.config.name}.pid`), JSON.stringify(stale))
  const third = await VolumeLock.acquire(volume)
  third.release()
})

t.test('clock: a step back is seen once, a step forward and slow time are not', async (t) => {
  let wall = 1_000_000_000_000n
  let monotonic = 0n
  const clock: Clock = { wallNs: () => wall, monotonicNs: () => monotonic }
  const detector = new StepDetector(clock, 1000)
  const pass = (wallMs: number, monotonicMs: number) => {
    wall += BigInt(wallMs) * 1_000_000n
    monotonic += BigInt(monotonicMs) * 1_000_000n
    return detector.steppedBack()
  }
  t.notOk(pass(5000, 5000))
  t.notOk(pass(4500, 5000))
  t.notOk(pass(3_600_000, 1000))
  t.ok(pass(-3_600_000, 1000))
  t.notOk(pass(1000, 1000))
})

t.test('recapture: needed after a lost ring, an open tree, or an unfinished one', async (t) => {
  const meta = { ...freshMeta(Buffer.alloc(16)), clean: false }
  const checkpoint = { seq: 5n, timeNs: 100_000_000_000n }
  const base = { lastSeq: 9n, ring: 'created' as const, sealed: false }
  t.equal(recaptureNeed({ ...base, meta: { ...meta, clean: true }, lastSeq: 0n }), null, 'new')
  t.match(recaptureNeed({ ...base, meta: { ...meta, checkpoint } }), {
    sinceNs: 98_000_000_000n,
    afterSeq: 5n,
    reason: /ring was lost/,
  })
  t.match(recaptureNeed({ ...base, meta }), { sinceNs: 0n, afterSeq: 0n })
  const stepped = { ...meta, checkpoint, ctimeUnreliable: true }
  t.match(recaptureNeed({ ...base, meta: stepped }), { sinceNs: 0n, afterSeq: 5n })
  const sealed = { ...base, ring: 'recovered' as const, sealed: true }
  t.equal(recaptureNeed({ ...sealed, meta: { ...meta, checkpoint } }), null, 'crash, still covered')
  t.match(recaptureNeed({ ...sealed, sealed: false, meta: { ...meta, checkpoint } }), {
    afterSeq: 9n,
    reason: /not mounted/,
  })
  const need = { reason: 'asked', sinceNs: 0n, afterSeq: 1n }
  t.same(recaptureNeed({ ...sealed, meta: { ...meta, checkpoint, recapture: need } }), need)
  // Power loss while looking for changes made behind: both needs together.
  const weak = { reason: 'not mounted', sinceNs: 99_000_000_000n, afterSeq: 9n }
  t.match(recaptureNeed({ ...base, meta: { ...meta, checkpoint, recapture: weak } }), {
    sinceNs: 98_000_000_000n,
    afterSeq: 5n,
  })
})

t.test('watcher: a name that is no text gives way to its directory', async (t) => {
  t.equal(expressible('a/b/c'), 'a/b/c')
  t.equal(expressible('a/b\ufffd/c'), 'a')
  t.equal(expressible('\ufffd'), '')
  t.equal(expressible(''), '')
})
