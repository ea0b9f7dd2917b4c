/** A replica on its own: what its queue and its workers do when frames are bad, late or repeated. */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { silentLogger } from '../../src/lib/log.js'
import { formatUuid, JOURNAL_START } from '../../src/record/frame.js'
import { Replica } from '../../src/replication/replica.js'
import type { ReplicaConfig } from '../../src/replication/replica-config.js'
import { until } from '../harness/faults.js'
import { openSandbox } from '../harness/sandbox.js'
import { makeFrames, UUID } from '../journal/frames.js'

const CONFIG: ReplicaConfig = {
  version: 1,
  uuid: formatUuid(UUID),
  name: 'data',
  owner: 'ab'.repeat(32),
  ownerName: 'primary',
  created: new Date(0).toISOString(),
  applyDelayMs: 0,
  clockAheadMs: 0,
}
const START = { seq: 0, chain: JOURNAL_START.chain.toString('hex') }
const AHEAD = { end: 1_000, authorised: 0 }

const sandbox = await openSandbox(t)
const place = () => mkdtempSync(join(sandbox.root, 'replica-'))

function open(t: Test, directory: string): Replica {
  mkdirSync(join(directory, 'tree'), { recursive: true })
  const replica = new Replica(directory, CONFIG, silentLogger())
  t.teardown(() => replica.close())
  return replica
}

const logged = (replica: Replica) => Number(replica.state.logged?.seq ?? -1)

t.test('replica: refuses damaged frames, and takes them again over a new connection', async (t) => {
  const replica = open(t, place())
  await until(() => replica.isReady, 'the workers')
  replica.begin(30)
  replica.reset(START)
  const frames = makeFrames({ count: 10 }).map(({ bytes }) => bytes)
  for (const bytes of frames.slice(0, 3)) replica.frame(bytes)
  await until(() => logged(replica) === 9, 'three frames to be logged')
  const bad = Buffer.from(frames[3] as Buffer)
  bad.writeUInt8(bad.readUInt8(bad.length - 1) ^ 1, bad.length - 1)
  for (const bytes of [bad, ...frames.slice(4)]) replica.frame(bytes)
  await until(() => replica.state.failure !== null && replica.state.queuedBytes === 0, 'a refusal')
  t.match(replica.state, { failure: { code: /FRAME|RECORD/ }, logFailed: true, queuedBytes: 0 })
  t.equal(logged(replica), 9, 'nothing of it is kept')
  replica.begin(30)
  await until(() => replica.isReady, 'the log')
  t.equal(replica.state.logFailed, false)
  // Once more what it has: passed over.
  for (const bytes of frames) replica.frame(bytes)
  await until(() => logged(replica) === 30, 'the rest')
  t.equal(replica.state.queuedBytes, 0)
})

t.test('replica: resets again and again; the queue is of what waits', async (t) => {
  const replica = open(t, place())
  await until(() => replica.isReady, 'the workers')
  const frames = makeFrames({ count: 20, payloadBytes: 50_000 }).map(({ bytes }) => bytes)
  for (let round = 0; round < 5; round += 1) {
    replica.begin(60)
    // Frames of a reset that is not done when the connection ends, and another takes its place.
    replica.reset(START)
    for (const bytes of frames) replica.frame(bytes)
    replica.advance(AHEAD)
  }
  t.equal(replica.state.logged, null, 'no place to go on from meanwhile')
  t.equal(replica.state.copy, 'Inconsistent')
  await until(() => logged(replica) === 60, 'the last reset and its frames')
  t.equal(replica.state.queuedBytes, 0)
  t.equal(replica.isReady, true)
})

t.test('replica: a log that cannot be opened, until it can', async (t) => {
  const directory = place()
  mkdirSync(join(directory, 'log', 'data.mdb'), { recursive: true })
  const replica = open(t, directory)
  await until(() => replica.isReady, 'an answer')
  t.match(replica.state, { logFailed: true, failure: { code: 'JOURNAL_UNREADABLE' } })
  rmSync(join(directory, 'log'), { recursive: true })
  replica.begin(0)
  await until(() => replica.isReady, 'the log')
  t.match(replica.state, { logFailed: false, logged: null })
})

t.test('replica: a log without a tree of its own starts over', async (t) => {
  const directory = place()
  const first = open(t, directory)
  await until(() => first.isReady, 'the workers')
  first.begin(9)
  first.reset(START)
  for (const { bytes } of makeFrames({ count: 3 })) first.frame(bytes)
  await until(() => logged(first) === 9, 'the frames')
  await first.close()
  t.ok(existsSync(join(directory, 'replay')))
  // As by a death in the middle of a reset.
  rmSync(join(directory, 'replay'), { recursive: true })
  const second = open(t, directory)
  await until(() => second.isReady, 'the workers')
  t.match(second.state, { lost: true, copy: 'Inconsistent', failure: { code: 'REPLAY_STATE' } })
  second.begin(9)
  second.reset(START)
  await until(() => logged(second) === 0, 'a new beginning')
  t.match(second.state, { lost: false, failure: null, baseline: true })
  t.notOk(readdirSync(directory).includes('replay.old'))
})
