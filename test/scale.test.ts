/**
 * A tree of very many files: find, du, rsync and a remount, with fewer descriptors than files, and in
 * bounded memory. HOLDFAST_FULL=1 takes a million files, as the bound says; else 200,000.
 */
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { open } from '../src/index.js'
import { HOLDFAST, projectFile } from './harness/files.js'
import { makeImage } from './harness/image.js'
import { run } from './harness/run.js'
import { openSandbox } from './harness/sandbox.js'

t.setTimeout(600_000)

const FILES_EACH = 1000
const DIRECTORIES = process.env.HOLDFAST_FULL === '1' ? 1000 : 200
const OBJECTS = DIRECTORIES * (FILES_EACH + 1) + 1
const DESCRIPTORS_MAX = 20_000
/** DESIGN: a tree of 1 M files adds at most 300 MB. */
const BYTES_PER_FILE_MAX = 300
/** What a process touches at its first work, whatever the number of files. */
const BYTES_FIRST_USE = 16 << 20

/** Bytes, from /proc/PID/status. */
function residentBytes(pid: number): number {
  const kib = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
  return Number(kib) * 1024
}

async function timed<T>(t: Tap, what: string, work: () => Promise<T>): Promise<T> {
  const begun = performance.now()
  const result = await work()
  t.comment(`${what}: ${((performance.now() - begun) / 1000).toFixed(1)} s`)
  return result
}
type Tap = Pick<typeof t, 'comment'>

const sandbox = await openSandbox(t)

t.test(`scale: ${OBJECTS} objects`, async (t) => {
  const mib = 512 + Math.ceil((OBJECTS * 5200) / 2 ** 20)
  const image = await makeImage(sandbox, { fs: 'xfs', mib, mkfs: ['-i', 'maxpct=50'] })
  const dir = join(image.dir, 'many')
  mkdirSync(dir)
  const makers = [projectFile('test/harness/many-files.py'), dir, DIRECTORIES, FILES_EACH]
  await timed(t, 'make', () => run('python3', makers.map(String), { timeoutMs: 300_000 }))

  const holdfast = (...args: string[]) =>
    run('prlimit', [
      `--nofile=${DESCRIPTORS_MAX}:${DESCRIPTORS_MAX}`,
      ...[process.execPath, HOLDFAST, ...args],
    ])
  const mount = () =>
    holdfast('mount', dir, '--name', 'many', '--ring', sandbox.rings, '--ring-size', '64M')
  const find = async () => (await run('find', [dir, '-printf', 'x'])).length

  await timed(t, 'mount', mount)
  const volume = open('many')
  const { pid } = await volume.status()
  const limits = readFileSync(`/proc/${pid}/limits`, 'utf8')
  t.match(limits, /Max open files +20000 +20000/, 'the daemon has no more descriptors')

  const before = residentBytes(pid)
  t.equal(await timed(t, 'find', find), OBJECTS, 'find sees every object')
  const usage = await timed(t, 'du', () => run('du', ['-s', '--apparent-size', '-B1', dir]))
  t.ok(Number.parseInt(usage, 10) >= DIRECTORIES * FILES_EACH * 6, 'du')
  const empty = join(image.dir, 'empty')
  mkdirSync(empty)
  const rsync = ['-aHAXn', '--stats', `${dir}/`, `${empty}/`]
  const stats = await timed(t, 'rsync -n', () => run('rsync', rsync, { timeoutMs: 300_000 }))
  t.match(stats.replaceAll(',', ''), new RegExp(`Number of files: ${OBJECTS} `), 'rsync')

  const { inodes, descriptors, panics } = await volume.status()
  const growth = residentBytes(pid) - before
  const each = (growth / OBJECTS).toFixed(0)
  t.comment(
    `${inodes} inodes known, ${descriptors} descriptors, ${growth} bytes more (${each} each)`,
  )
  t.ok(inodes >= OBJECTS, 'all of them are known at one time')
  t.ok(descriptors < DESCRIPTORS_MAX / 2, 'descriptors stay bounded')
  t.ok(growth <= OBJECTS * BYTES_PER_FILE_MAX + BYTES_FIRST_USE, 'memory stays in its bound')
  t.equal(panics, 0)

  await run('bash', ['-c', `for i in {1..100}; do echo more >>dir-0001/file-0$i; done`], {
    cwd: dir,
  })
  await timed(t, 'unmount', () => holdfast('unmount', 'many'))
  await timed(t, 'mount again', mount)
  t.equal(await timed(t, 'find', find), OBJECTS + 99, 'everything is there after a remount')
  await holdfast('unmount', 'many')
})
