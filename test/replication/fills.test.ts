/**
 * A baseline of large files: their data goes past the journals, while applications change them, names go
 * and come, and either side is killed. In the end the trees are equal, and a comparison finds nothing.
 */
import { randomBytes } from 'node:crypto'
import {
  closeSync,
  copyFileSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { Chance, chooseSeed, kill, until } from '../harness/faults.js'
import { makeHosts } from '../harness/hosts.js'
import { makeImage } from '../harness/image.js'
import { run } from '../harness/run.js'
import { openSandbox } from '../harness/sandbox.js'
import { compareTrees } from '../harness/volume.js'

const MIB = 2 ** 20
const FILES = 6
const FILE_BYTES = 48 * MIB
/** Slow enough that a baseline lasts for some seconds. */
const LINK_MBIT = 400

t.setTimeout(600_000)
const seed = chooseSeed()
t.comment(`seed ${seed}: HOLDFAST_SEED=${seed}`)
const chance = new Chance(seed)
const sandbox = await openSandbox(t)
const [primary, replica] = await makeHosts(sandbox)
const [here, there] = await Promise.all(
  ['here', 'there'].map((name) => makeImage(sandbox, { fs: 'xfs', mib: 4096, name })),
)
if (here === undefined || there === undefined) throw new Error('no images')
const dir = join(here.dir, 'data')
const root = join(there.dir, 'replicas')
const tree = join(root, 'data', 'tree')
const content = randomBytes(FILE_BYTES)
const large = (n: number) => join(dir, `large-${n}`)
const shown = async () => {
  const [found] = (await primary.status('data')).replicas
  if (found === undefined) throw new Error('no replica in the status')
  return found
}
const filling = () => until(async () => (await shown()).needs > 0, 'fills')
const applied = async () => {
  await primary.holdfast('wait', 'data', '--for', 'applied', '--timeout', '200s')
}

mkdirSync(dir)
for (let n = 0; n < FILES; n += 1) writeFileSync(large(n), content)
writeFileSync(join(dir, 'small'), 'small')
// Holes at the beginning, between data, and at the end.
const sparse = openSync(join(dir, 'sparse'), 'w')
for (const at of [5 * MIB, 40 * MIB + 4096]) writeSync(sparse, content, 0, 3 * MIB, at)
ftruncateSync(sparse, 200 * MIB)
closeSync(sparse)
for (const name of ['capable', 'sealed', 'appended']) {
  writeFileSync(join(dir, name), content.subarray(0, MIB + 5))
}
await run('setcap', ['cap_net_raw+ep', join(dir, 'capable')])
await run('chattr', ['+i', join(dir, 'sealed')])
await run('chattr', ['+a', join(dir, 'appended')])
t.teardown(() => run('chattr', ['-R', '-f', '-i', '-a', dir, tree]).catch(() => {}))
await primary.holdfast('mount', dir, '--ring', sandbox.rings, '--ring-size', '64M')
await replica.serve(root)
await primary.introduce(replica)
await primary.throttle(LINK_MBIT)

/** Something that changes a large file, or what it is called. */
async function change(): Promise<void> {
  const path = large(chance.between(0, FILES - 1))
  switch (chance.between(0, 7)) {
    case 0:
      renameSync(path, `${path}.new`)
      renameSync(`${path}.new`, path)
      return
    case 1:
      await run('fallocate', [
        '--punch-hole',
        '-o',
        `${chance.between(0, 40) * MIB}`,
        '-l',
        '300000',
        path,
      ])
      return
    case 2:
      rmSync(path)
      writeFileSync(path, content.subarray(0, chance.between(0, 2 * MIB)))
      return
    case 3:
      copyFileSync(path, join(dir, `copy-${chance.between(0, 2)}`))
      return
    default: {
      const fd = openSync(path, 'r+')
      for (let n = 0; n < 20; n += 1) {
        writeSync(fd, randomBytes(5000), 0, 5000, Math.floor(chance.next() * FILE_BYTES))
      }
      if (chance.next() < 0.2) ftruncateSync(fd, Math.floor(chance.next() * FILE_BYTES))
      closeSync(fd)
    }
  }
}

await t.test('fills: what a baseline leaves out comes past the journals', async (t) => {
  const before = (await primary.status('data')).journal
  await primary.holdfast('replicate', 'data', '--to', 'replica')
  await filling()
  const under = await shown()
  t.equal(under.copy, 'Inconsistent')
  await until(async () => ((await shown()).baseline?.bytes ?? 0) > 20 * MIB, 'progress')
  const { baseline } = await shown()
  t.ok(baseline !== null && (baseline.percent ?? 0) > 5 && (baseline.percent ?? 100) < 100)
  t.equal((baseline?.bytesTotal ?? 0) > FILES * FILE_BYTES, true)
  const early = await primary.tryHoldfast('wait', 'data', '--for', 'logged', '--timeout', '100ms')
  t.not(early.code, 0, 'what is not there is not logged')
  await applied()
  const { copy, needs } = await shown()
  t.same({ copy, needs }, { copy: 'UpToDate', needs: 0 })
  const { usedBytes } = (await primary.status('data')).journal
  t.ok(usedBytes - before.usedBytes < 64 * MIB, `the journal has ${usedBytes} bytes`)
  await compareTrees(dir, tree)
})

await t.test('fills: changes, deaths of both sides, and in the end the same', async (t) => {
  for (const victim of ['nobody', 'replica', 'primary', 'link'] as const) {
    await primary.holdfast('replicate', 'data', '--stop', 'replica')
    await replica.stopServing()
    await run('chattr', ['-R', '-f', '-i', '-a', join(root, 'data')]).catch(() => {})
    rmSync(root, { recursive: true, force: true })
    await replica.startAgain()
    await primary.holdfast('replicate', 'data', '--to', 'replica')
    await filling()
    for (let n = 0; n < 30; n += 1) await change()
    switch (victim) {
      case 'replica':
        await replica.stopServing('SIGKILL')
        for (let n = 0; n < 5; n += 1) await change()
        await replica.startAgain()
        break
      case 'primary':
        // Whose daemon does not remember what was to be filled.
        await kill(primary.daemonPid('data'))
        await primary.holdfast('mount', 'data')
        break
      case 'link':
        await primary.setLink('down')
        await sleep(1000)
        await primary.setLink('up')
        break
    }
    for (let n = 0; n < 30; n += 1) await change()
    await applied()
    const { needs, resyncs } = await shown()
    t.equal(needs, 0, victim)
    t.comment(`${victim}: ${resyncs} resyncs`)
    await compareTrees(dir, tree)
    const verified = await primary.holdfast('verify', 'data')
    t.match(verified, /no difference|equal|0 differences/i, victim)
  }
})
