import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, cpSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { prune } from '../../src/journal/prune.js'
import { Journal } from '../../src/journal/store.js'
import { verifyJournal } from '../../src/journal/verify.js'
import { codeOf } from '../harness/code.js'
import { makeFrames, UUID } from './frames.js'

t.test('journal: what was appended is read back, from any place and both ways', async (t) => {
  const journal = Journal.open({ path: t.testdir(), uuid: UUID, create: true })
  t.teardown(() => journal.close())
  t.same(journal.end(), { lastSeq: 0n, chain: Buffer.alloc(8) })
  const frames = makeFrames({ count: 50 })
  journal.append(frames.slice(0, 20))
  journal.append(frames.slice(20))
  t.equal(journal.end().lastSeq, 150n)
  t.same(journal.end().chain, frames.at(-1)?.view.chain)
  const seqs = (range: Parameters<Journal['frames']>[0]) =>
    [...journal.frames(range)].map(({ firstSeq }) => Number(firstSeq))
  t.equal(seqs({}).length, 50)
  t.same(seqs({ from: 5n, to: 11n }), [4, 7, 10])
  t.same(seqs({ from: 148n }), [148])
  t.same(seqs({ from: 151n }), [])
  t.same(seqs({ reverse: true, to: 9n }), [7, 4, 1])
  t.same(seqs({ reverse: true, from: 146n }), [148, 145])
  t.equal(journal.frameAt(6n)?.firstSeq, 4n)
  t.equal(journal.frameAt(0n)?.firstSeq, 1n)
  t.equal(journal.frameAt(151n), undefined)
  const { frames: count, firstSeq, lastSeq, usedBytes } = journal.stat()
  t.same({ count, firstSeq, lastSeq }, { count: 50, firstSeq: 1n, lastSeq: 150n })
  t.ok(usedBytes > 0)
})

t.test('journal: frames that pass through one memory are the same frames', async (t) => {
  const journal = Journal.open({ path: t.testdir(), uuid: UUID, create: true })
  t.teardown(() => journal.close())
  const large = makeFrames({ count: 1, recordsPerFrame: 3, payloadBytes: 1 << 20 })
  const end = { lastSeq: 3n, chain: Buffer.from(large[0]?.view.chain ?? '') }
  const frames = [...large, ...makeFrames({ count: 60, after: end, payloadBytes: 300_000 })]
  journal.append(frames)
  const seen = (from: bigint) =>
    [...journal.passing(from)].map((frame) => Number(frame.firstSeq)).length
  let at = 0
  for (const frame of journal.passing(1n)) {
    if (!frame.bytes.equals(frames[at]?.bytes ?? Buffer.alloc(0))) t.fail(`frame ${at}`)
    at += 1
  }
  t.equal(at, frames.length, 'all of them, more than are kept cached')
  t.equal(seen(5n), 60, 'from within a frame on')
  t.equal(seen(journal.end().lastSeq + 1n), 0)
  prune(journal, { keepAfter: 10n, maxBytes: 0 })
  t.equal(seen(1n), [...journal.frames()].length, 'from the first that is left')
})

t.test('journal: frames as large as they may be', async (t) => {
  const journal = Journal.open({ path: t.testdir(), uuid: UUID, create: true })
  t.teardown(() => journal.close())
  const [frame] = makeFrames({ count: 1, recordsPerFrame: 3, payloadBytes: 1 << 20 })
  if (frame === undefined) throw new Error('no frame')
  journal.append([frame])
  t.ok(journal.lastFrame()?.bytes.equals(frame.bytes))
})

t.test('journal: refuses the journal of another volume and what is none', async (t) => {
  const path = t.testdir()
  t.equal(
    codeOf(() => Journal.open({ path, uuid: UUID })),
    'JOURNAL_MISSING',
  )
  t.equal(
    codeOf(() => Journal.open({ path, readOnly: true })),
    'JOURNAL_MISSING',
  )
  await Journal.open({ path, uuid: UUID, create: true }).close()
  t.equal(
    codeOf(() => Journal.open({ path, uuid: Buffer.alloc(16, 9) })),
    'FOREIGN_JOURNAL',
  )
})

