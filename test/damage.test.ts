/**
 * A damaged journal of a real volume: `journal verify` names what is wrong and where, replay and
 * mount refuse it with a message and an exit code of their own, and neither loses anything: with the
 * journal restored everything goes on.
 */
import {
  closeSync,
  cpSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { mount, open } from '../src/index.js'
import { Journal } from '../src/journal/store.js'
import { parseUuid } from '../src/record/frame.js'
import { Load } from './harness/faults.js'
import { HOLDFAST } from './harness/files.js'
import { makeImage } from './harness/image.js'
import { attempt, type RunResult, run } from './harness/run.js'
import { openSandbox } from './harness/sandbox.js'
import { compareTrees, mountVolume } from './harness/volume.js'

const DAMAGED = 5
const REFUSED = 4

t.setTimeout(480_000)
const sandbox = await openSandbox(t)
const image = await makeImage(sandbox, { fs: 'xfs', mib: 1024 })
const name = 'damaged'
const test = await mountVolume(sandbox, image, { name })
const { dir, base } = test
const state = test.volume.stateDirectory
const journal = join(state, 'journal')
const whole = join(sandbox.root, 'whole')
mkdirSync(join(dir, 'load'))
const ack = join(sandbox.root, 'damage.ack')
const load = await Load.begin({ dir: join(dir, 'load'), ack, seed: 7, ops: 400, fsyncRate: 0.1 })
await load.end()
await test.volume.unmount()
cpSync(state, whole, { recursive: true })

function holdfast(...args: string[]): Promise<RunResult> {
  return attempt(process.execPath, [HOLDFAST, ...args])
}

function restore(): void {
  rmSync(state, { recursive: true })
  cpSync(whole, state, { recursive: true })
}

/** First seqs and bytes of all frames. */
async function frames(): Promise<{ firstSeq: bigint; bytes: Buffer }[]> {
  const opened = Journal.open({ path: journal, readOnly: true })
  const all = [...opened.frames()].map((f) => ({
    firstSeq: f.firstSeq,
    bytes: Buffer.from(f.bytes),
  }))
  await opened.close()
  return all
}

/**
 * Flips one bit in every copy of a frame: LMDB copies pages on write, so a small frame may also
 * lie in pages that nothing refers to any more, and damage there alone harms nobody.
 */
function flip(file: string, frame: Buffer, at: number): void {
  const bytes = readFileSync(file)
  const head = frame.subarray(0, 80)
  const fd = openSync(file, 'r+')
  for (let from = bytes.indexOf(head); from >= 0; from = bytes.indexOf(head, from + 1)) {
    const place = from + head.length + at
    writeSync(fd, Buffer.of((bytes[place] ?? 0) ^ 0x40), 0, 1, place)
  }
  closeSync(fd)
}

/** Replays onto a fresh copy of the base. */
async function replayFresh(): Promise<RunResult & { target: string }> {
  const target = join(image.dir, 'target')
  await run('rm', ['-rf', target, `${target}.holdfast-replay`])
  await run('cp', ['-a', '--reflink=never', base, target])
  return { ...(await holdfast('journal', 'replay', name, '--onto', target, '--json')), target }
}

/** What `journal verify --json` reports. */
async function verify(): Promise<{ code: number | string; problems: { code: string }[] }> {
  const { code, stdout, stderr } = await holdfast('journal', 'verify', name, '--json')
  const report = JSON.parse(stdout || stderr) as { problems?: { code: string }[] }
  return { code, problems: report.problems ?? [] }
}

/** After every damage: the journal restored, nothing was lost. */
async function nothingLost(t: Pick<Tap, 'equal' | 'match'>): Promise<void> {
  restore()
  const { code, stderr, target } = await replayFresh()
  t.equal(code, 0, `the restored journal replays ${stderr}`)
  t.equal(await compareTrees(dir, target), '', 'and equals the tree')
}
type Tap = typeof t

await t.test('damage: a flipped byte in a frame', async (t) => {
  const all = await frames()
  const victim = all[Math.floor(all.length / 2)]
  if (victim === undefined) throw new Error('no frames')
  const file = join(journal, 'data.mdb')
  flip(file, victim.bytes, 40)
  const { code, problems } = await verify()
  t.equal(code, DAMAGED)
  t.match(problems, [{ code: 'RECORD_CRC', frame: `${victim.firstSeq}` }], 'named with its frame')
  t.equal(problems.length, 1, 'and nothing else')
  const { code: ended, stderr } = await replayFresh()
  t.equal(ended, DAMAGED, 'replay stops there')
  t.match(stderr, new RegExp(`REPLAY_CORRUPT.*seq ${victim.firstSeq}\\b`), stderr.trim())
  await nothingLost(t)
})

await t.test('damage: a flipped byte in the last frame refuses the mount', async (t) => {
  const last = (await frames()).at(-1)
  if (last === undefined) throw new Error('no frames')
  const file = join(journal, 'data.mdb')
  flip(file, last.bytes, 8)
  const { code, stderr } = await holdfast('mount', dir, '--name', name)
  t.equal(code, DAMAGED, stderr.trim())
  t.match(stderr, /verify/, 'the hint says what to do')
  await nothingLost(t)
})

await t.test('damage: a frame deleted', async (t) => {
  const all = await frames()
  const index = Math.floor(all.length / 3)
  const uuid = parseUuid(open(name).config.uuid)
  const opened = Journal.open({ path: journal, uuid })
  const meta = opened.meta()
  opened.removeFrames([all[index]?.firstSeq ?? 0n], { lastSeq: 0n, chain: Buffer.alloc(8) })
  opened.setMeta({ ...opened.meta(), horizon: meta.horizon })
  await opened.close()
  const { code, problems } = await verify()
  t.equal(code, DAMAGED)
  t.match(problems, [{ code: 'FRAME_GAP', frame: `${all[index + 1]?.firstSeq}` }])
  const { code: ended, stderr } = await replayFresh()
  t.equal(ended, DAMAGED, stderr.trim())
  t.match(stderr, /missing|gap/i)
  await nothingLost(t)
})

await t.test('damage: a truncated file', async (t) => {
  const file = join(journal, 'data.mdb')
  for (const keep of [0.95, 0.6, 0.2]) {
    restore()
    truncateSync(file, Math.floor((statSync(file).size * keep) / 4096) * 4096)
    const { code, problems } = await verify()
    t.equal(code, DAMAGED, `${keep} kept`)
    t.match(problems[0], { code: 'JOURNAL_TRUNCATED' })
    const replayed = await replayFresh()
    t.equal(replayed.code, DAMAGED, `replay: ${replayed.stderr.trim()}`)
    const mounted = await holdfast('mount', dir, '--name', name)
    t.equal(mounted.code, DAMAGED, `mount: ${mounted.stderr.trim()}`)
  }
  await nothingLost(t)
})

await t.test('damage: the journal of another volume', async (t) => {
  const other = await mountVolume(sandbox, image, { name: 'other' })
  writeFileSync(join(other.dir, 'file'), 'of another')
  await other.volume.unmount()
  rmSync(journal, { recursive: true })
  cpSync(join(other.volume.stateDirectory, 'journal'), journal, { recursive: true })
  for (const args of [
    ['mount', dir, '--name', name],
    ['journal', 'verify', name],
  ]) {
    const { code, stderr } = await holdfast(...args)
    t.equal(code, REFUSED, `${args[0]}: ${stderr.trim()}`)
    t.match(stderr, other.volume.config.uuid)
  }
  const { code, stderr } = await replayFresh()
  t.equal(code, REFUSED, stderr.trim())
  await nothingLost(t)
})

await t.test('damage: an unknown format version', async (t) => {
  const opened = Journal.open({ path: journal, uuid: parseUuid(open(name).config.uuid) })
  const last = opened.lastFrame()
  if (last === undefined) throw new Error('no frames')
  const bytes = Buffer.from(last.bytes)
  bytes.writeUInt8(2, 4)
  opened.append([{ firstSeq: last.firstSeq, bytes }])
  await opened.close()
  const found = await verify()
  t.match(found.problems, [{ code: 'FRAME_VERSION' }], JSON.stringify(found.problems))
  const mounted = await holdfast('mount', dir, '--name', name)
  t.equal(mounted.code, REFUSED, mounted.stderr.trim())
  t.match(mounted.stderr, /version 2/)
  const replayed = await replayFresh()
  t.equal(replayed.code, REFUSED, replayed.stderr.trim())
  await nothingLost(t)
})

await t.test('damage: after all of it the volume goes on', async (t) => {
  const volume = await mount({ dir, name })
  writeFileSync(join(dir, 'after'), 'goes on')
  await volume.unmount()
  const { code, target } = await replayFresh()
  t.equal(code, 0)
  t.equal(await compareTrees(dir, target), '')
})
