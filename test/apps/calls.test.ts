/**
 * What applications rely on beyond reading and writing: probe.py does it on a plain directory and on a
 * volume, and both must answer alike. Then quotas and reserved blocks, which need file systems made so.
 */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { projectFile } from '../harness/files.js'
import { FILE_SYSTEMS, makeImage } from '../harness/image.js'
import { attempt, bash, run } from '../harness/run.js'
import { openSandbox } from '../harness/sandbox.js'
import { onVolume } from '../harness/volume.js'

t.setTimeout(120_000)

const NOBODY = { uid: 65534, gid: 65534 }

const sandbox = await openSandbox(t)

for (const fs of FILE_SYSTEMS) {
  t.test(`calls: the same answers as on ${fs}`, async (t) => {
    const image = await makeImage(sandbox, { fs })
    const probe = async (dir: string) => {
      const text = await run('python3', [projectFile('test/harness/probe.py'), dir])
      return text
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line) as Record<string, unknown>)
    }
    const plain = join(image.dir, 'plain')
    mkdirSync(plain)
    const expected = await probe(plain)
    await onVolume(t, { sandbox, image, name: `calls-${fs}` }, async ({ dir }) => {
      const answers = await probe(dir)
      for (const [n, answer] of answers.entries()) {
        t.strictSame(answer, expected[n], Object.keys(answer).join())
      }
    })
  })
}

t.test('chattr: moves the time of change, as everybody sees it', async (t) => {
  const image = await makeImage(sandbox, { fs: 'ext4', name: 'changed' })
  await onVolume(t, { sandbox, image, name: 'changed' }, async ({ dir }) => {
    const script = `
      echo text >f; mkdir d; stat -c %z f d; sleep 0.05
      chattr +A f; chattr +d d; stat -c %z f d`
    const [f, d, fAfter, dAfter] = (await bash(script, { cwd: dir })).trim().split('\n')
    t.not(fAfter, f, 'of a file')
    t.not(dAfter, d, 'of a directory')
  })
})

t.test('write-back: a log that is append-only', async (t) => {
  const image = await makeImage(sandbox, { fs: 'ext4', name: 'collected' })
  const setup = { sandbox, image, name: 'collected', options: { writeback: true } }
  await onVolume(t, setup, async ({ dir }) => {
    const script = `
      printf 'begun ' >log; chattr +a log
      for i in {1..2000}; do echo "line $i" >>log; [ $((i % 100)) != 0 ] || sync log; done
      chattr -a log; cat log`
    const expected = Array.from({ length: 2000 }, (_, n) => `line ${n + 1}\n`).join('')
    t.equal(await bash(script, { cwd: dir }), `begun ${expected}`, 'every line, once')
  })
})

/** Writes as nobody until it fails; what dd says then. */
async function fill(dir: string): Promise<string> {
  const target = join(dir, 'filled')
  const args = ['if=/dev/zero', `of=${target}`, 'bs=64k', 'count=3000']
  const { code, stderr } = await attempt('dd', args, { user: NOBODY })
  return code === 0 ? 'no end' : (/: ([A-Z][a-z ]+)\n/.exec(stderr)?.[1] ?? stderr)
}

t.test('quota: a subvolume at its limit', async (t) => {
  const image = await makeImage(sandbox, { fs: 'btrfs', name: 'quota' })
  await run('btrfs', ['quota', 'enable', image.dir])
  const baseOn = await makeImage(sandbox, { fs: 'btrfs', name: 'roomy' })
  const make = async (dir: string) => {
    await run('btrfs', ['-q', 'subvolume', 'create', dir])
    await run('btrfs', ['qgroup', 'limit', '8M', dir])
  }
  const plain = join(image.dir, 'plain')
  await make(plain)
  await run('chmod', ['777', plain])
  const expected = await fill(plain)
  t.equal(expected, 'Disk quota exceeded')
  const bytes = async (dir: string) => Number(await run('stat', ['-c', '%s', join(dir, 'filled')]))
  const setup = { sandbox, image, baseOn, name: 'limited', make, mode: 0o777 }
  await onVolume(t, setup, async ({ dir }) => {
    t.equal(await fill(dir), expected, 'the writer is told')
    const missed = (await bytes(plain)) - (await bytes(dir))
    t.ok(Math.abs(missed) <= 1 << 20, `after as many bytes: ${missed} fewer`)
    const made = await attempt('touch', [join(dir, 'file')], { user: NOBODY })
    t.match(made.stderr, /Disk quota exceeded/, 'and the maker of files')
    await run('rm', [join(dir, 'filled')])
    await run('sync', ['-f', image.dir])
    const again = await attempt('touch', [join(dir, 'file')], { user: NOBODY })
    t.equal(again.code, 0, 'what is freed can be used again')
  })
})

t.test('reserved blocks: kept from users, given to root', async (t) => {
  const image = await makeImage(sandbox, { fs: 'ext4', mib: 64, mkfs: ['-m', '20'], name: 'small' })
  const baseOn = await makeImage(sandbox, { fs: 'ext4', name: 'large' })
  const size = async (dir: string) => Number(await run('stat', ['-c', '%s', join(dir, 'filled')]))
  const setup = { sandbox, image, baseOn, name: 'full', mode: 0o777 }
  await onVolume(t, setup, async ({ dir }) => {
    t.equal(await fill(dir), 'No space left on device', 'a user is told')
    const theirs = await size(dir)
    const more = await attempt('dd', [
      ...['if=/dev/zero', `of=${join(dir, 'of-root')}`, 'bs=64k', 'count=64'],
    ])
    t.equal(more.code, 0, `root may go on after ${theirs} bytes`)
    const again = await attempt('touch', [join(dir, 'small')], { user: NOBODY })
    t.equal(again.code, 0, 'a file without data still has room')
    const append = await attempt('bash', ['-c', 'echo text >"$0/small"', dir], { user: NOBODY })
    t.match(append.stderr, /No space left/, 'but data has not')
  })
})