t.test('journal: its state survives', async (t) => {
  const path = t.testdir()
  const journal = Journal.open({ path, uuid: UUID, create: true })
  journal.updateMeta({
    clean: false,
    checkpoint: { seq: 5n, timeNs: 1_700_000_000_123_456_789n },
    recapture: { reason: 'power loss', sinceNs: 1n, afterSeq: 5n },
  })
  await journal.close()
  const again = Journal.open({ path, uuid: UUID })
  t.teardown(() => again.close())
  t.match(again.meta(), {
    clean: false,
    checkpoint: { seq: 5n, timeNs: 1_700_000_000_123_456_789n },
    recapture: { reason: 'power loss', sinceNs: 1n, afterSeq: 5n },
    horizon: null,
  })
})

t.test('journal: another process reads while this one writes', async (t) => {
  const path = t.testdir()
  const journal = Journal.open({ path, uuid: UUID, create: true })
  const reader = Journal.open({ path, readOnly: true })
  const frames = makeFrames({ count: 4 })
  journal.append(frames.slice(0, 2))
  reader.refresh()
  t.equal(reader.end().lastSeq, 6n)
  journal.append(frames.slice(2))
  reader.refresh()
  t.equal(reader.end().lastSeq, 12n)
  const report = await verifyJournal({ path })
  t.match(report, { frames: 4, records: 12, lastSeq: '12', problemCount: 0 })
  await reader.close()
  await journal.close()
})

t.test('journal: what append returned for is there after SIGKILL', async (t) => {
  const script = fileURLToPath(new URL('./append-forever.js', import.meta.url))
  for (let round = 0; round < 5; round += 1) {
    const path = t.testdir()
    const child = spawn(process.execPath, [script, path], { stdio: ['ignore', 'pipe', 'inherit'] })
    let said = 0n
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      const lines = text.trim().split('\n')
      said = BigInt(lines.at(-1) ?? 0)
      if (said > 30n + BigInt(round * 17)) child.kill('SIGKILL')
    })
    await once(child, 'close')
    const report = await verifyJournal({ path })
    t.equal(report.problemCount, 0)
    t.ok(BigInt(report.lastSeq) >= said, `journal has ${report.lastSeq}, append said ${said}`)
    const journal = Journal.open({ path, uuid: UUID })
    journal.append(makeFrames({ count: 3, after: journal.end() }))
    await journal.close()
    t.equal((await verifyJournal({ path })).problemCount, 0)
  }
})

t.test(
  'journal: the flush log is ahead of LMDB, and the next start takes over from it',
  async (t) => {
    const path = t.testdir()
    const journal = Journal.open({ path, uuid: UUID, create: true })
    t.teardown(() => journal.close())
    const frames = makeFrames({ count: 9 })
    const dead = async (name: string) => {
      const copy = `${path}-${name}`
      t.teardown(() => rmSync(copy, { recursive: true }))
      cpSync(path, copy, { recursive: true })
      const again = Journal.open({ path: copy, uuid: UUID, afterPowerLoss: name === 'power' })
      const { lastSeq } = again.end()
      await again.close()
      t.equal((await verifyJournal({ path: copy })).problemCount, 0)
      return lastSeq
    }
    journal.append(frames.slice(0, 2))
    t.ok(journal.flushAhead(frames.slice(2, 4)), 'with what was appended and not flushed')
    t.equal(journal.end().lastSeq, 6n, 'LMDB does not have it')
    t.equal(await dead('power'), 12n)
    t.equal(await dead('process'), 12n)
    journal.sync()
    t.equal(await dead('synced'), 12n, 'a snapshot meanwhile loses nothing')
    journal.append(frames.slice(2, 5))
    t.equal(journal.end().lastSeq, 15n)
    t.equal(journal.unflushedBytes, frames[4]?.bytes.length, 'only the last is not durable')
    t.ok(journal.flushAhead(frames.slice(5, 7)))
    t.equal(await dead('again'), 21n)
    const log = openSync(join(path, 'flush.log'), 'r+')
    const torn = readFileSync(join(path, 'flush.log')).indexOf(frames[6]?.bytes ?? '')
    writeSync(log, Buffer.of(0xff, 0xff), 0, 2, torn + 100)
    closeSync(log)
    t.equal(await dead('torn'), 18n, 'up to the frame that is torn')
    const large = makeFrames({ count: 1, recordsPerFrame: 5, payloadBytes: 1 << 20 })
    t.notOk(journal.flushAhead(large), 'too large for the log')
  },
)
