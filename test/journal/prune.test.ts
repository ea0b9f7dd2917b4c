import { statSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { prune } from '../../src/journal/prune.js'
import { Journal } from '../../src/journal/store.js'
import { verifyFrames } from '../../src/journal/verify.js'
import { makeFrames, UUID } from './frames.js'

function open(t: Tap, count: number, payloadBytes = 64): Journal {
  const journal = Journal.open({ path: t.testdir(), uuid: UUID, create: true })
  t.teardown(() => journal.close())
  journal.append(makeFrames({ count, payloadBytes }))
  journal.updateMeta({ checkpoint: { seq: journal.end().lastSeq, timeNs: 1n } })
  return journal
}
type Tap = Pick<typeof t, 'testdir' | 'teardown'>

t.test('prune: to a seq, keeping frames whole and the chain provable', async (t) => {
  const journal = open(t, 600)
  const result = prune(journal, { toSeq: 1001n })
  t.match(result, { frames: 333, horizon: 999n, heldByCheckpoint: false })
  t.equal(journal.stat().firstSeq, 1000n)
  t.equal(verifyFrames(journal).problemCount, 0)
  t.equal(prune(journal, { toSeq: 1001n }).frames, 0)
})

t.test('prune: never the last frame, never beyond the checkpoint', async (t) => {
  const journal = open(t, 10)
  t.equal(prune(journal, { toSeq: 1000n }).horizon, 27n)
  t.equal(journal.end().lastSeq, 30n)
  journal.append(makeFrames({ count: 5, after: journal.end() }))
  t.match(prune(journal, { toSeq: 1000n }), { frames: 1, horizon: 30n, heldByCheckpoint: true })
})

t.test('prune: by age', async (t) => {
  const journal = open(t, 10)
  const nowMs = 1_700_000_000_000 + 30
  t.equal(prune(journal, { maxAgeMs: 15 }, nowMs).horizon, 12n)
})

t.test('prune: by size; the space is used again and the file does not grow', async (t) => {
  const journal = open(t, 0)
  const maxBytes = 2 << 20
  const size = () => statSync(join(journal.path, 'data.mdb')).size
  let peak = 0
  for (let round = 0; round < 60; round += 1) {
    journal.append(makeFrames({ count: 4, payloadBytes: 30_000, after: journal.end() }))
    journal.updateMeta({ checkpoint: { seq: journal.end().lastSeq, timeNs: 1n } })
    prune(journal, { maxBytes })
    if (round === 20) peak = size()
  }
  t.ok(journal.usedBytes() <= maxBytes + (400 << 10))
  t.ok(size() <= peak * 1.5, `${size()} bytes, ${peak} after a third of the rounds`)
  t.equal(verifyFrames(journal).problemCount, 0)
})
