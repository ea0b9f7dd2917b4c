import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { Journal } from '../../src/journal/store.js'
import { verifyFrames } from '../../src/journal/verify.js'
import { HoldfastError } from '../../src/lib/errors.js'
import { makeFrames, UUID } from './frames.js'

t.test('journal: a full file system rejects the append whole and is survived', async (t) => {
  const path = mkdtempSync(join(tmpdir(), 'holdfast-full-'))
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=40m', 'holdfast-test', path])
  t.teardown(() => {
    execFileSync('umount', ['-l', path])
    rmdirSync(path)
  })
  const journal = Journal.open({ path: join(path, 'journal'), uuid: UUID, create: true })
  const ballast = join(path, 'ballast')
  writeFileSync(ballast, Buffer.alloc(2 << 20))
  let refused: unknown
  let stored = 0n
  for (let round = 0; round < 80 && refused === undefined; round += 1) {
    const frames = makeFrames({ count: 2, payloadBytes: 40_000, after: journal.end() })
    try {
      journal.append(frames)
      stored = journal.end().lastSeq
    } catch (error) {
      refused = error
      t.equal(journal.end().lastSeq, stored, 'nothing of the refused append is there')
    }
  }
  t.ok(refused instanceof HoldfastError && refused.code === 'JOURNAL_FULL', String(refused))
  rmSync(ballast)
  journal.append(makeFrames({ count: 2, payloadBytes: 40_000, after: journal.end() }))
  t.equal(journal.end().lastSeq, stored + 6n)
  t.equal(verifyFrames(journal).problemCount, 0)
  await journal.close()
})
