/** Appends frames and says each last seq once it is durable; is killed by store.test.ts. */
import { writeSync } from 'node:fs'
import { Journal } from '../../src/journal/store.js'
import { makeFrames, UUID } from './frames.js'

const journal = Journal.open({ path: process.argv[2] ?? '', uuid: UUID, create: true })
for (;;) {
  const frames = makeFrames({ count: 3, payloadBytes: 5000, after: journal.end() })
  journal.append(frames)
  writeSync(1, `${frames.at(-1)?.view.lastSeq}\n`)
}
