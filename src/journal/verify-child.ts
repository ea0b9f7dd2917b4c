/** The process that `verifyJournal` forks: argv[2] is the journal's directory. */
import { toHoldfastError } from '../lib/errors.js'
import { Journal } from './store.js'
import { type VerifyMessage, verifyFrames } from './verify.js'

function send(message: VerifyMessage): Promise<void> {
  return new Promise((resolve) => {
    if (process.send === undefined) return resolve()
    process.send(message, () => resolve())
  })
}

try {
  const journal = Journal.open({ path: process.argv[2] ?? '', readOnly: true })
  const report = verifyFrames(journal, (bytes, seq) => {
    void send({ kind: 'progress', bytes, seq: `${seq}` })
  })
  await send({ kind: 'report', report })
  await journal.close()
} catch (error) {
  await send({ kind: 'error', error: toHoldfastError(error, 'journal.verify').toJSON() })
}
process.disconnect?.()
