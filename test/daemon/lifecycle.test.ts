import { execFileSync, spawn } from 'node:child_process'
import {
  appendFileSync,
  linkSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { list, open } from '../../src/index.js'
import { alive, exists, Home, until } from '../fixture.js'

const DEAD = /ENOTCONN|ECANCELED|ECONNABORTED/

function work(data: string, round = 0): void {
  const dir = join(data, `dir${round}`)
  mkdirSync(dir)
  writeFileSync(join(dir, 'file'), 'x'.repeat(10_000))
  appendFileSync(join(dir, 'file'), 'more')
  linkSync(join(dir, 'file'), join(dir, 'link'))
  symlinkSync('file', join(dir, 'symbolic'))
  renameSync(join(dir, 'link'), join(data, `moved${round}`))
  writeFileSync(Buffer.concat([Buffer.from(`${dir}/b`), Buffer.of(0xff)]), 'bytes')
  rmSync(join(dir, 'symbolic'))
}

t.test('volume: mounted in place, worked in, unmounted; replay equals the tree', async (t) => {
  const home = new Home(t)
  writeFileSync(join(home.data, 'old'), 'from before')
  home.copyBase()
  const volume = await home.mount()
  t.match(volume.start, { isNew: true, ring: 'created', recapture: null })
  t.ok(home.isMounted())
  t.equal(readFileSync(join(home.data, 'old'), 'utf8'), 'from before')
  work(home.data)
  await volume.flush()
  const status = await home.status()
  t.equal(status.state, 'protected')
  t.ok(status.captured.seq >= 8)
  t.equal(status.panics, 0)
  t.equal((await volume.verify()).problemCount, 0)
  t.equal(await home.replayDifferences(), '')
  await home.unmount()
  t.notOk(home.isMounted())
  t.ok(exists(join(home.data, 'moved0')), 'the tree stays')
  await t.rejects(volume.status(), { code: 'VOLUME_NOT_RUNNING' })
  t.notOk(exists(`/dev/shm/holdfast-${status.uuid}.ring`), 'the ring is gone')
})

t.test(
  'volume: changes made while it was not mounted are captured at the next mount',
  async (t) => {
    const home = new Home(t)
    home.copyBase()
    await home.mount()
    work(home.data)
    await home.unmount()
    appendFileSync(join(home.data, 'moved0'), 'behind its back')
    writeFileSync(join(home.data, 'new'), 'also')
    rmSync(join(home.data, 'dir0', 'file'))
    t.match((await home.mount({ dir: 'data' })).start?.recapture, /not mounted/)
    await until(async () => (await home.status()).state === 'protected', 'the re-capture')
    t.equal(await home.replayDifferences(), '')
    await home.unmount()
  },
)

t.test('volume: SIGKILL fails closed, and mount recovers in place', async (t) => {
  const home = new Home(t)
  home.copyBase()
  await home.mount()
  for (let round = 0; round < 3; round += 1) {
    work(home.data, round)
    await home.kill()
    // What the kernel has cached may still be read; nothing can be changed.
    t.throws(() => writeFileSync(join(home.data, 'new'), ''), { code: DEAD })
    await t.rejects(home.status(), { code: 'VOLUME_NOT_RUNNING', hint: /holdfast mount data/ })
    t.equal((await home.mount()).start?.recoveredMount, true)
    t.ok(exists(join(home.data, `moved${round}`)))
  }
  t.equal(await home.replayDifferences(), '')
  await home.unmount()
})

t.test('volume: a lost ring is noticed and healed by a re-capture', async (t) => {
  const home = new Home(t)
  home.copyBase()
  await home.mount()
  work(home.data)
  const { uuid, mountpoint } = await home.status()
  await home.kill()
  // As after a power loss: no mount, no ring; here the tree has more than the journal.
  execFileSync('umount', ['-l', mountpoint])
  rmSync(`/dev/shm/holdfast-${uuid}.ring`)
  writeFileSync(join(home.data, 'unjournaled'), 'x')
  t.match((await home.mount()).start?.recapture, /ring was lost/)
  await until(async () => (await home.status()).state === 'protected', 'the re-capture')
  t.equal(await home.replayDifferences(), '')
  t.equal((await home.status()).recapture.needed, false)
  await home.unmount()
})

t.test('volume: unmount names who uses it, and --force detaches it all the same', async (t) => {
  const home = new Home(t)
  await home.mount()
  const child = spawn('sleep', ['60'], { cwd: home.data, stdio: 'ignore' })
  t.teardown(() => child.kill('SIGKILL'))
  await until(() => child.pid !== undefined && alive(child.pid), 'sleep')
  await t.rejects(home.unmount(), {
    code: 'BUSY',
    message: new RegExp(`sleep\\[${child.pid}\\] cwd`),
    hint: /--force/,
  })
  t.equal((await home.status()).state, 'protected', 'it stays protected')
  await open('data').unmount({ force: true })
  t.notOk(home.isMounted())
})

t.test('volume: SIGTERM stops it in order', async (t) => {
  const home = new Home(t)
  home.copyBase()
  await home.mount()
  work(home.data)
  const pid = home.pid()
  process.kill(pid, 'SIGTERM')
  await until(() => !alive(pid), 'the daemon to end')
  t.notOk(home.isMounted())
  t.equal((await open('data').verify()).problemCount, 0)
  t.equal(await home.replayDifferences(), '')
})

t.test('volume: shown elsewhere, changes behind the mount are captured and counted', async (t) => {
  const home = new Home(t)
  const at = join(home.path, 'at')
  mkdirSync(at)
  writeFileSync(join(home.data, 'file'), 'before')
  home.copyBase()
  await home.mount({ at })
  t.equal(readFileSync(join(at, 'file'), 'utf8'), 'before')
  work(at)
  writeFileSync(join(home.data, 'file'), 'changed behind the mount')
  mkdirSync(join(home.data, 'behind'))
  writeFileSync(join(home.data, 'behind', 'new'), 'new')
  await until(async () => (await home.status()).outOfBand.objects >= 3, 'the events')
  t.equal(readFileSync(join(at, 'file'), 'utf8'), 'changed behind the mount')
  t.equal(readFileSync(join(at, 'behind', 'new'), 'utf8'), 'new')
  t.equal(await home.replayDifferences('data', home.data), '')
  await home.unmount()
})

t.test('volume: several at once, each with its own daemon', async (t) => {
  const home = new Home(t)
  const other = join(home.path, 'other')
  mkdirSync(other)
  await home.mount()
  await home.mount({ dir: other })
  work(home.data)
  work(other)
  for (const volume of list()) t.equal((await volume.status()).state, 'protected')
  t.same(
    list().map(({ name }) => name),
    ['data', 'other'],
  )
  t.not(home.pid('data'), home.pid('other'))
  await home.unmount()
  t.ok(home.isMounted(other))
  await home.unmount('other')
})
