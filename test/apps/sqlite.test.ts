/** SQLite on a volume, both kinds of journal: concurrent writers, and death in mid-transaction. */
import { once } from 'node:events'
import { statSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { FILE_SYSTEMS, makeImage } from '../harness/image.js'
import { run, start } from '../harness/run.js'
import { openSandbox } from '../harness/sandbox.js'
import { onVolume } from '../harness/volume.js'

t.setTimeout(120_000)

const PROCESSES = 4
const TRANSACTIONS = 15
const ROWS_EACH = 4

const sql = (db: string, text: string) =>
  run('sqlite3', ['-batch', '-bail', '-cmd', '.timeout 60000', db], { input: text })

/** Every process moves money between two accounts, and writes a line about it. */
function transfers(process: number): string {
  const one = (n: number) => `
    BEGIN IMMEDIATE;
    UPDATE account SET balance = balance - ${n} WHERE id = ${process};
    UPDATE account SET balance = balance + ${n} WHERE id = ${(process + 1) % PROCESSES};
    WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < ${ROWS_EACH})
      INSERT INTO line SELECT NULL, ${process}, ${n}, hex(randomblob(300)) FROM c;
    COMMIT;`
  return Array.from({ length: TRANSACTIONS }, (_, n) => one(n)).join('')
}

/** Ends an sqlite3 by SIGKILL when a transaction has spilled pages, but is not committed. */
async function dieInTransaction(db: string): Promise<void> {
  const child = start('sqlite3', ['-batch', '-bail', db])
  const ended = once(child, 'exit')
  child.stdin?.write(`
    PRAGMA cache_size = 10;
    BEGIN IMMEDIATE;
    UPDATE account SET balance = 0;
    WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 400)
      INSERT INTO line SELECT NULL, 99, i, hex(randomblob(1500)) FROM c;
    UPDATE line SET text = 'overwritten';
    SELECT 'in transaction';\n`)
  for await (const text of child.stdout ?? []) if (String(text).includes('in transaction')) break
  child.kill('SIGKILL')
  await ended
}

async function exercise(t: Tap, dir: string, mode: 'delete' | 'truncate' | 'wal'): Promise<void> {
  const db = join(dir, `${mode}.db`)
  const accounts = Array.from({ length: PROCESSES }, (_, id) => `(${id}, 1000)`).join(', ')
  await sql(
    db,
    `PRAGMA journal_mode = ${mode};
     CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER);
     CREATE TABLE line(id INTEGER PRIMARY KEY, process INTEGER, amount INTEGER, text TEXT);
     CREATE INDEX by_text ON line(text);
     INSERT INTO account VALUES ${accounts};`,
  )
  await Promise.all(Array.from({ length: PROCESSES }, (_, n) => sql(db, transfers(n))))
  const state = () =>
    sql(
      db,
      'SELECT sum(balance) FROM account; SELECT count(*), sum(amount), count(DISTINCT text) FROM line;',
    )
  const lines = PROCESSES * TRANSACTIONS * ROWS_EACH
  const amounts = (PROCESSES * ROWS_EACH * TRANSACTIONS * (TRANSACTIONS - 1)) / 2
  const expected = `${PROCESSES * 1000}\n${lines}|${amounts}|${lines}\n`
  t.equal(await state(), expected, `${mode}: every transaction is there, once`)

  await dieInTransaction(db)
  const left = statSync(mode === 'wal' ? `${db}-wal` : `${db}-journal`).size
  t.ok(left > 100_000, `${mode}: the dead process left a journal of ${left} bytes`)
  t.equal(await state(), expected, `${mode}: what was not committed is rolled back`)
  t.equal(await sql(db, 'PRAGMA integrity_check;'), 'ok\n', `${mode}: integrity_check`)
  await sql(db, `VACUUM; PRAGMA wal_checkpoint(TRUNCATE);`)
  t.equal(await sql(db, 'PRAGMA integrity_check;'), 'ok\n', `${mode}: and after VACUUM`)
}
type Tap = Pick<typeof t, 'equal' | 'ok'>

const sandbox = await openSandbox(t)
for (const fs of FILE_SYSTEMS) {
  t.test(`sqlite: on ${fs}`, async (t) => {
    const image = await makeImage(sandbox, { fs })
    await onVolume(t, { sandbox, image, name: `sqlite-${fs}` }, async ({ dir }) => {
      for (const mode of ['delete', 'truncate', 'wal'] as const) await exercise(t, dir, mode)
    })
  })
}
