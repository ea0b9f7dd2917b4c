import { execFileSync } from 'node:child_process'
import { closeSync, fsyncSync, mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { open } from '../../src/index.js'
import { Home, until } from '../fixture.js'

// An orderly stop waits a minute for space.
t.setTimeout(240_000)

t.test('journal full: fsync says ENOSPC, nothing is lost, and it recovers by itself', async (t) => {
  const home = new Home(t)
  const small = join(home.path, 'small')
  mkdirSync(small)
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64m', 'holdfast-test', small])
  home.copyBase()
  await home.mount({ stateDirectory: join(small, 'state') })
  // More than the journal's file system holds (its flush log takes 32 MiB), less than the ring.
  for (let index = 0; index < 40; index += 1) {
    writeFileSync(join(home.data, `file${index}`), Buffer.alloc(1 << 20, index))
  }
  await until(
    async () => (await home.status()).state === 'journal-blocked',
    'the journal to be full',
  )
  const status = await home.status()
  t.match(status, { journal: { failure: 'JOURNAL_FULL' }, reason: /no space for the journal/ })
  t.ok(status.lag.bytes > 0)
  t.equal((await home.holdfast('status', 'data')).code, 5)

  const fd = openSync(join(home.data, 'synced'), 'w')
  writeSync(fd, 'x')
  t.throws(() => fsyncSync(fd), { code: 'ENOSPC' })
  closeSync(fd)

  execFileSync('mount', ['-o', 'remount,size=400m', small])
  await until(async () => (await home.status()).state === 'protected', 'the journal to go on')
  const again = openSync(join(home.data, 'synced'), 'r+')
  fsyncSync(again)
  closeSync(again)
  t.equal((await open('data').verify()).problemCount, 0)
  t.equal(await home.replayDifferences(), '')
  await home.unmount()
})

t.test('journal full: a stop leaves the rest in the ring for the next start', async (t) => {
  const home = new Home(t)
  const small = join(home.path, 'small')
  mkdirSync(small)
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64m', 'holdfast-test', small])
  home.copyBase()
  await home.mount({ stateDirectory: join(small, 'state') })
  for (let index = 0; index < 40; index += 1) {
    writeFileSync(join(home.data, `file${index}`), Buffer.alloc(1 << 20, index))
  }
  await until(
    async () => (await home.status()).state === 'journal-blocked',
    'the journal to be full',
  )
  const { code, stderr } = await home.holdfast('unmount', 'data')
  t.match(stderr, /the journal takes nothing: \S+ \S+ of changes stay in the ring, in memory/)
  t.equal(code, 0)
  execFileSync('mount', ['-o', 'remount,size=400m', small])
  t.match((await home.mount({ dir: 'data' })).start, { ring: 'recovered' })
  await until(async () => (await home.status()).lag.records === 0, 'the journal to catch up')
  t.equal(await home.replayDifferences(), '')
  await home.unmount()
})
