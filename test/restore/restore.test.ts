/**
 * Moments of real volumes are compared and brought back. Random changes of every kind run through the
 * mount; what a diff claims is judged by an independent model; a restore in place gives the tree that
 * was there, bit for bit, also when it was killed again and again; it can be undone; and the journal,
 * replayed on a copy of the base, gives the same tree as the volume.
 *
 * HOLDFAST_ROUNDS and HOLDFAST_SEED make it longer, or repeat it.
 */
import { once } from 'node:events'
import { existsSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import * as views from '../../src/daemon/views.js'
import {
  createSnapshot,
  type DiffOptions,
  diffMoments,
  type ErrorCode,
  type RestoreOptions,
  restoreMoment,
  type TreeChange,
} from '../../src/index.js'
import { Chance, chooseSeed, setting } from '../harness/faults.js'
import { HOLDFAST } from '../harness/files.js'
import { FILE_SYSTEMS, type Image, makeImage } from '../harness/image.js'
import { attempt, run, start } from '../harness/run.js'
import { openSandbox } from '../harness/sandbox.js'
import { makeTree } from '../harness/tree.js'
import { compareTrees, mountVolume, replayAndCompare, type TestVolume } from '../harness/volume.js'
import { judge, list } from './model.js'
import { everything, Mutator } from './mutate.js'

const rounds = setting('HOLDFAST_ROUNDS', 3)
const seed = chooseSeed()
const CHANGES = 150
const KILLS = 8
/** Pairs of moments that are compared in two ways, each round. */
const WAYS = 12

t.setTimeout(300_000 + rounds * 60_000)
t.comment(`seed ${seed}: HOLDFAST_SEED=${seed} HOLDFAST_ROUNDS=${rounds}`)
const sandbox = await openSandbox(t)
const images = await Promise.all(FILE_SYSTEMS.map((fs) => makeImage(sandbox, { fs })))

async function protect(
  image: Image,
  name: string,
  fill: (dir: string) => unknown = makeTree,
): Promise<TestVolume> {
  // Beside the volume: what goes at once is cloned.
  const historyDirectory = join(image.dir, `${name}.history`)
  const options = { history: 'continuous' as const, historyDirectory }
  return mountVolume(sandbox, image, { name, fill, options })
}

/** A copy of the tree as it is, outside of the volume. */
async function keep(image: Image, { dir }: TestVolume, name: string): Promise<string> {
  const copy = join(image.dir, name)
  await run('cp', ['-a', '--reflink=never', '--sparse=always', '--', dir, copy])
  return copy
}

type Views = NonNullable<DiffOptions['views']>

/** Nothing is known of what has changed: both trees are walked. */
const unknowing: Views = { ...views, changedBetween: async () => undefined }

async function diffBy(by: Views, options: Omit<DiffOptions, 'views'>): Promise<TreeChange[]> {
  return diffMoments({ ...options, views: by }, async ({ changes }) => {
    const all: TreeChange[] = []
    for await (const change of changes) all.push(change)
    return all
  })
}

const diff = (volume: string, from: string, to?: string, path?: string) =>
  diffBy(views, { volume, from, to, path })
const walk = (volume: string, from: string, to?: string, path?: string) =>
  diffBy(unknowing, { volume, from, to, path })

/** What is found by what the history names as changed is what a walk of both trees finds. */
async function compareWays(t: Tap, volume: string, [then, now]: [bigint, bigint]): Promise<number> {
  const chance = new Chance(seed + Number(now))
  let known = 0
  for (let n = 0; n < WAYS; n += 1) {
    const a = chance.between(Number(then), Number(now))
    // Over a short time no object with several names may be among them.
    const near = Math.min(Number(now), a + chance.between(1, 25))
    const b = chance.next() < 0.6 ? near : chance.between(Number(then), Number(now))
    const to = chance.next() < 0.2 ? undefined : `seq:${b}`
    const path = chance.pick([undefined, undefined, 'deep', 'many'])
    const moments = [volume, `seq:${a}`, to, path] as const
    t.same(await diff(...moments), await walk(...moments), moments.join(' '))
    const upTo = to === undefined ? undefined : BigInt(Math.max(a, b))
    const from = to === undefined ? a : Math.min(a, b)
    const changed = await views.changedBetween(volume, BigInt(from), upTo)
    if (changed?.directories !== undefined) known += 1
  }
  t.comment(`${known} of ${WAYS} named the directories`)
  return known
}
type Tap = Pick<typeof t, 'same' | 'comment'>

const restoreAll = (volume: string, seq: bigint) =>
  restoreMoment({ volume, to: { kind: 'seq', seq } }, (restoration) => restoration.run())

for (const image of images) {
  t.test(
    `restore on ${image.fs}: random changes are told truly, undone, and undone again`,
    async (t) => {
      const name = `random-${image.fs}`
      const test = await protect(image, name)
      const mutator = new Mutator(test.dir, new Chance(seed))
      for (let round = 0; round < rounds; round += 1) {
        const before = list(test.dir)
        const then = await test.volume.flush()
        const copy = await keep(image, test, `${name}.${round}`)
        mutator.mutate(CHANGES)
        const now = await test.volume.flush()
        const after = list(test.dir)
        const changed = await keep(image, test, `${name}.${round}.changed`)
        t.same(judge(before, after, await diff(name, `seq:${then}`)), [], 'a diff to now is true')
        const back = await diff(name, `seq:${now}`, `seq:${then}`)
        t.same(judge(after, before, back), [], 'a diff of views, backwards, is true')
        t.same(back, await walk(name, `seq:${now}`, `seq:${then}`), 'as a walk tells it')
        await compareWays(t, name, [then, now])
        t.equal(await restoreAll(name, then), 0, 'nothing is left undone')
        t.equal(await compareTrees(test.dir, copy), '', 'it is what it was')
        t.same(await diff(name, `seq:${then}`), [], 'and no difference is told')
        t.equal(await restoreAll(name, now), 0)
        t.equal(await compareTrees(test.dir, changed), '', 'the restore is undone')
        for (const path of [copy, changed]) rmSync(path, { recursive: true })
      }
      t.equal(await replayAndCompare(test), '', 'all of it was journaled')
    },
  )

  t.test(`restore on ${image.fs}: the directories that the history names are all`, async (t) => {
    const name = `named-${image.fs}`
    const fill = (dir: string) =>
      makeTree(dir).then(() => run('rm', ['deep/hard-1', 'many/hard-2'], { cwd: dir }))
    const test = await protect(image, name, fill)
    const mutator = new Mutator(test.dir, new Chance(seed + 1), { links: false })
    for (let round = 0; round < rounds; round += 1) {
      const then = await test.volume.flush()
      const copy = await keep(image, test, `${name}.${round}`)
      mutator.mutate(CHANGES)
      const now = await test.volume.flush()
      t.equal(await compareWays(t, name, [then, now]), WAYS, 'it always names them')
      t.equal(await restoreAll(name, then), 0)
      t.equal(await compareTrees(test.dir, copy), '', 'it is what it was')
      t.equal(await restoreAll(name, now), 0)
    }
    t.equal(await replayAndCompare(test), '', 'all of it was journaled')
  })

  t.test(`restore on ${image.fs}: everything deleted, killed while it comes back`, async (t) => {
    const name = `killed-${image.fs}`
    const test = await protect(image, name)
    await createSnapshot({ volumes: [name], name: `whole-${image.fs}` })
    const copy = await keep(image, test, `${name}.copy`)
    await run('bash', ['-c', 'rm -rf -- * .[!.]*'], { cwd: test.dir })
    t.same(readdirSync(test.dir), [])
    const args = [HOLDFAST, 'restore', name, '--to-snapshot', `whole-${image.fs}`]
    const chance = new Chance(seed)
    for (let kills = 0; kills < KILLS; kills += 1) {
      const child = start(process.execPath, args)
      const ended = once(child, 'exit')
      // It has said which moment it brings back: it begins.
      await once(child.stderr ?? child, 'data')
      await sleep(chance.between(0, 400))
      child.kill('SIGKILL')
      await ended
      t.comment(`kill ${kills + 1}: ${everything(test.dir).length} objects are there`)
    }
    const { code, stderr } = await attempt(process.execPath, args)
    t.equal(code, 0, stderr)
    t.equal(await compareTrees(test.dir, copy), '', 'it is what it was')
    t.equal(await replayAndCompare(test), '', 'all of it was journaled')
  })

  t.test(
    `restore on ${image.fs}: a copy elsewhere, a folder, a file, and what is refused`,
    async (t) => {
      const name = `parts-${image.fs}`
      const test = await protect(image, name)
      const then = `${await test.volume.flush()}`
      const copy = await keep(image, test, `${name}.copy`)
      const cli = (...args: string[]) => attempt(process.execPath, [HOLDFAST, ...args])
      await run(
        'bash',
        ['-euc', 'rm -r deep; echo new >many/file-9; rm many/file-10; mkdir late'],
        {
          cwd: test.dir,
        },
      )
      const output = join(image.dir, `${name}.out`)
      const whole = await cli('restore', name, '--to-seq', then, '--output', output)
      t.equal(whole.code, 0, whole.stderr)
      t.equal(await compareTrees(output, copy, '--holes'), '', 'the copy is exact')
      t.notOk(existsSync(`${output}.holdfast-restore`), 'its note is gone')
      const refused = async (options: Partial<RestoreOptions>, code: ErrorCode) => {
        const restore = { volume: name, to: `seq:${then}`, ...options }
        await t.rejects(
          restoreMoment(restore, async ({ run }) => run()),
          { code },
        )
      }
      await refused({ output }, 'NOT_EMPTY')
      const dry = await cli('restore', name, 'deep', '--to-seq', then, '--dry-run')
      t.match(dry.stdout, /created {3}deep\/\n/)
      t.notOk(existsSync(join(test.dir, 'deep')))
      const folder = await cli('restore', name, join(test.dir, 'deep'), '--to-seq', then)
      t.match(folder, {
        code: 0,
        stderr: /undo it: holdfast restore parts-\w+ 'deep' --to-seq \d+/,
      })
      t.equal(
        await compareTrees(join(test.dir, 'deep'), join(copy, 'deep'), '--ignore', 'nlink'),
        '',
      )
      const file = { volume: name, path: 'many/file-9', to: `seq:${then}` }
      t.equal(await restoreMoment(file, async ({ run }) => run()), 0)
      const left = await diff(name, `seq:${then}`)
      const told = left.filter(({ object }) => object === 'file').map(({ path }) => `${path}`)
      t.same(
        told,
        ['deep/a/big', 'deep/hard-1', 'many/file-10'].filter((path) => told.includes(path)),
      )
      t.ok(told.includes('many/file-10'), 'nothing else was touched')
      await refused({ path: 'late' }, 'NOT_THEN')
      t.ok(existsSync(join(test.dir, 'late')))
      await refused({ to: 'seq:99999999' }, 'HISTORY_RANGE')
      await refused({ path: '/etc' }, 'USAGE')
      await refused({ path: 'deep/../../etc' }, 'USAGE')
      await refused({ output: join(test.dir, 'inside') }, 'USAGE')
      await t.rejects(diff(name, '1 year ago'), { message: /any moment from seq \d+ to/ })
      t.match(await cli('restore', name), { code: 2, stderr: /to which moment/ })
      t.equal(await replayAndCompare(test), '', 'all of it was journaled')
    },
  )
}
