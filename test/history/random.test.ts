/**
 * Every kept moment is shown exactly: while random operations run through the mount, they are stopped
 * at random places and a full copy of the tree is kept as a reference, with inode numbers, link counts
 * and change times. Afterwards the views of these places are compared with the copies bit for bit,
 * with a continuous history and with snapshots only, also after the daemon was killed.
 *
 * HOLDFAST_OPS and HOLDFAST_SEED make it longer, or repeat it.
 */
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { ControlClient } from '../../src/daemon/client.js'
import { openView } from '../../src/daemon/views.js'
import { createSnapshot, mount } from '../../src/index.js'
import {
  Chance,
  chooseSeed,
  daemonPid,
  fillBase,
  kill,
  setting,
  signal,
} from '../harness/faults.js'
import { tool } from '../harness/files.js'
import { FILE_SYSTEMS, type Image, makeImage } from '../harness/image.js'
import { bash, run, start } from '../harness/run.js'
import { openSandbox } from '../harness/sandbox.js'
import { compareTrees, mountVolume, type TestVolume, unmountVolume } from '../harness/volume.js'

const ops = setting('HOLDFAST_OPS', 2_000)
const seed = chooseSeed()
const REFERENCES = 8
const MODES = ['continuous', 'snapshots'] as const

t.setTimeout(900_000 + ops * 60)
t.comment(`seed ${seed}, ${ops} operations: HOLDFAST_SEED=${seed} HOLDFAST_OPS=${ops}`)
const sandbox = await openSandbox(t)
const chance = new Chance(seed)
const images = await Promise.all(FILE_SYSTEMS.map((fs) => makeImage(sandbox, { fs, mib: 6144 })))

interface Reference {
  seq: bigint
  snapshot: string | undefined
  copy: string
  /** What a copy cannot keep: inode number, links, blocks, change time. */
  listing: string
}

const LISTING = `find . -printf '%i %n %y %s %C@ %T@ %P\\0' | LC_ALL=C sort -z`

async function listing(dir: string): Promise<string> {
  return bash(LISTING, { cwd: dir })
}

/** Lines that only one of the two has; a few. */
function differing(a: string, b: string): string {
  const [left, right] = [a, b].map((text) => text.split('\0')) as [string[], string[]]
  const only = (some: string[], others: string[]) => {
    const known = new Set(others)
    return some.filter((line) => !known.has(line)).slice(0, 5)
  }
  return [
    ...only(left, right).map((l) => `< ${l}`),
    ...only(right, left).map((l) => `> ${l}`),
  ].join('\n')
}

/** Nothing runs on the volume: the tree as it is, to be compared with later. */
async function keep(test: TestVolume, image: Image, n: number): Promise<Reference> {
  // Stores to mappings that nobody has written out are on no side of a moment.
  await bash('find . -type f -print0 | xargs -0 -r sync', { cwd: test.dir })
  const { name } = test.volume
  const copy = join(image.dir, `${name}.ref${n}`)
  const isSnapshot = name.includes('snapshots')
  const snapshot = isSnapshot ? `${name}-${n}` : undefined
  const seq =
    snapshot === undefined
      ? BigInt((await new ControlClient(name).status()).captured.seq)
      : BigInt((await createSnapshot({ volumes: [name], name: snapshot })).members[0]?.seq ?? 0)
  await run('cp', ['-a', '--reflink=never', '--sparse=always', '--', test.dir, copy])
  return { seq, snapshot, copy, listing: await listing(test.dir) }
}

async function check(t: Tap, test: TestVolume, references: Reference[], when: string) {
  for (const { seq, copy, listing: right } of references) {
    const view = await openView({ volume: test.volume.name, seq })
    t.equal(await compareTrees(view.path, copy), '', `${when}: view of ${seq} is exact`)
    t.equal(
      differing(await listing(view.path), right),
      '',
      `${when}: ${seq}: inodes, links and change times`,
    )
    await view.close()
  }
}
type Tap = Pick<typeof t, 'equal' | 'comment'>

function startLoad(test: TestVolume, image: Image, round: number): ChildProcess {
  const right = join(image.dir, `${test.volume.name}.right${round}`)
  mkdirSync(right)
  mkdirSync(join(test.dir, `r${round}`))
  const args = ['--left', join(test.dir, `r${round}`), '--right', right, '--users']
  return start(
    tool('fsdiff'),
    args.concat(['--ops', `${ops}`, '--seed', `${seed + round}`, '--check-every', '0']),
  )
}

for (const image of images) {
  const { fs } = image
  for (const mode of MODES) {
    await t.test(`history: ${mode} on ${fs}`, async (t) => {
      const name = `${mode}-${fs}`
      const test = await mountVolume(sandbox, image, {
        name,
        fill: fillBase,
        options: { history: mode },
      })
      const references = [await keep(test, image, 0)]
      for (const round of [1, 2]) {
        const load = startLoad(test, image, round)
        const ended = once(load, 'close')
        const group = -(load.pid ?? 0)
        for (let n = 0; n < REFERENCES / 2 && load.exitCode === null; n += 1) {
          await sleep(chance.between(50, 600))
          if (load.exitCode !== null) break
          signal(group, 'SIGSTOP')
          await sleep(100)
          references.push(await keep(test, image, round * 100 + n))
          signal(group, 'SIGCONT')
        }
        if (round === 1) {
          const [code] = await ended
          t.equal(code, 0, 'the load had the right results')
          await check(t, test, references, 'after the load')
        } else {
          await kill(daemonPid(name))
          await ended
          await mount({ dir: test.dir, name })
        }
      }
      references.push(await keep(test, image, 900))
      await check(t, test, references, 'after a kill')
      await bash('rm -rf -- ./*', { cwd: test.dir })
      await check(t, test, references, 'after the removal of everything')
      t.comment(`${name}: ${JSON.stringify((await test.volume.status()).history)}`)
      await unmountVolume(test)
      await mount({ dir: test.dir, name })
      await check(t, test, references, 'after an orderly restart')
      await unmountVolume(test)
    })
  }
}

t.test('history: what is younger than the snapshot takes no room', async (t) => {
  const [image] = images.filter(({ fs }) => fs === 'ext4')
  if (image === undefined) throw new Error('no ext4')
  const test = await mountVolume(sandbox, image, { name: 'younger' })
  await createSnapshot({ volumes: ['younger'], name: 'younger-0' })
  const { bytes: before = 0 } = (await test.volume.status()).history
  const temporary = 'dd if=/dev/zero of=t bs=1M count=48 conv=notrunc status=none'
  await bash(`${temporary}; ${temporary}; rm t; mkdir d; touch d/f; rm -r d`, { cwd: test.dir })
  const { bytes: after = 0, floor } = (await test.volume.status()).history
  t.equal(after, before, 'a file that is written twice and removed')
  const view = await openView({ volume: 'younger', seq: BigInt(floor) })
  t.equal(await bash('ls -A', { cwd: view.path }), '')
  await view.close()
  await unmountVolume(test)
})
