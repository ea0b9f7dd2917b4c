import { closeSync, openSync, readFileSync, truncateSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { Journal } from '../../src/journal/store.js'
import { missingFileBytes, verifyFrames, verifyJournal } from '../../src/journal/verify.js'
import { makeFrames, UUID } from './frames.js'

async function journalOf(path: string, count: number, drop: number[] = []): Promise<string> {
  const journal = Journal.open({ path, uuid: UUID, create: true })
  const frames = makeFrames({ count, payloadBytes: 3000 })
  journal.append(frames.filter((_, index) => !drop.includes(index)))
  await journal.close()
  return path
}

t.test('verify: a whole journal has no problems and no missing bytes', async (t) => {
  const path = await journalOf(t.testdir(), 10)
  const seen: bigint[] = []
  const report = await verifyJournal({ path, progress: (bytes) => seen.push(BigInt(bytes)) })
  t.match(report, { frames: 10, records: 30, firstSeq: '1', lastSeq: '30', problemCount: 0 })
  t.equal(missingFileBytes(path), 0)
})

t.test('verify: names the flipped byte, its frame and nothing else', async (t) => {
  const path = await journalOf(t.testdir(), 10)
  const file = join(path, 'data.mdb')
  const [, , , , fifth] = makeFrames({ count: 10, payloadBytes: 3000 })
  if (fifth === undefined) throw new Error('no frame')
  const at = readFileSync(file).indexOf(fifth.bytes.subarray(0, 80))
  t.ok(at > 0)
  const fd = openSync(file, 'r+')
  writeSync(fd, Buffer.of(0x55), 0, 1, at + 4000)
  closeSync(fd)
  const report = await verifyJournal({ path })
  t.equal(report.problemCount, 1)
  // 3000 bytes of payload after 104 of header and field: the second record holds byte 4000.
  t.match(report.problems, [{ code: 'RECORD_CRC', frame: '13', byte: 80 + 3104 }])
})

t.test('verify: names a missing frame', async (t) => {
  const path = await journalOf(t.testdir(), 10, [4, 5])
  const report = await verifyJournal({ path })
  t.match(report.problems, [{ code: 'FRAME_GAP', frame: '19' }])
  t.match(report.problems[0]?.message, 'seqs 13 to 18 are missing')
})

t.test('verify: names frames of another volume', async (t) => {
  const path = await journalOf(t.testdir(), 3)
  const journal = Journal.open({ path, uuid: UUID })
  t.teardown(() => journal.close())
  const uuid = Buffer.alloc(16, 3)
  journal.append(makeFrames({ count: 1, after: journal.end(), uuid }))
  t.match(verifyFrames(journal).problems, [{ code: 'FRAME_VOLUME', frame: '10' }])
})

t.test('verify: names a truncated file, though reading it may end with a signal', async (t) => {
  for (const keep of [0.9, 0.5, 0.1]) {
    const path = await journalOf(t.testdir(), 60)
    const file = join(path, 'data.mdb')
    truncateSync(file, Math.floor(readFileSync(file).length * keep))
    t.ok(missingFileBytes(path) > 0)
    const report = await verifyJournal({ path })
    t.match(report.problems[0], { code: 'JOURNAL_TRUNCATED' }, `${keep} kept`)
  }
})

t.test('verify: says when there is no journal, and stops when told', async (t) => {
  await t.rejects(verifyJournal({ path: t.testdir() }), { code: 'JOURNAL_MISSING' })
  const path = await journalOf(join(t.testdirName, 'other'), 3)
  await t.rejects(verifyJournal({ path, signal: AbortSignal.abort() }), { code: 'ABORTED' })
})
