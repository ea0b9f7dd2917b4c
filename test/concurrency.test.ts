/**
 * Many at once: processes on one volume, volumes side by side, mount and unmount over and over, and
 * unmounting what is in use.
 */
import { once } from 'node:events'
import { mkdirSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { HoldfastError, mount } from '../src/index.js'
import { projectFile } from './harness/files.js'
import { makeImage } from './harness/image.js'
import { bash, run, start } from './harness/run.js'
import { openSandbox } from './harness/sandbox.js'
import { mountVolume, onVolume, replayAndCompare } from './harness/volume.js'

t.setTimeout(process.env.HOLDFAST_FULL === '1' ? 590_000 : 480_000)

const PROCESSES = 64
const ROUNDS = 25
/** HOLDFAST_FULL=1 takes 50. */
const CYCLES = process.env.HOLDFAST_FULL === '1' ? 50 : 12
const CYCLES_FIRST = 5
/** A socket is closed soon after its answer has come. */
const SETTLE_MS = 500

const crowd = (dir: string, seconds: number) =>
  run('python3', [projectFile('test/harness/crowd.py'), dir, `${PROCESSES}`, `${ROUNDS}`], {
    timeoutMs: seconds * 1000,
  })

/** What this process has open: `anon_inode:[eventfd]`, `socket`, paths. */
function openDescriptors(): string[] {
  const targets = readdirSync('/proc/self/fd').map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).replace(/:\[\d+\]$/, '')
    } catch {
      return 'the listing itself'
    }
  })
  return targets.sort()
}

/** What `look` sees once a connection that has been answered is closed, too. */
async function settled<T>(look: () => T): Promise<T> {
  await sleep(SETTLE_MS)
  return look()
}

const sandbox = await openSandbox(t)

t.test(
  '64 processes create, write, rename, link, map and fsync in the same directories',
  async (t) => {
    for (const fs of ['xfs', 'ext4'] as const) {
      const image = await makeImage(sandbox, { fs, name: `crowd-${fs}` })
      await onVolume(t, { sandbox, image, name: `crowd-${fs}` }, async ({ dir }) => {
        t.equal(await crowd(dir, 100), 'whole\n', `${fs}: everybody found what they wrote`)
      })
    }
  },
)

t.test('two volumes at once, one process moving files between them', async (t) => {
  const image = await makeImage(sandbox, { fs: 'xfs', name: 'pair' })
  const left = await mountVolume(sandbox, image, { name: 'left' })
  const right = await mountVolume(sandbox, image, { name: 'right' })
  const work = (dir: string) => bash(`mkdir ${dir}/w && cp -r /usr/include/linux ${dir}/w`)
  await Promise.all([work(left.dir), work(right.dir)])
  await bash(`mv ${left.dir}/w ${right.dir}/from-left; mv ${right.dir}/w ${left.dir}/from-right`)
  await run('diff', ['-r', join(right.dir, 'from-left'), join(left.dir, 'from-right')])
  const differences = await Promise.all([replayAndCompare(left), replayAndCompare(right)])
  t.strictSame(differences, ['', ''], 'each journal replays to its tree')
})

t.test('unmount of a volume in use: refused, naming who; forced', async (t) => {
  const image = await makeImage(sandbox, { fs: 'ext4', name: 'busy' })
  const { dir, volume } = await mountVolume(sandbox, image, { name: 'busy' })
  const script = 'exec 3>"$0/open"; echo first >&3; echo ready; read go; echo late >&3 || echo dead'
  const user = start('bash', ['-c', script, dir])
  const [ready] = await once(user.stdout as NodeJS.ReadableStream, 'data')
  t.equal(String(ready), 'ready\n')
  const refusal = await volume.unmount().catch((error: unknown) => error)
  t.ok(refusal instanceof HoldfastError && refusal.code === 'BUSY', 'BUSY')
  t.match(String(refusal), new RegExp(`bash\\[${user.pid}\\] open file .*/open`), 'says who')
  writeFileSync(join(dir, 'goes-on'), 'still protected')
  t.equal((await volume.status()).state, 'protected', 'and goes on')
  const forced = volume.unmount({ force: true })
  const ended = once(user, 'exit')
  user.stdin?.write('go\n')
  await forced
  await ended
  const log = await volume.verify()
  t.equal(log.problemCount, 0, 'the journal is whole')
  t.equal(readFileSync(join(dir, 'goes-on'), 'utf8'), 'still protected')
  t.match(readFileSync(join(dir, 'open'), 'utf8'), /^first\n/)
})

t.test(`mount and unmount ${CYCLES} times`, async (t) => {
  const image = await makeImage(sandbox, { fs: 'xfs', name: 'cycles' })
  const test = await mountVolume(sandbox, image, { name: 'cycles' })
  const left = () => ({
    descriptors: openDescriptors(),
    rings: readdirSync(sandbox.rings).length,
    run: readdirSync(join(sandbox.root, 'run')).length,
    mounts: readFileSync('/proc/self/mounts', 'utf8').split(sandbox.root).length,
  })
  let after: ReturnType<typeof left> | undefined
  for (let n = 0; n < CYCLES; n += 1) {
    mkdirSync(join(test.dir, `round-${n}`))
    await test.volume.unmount()
    t.equal(left().rings, 0, 'an orderly stop leaves nothing in the ring')
    if (n === CYCLES_FIRST) after = await settled(left)
    if (n === CYCLES - 1) t.strictSame(await settled(left), after, 'nothing is left behind')
    test.volume = await mount({ dir: test.dir, name: 'cycles' })
    const { ring } = test.volume.start ?? {}
    t.equal(ring, 'created', 'nothing to recover')
  }
  t.equal(readdirSync(test.dir).length, CYCLES, 'every round is there')
  t.equal(await replayAndCompare(test), '', 'replay gives the same tree')
})
