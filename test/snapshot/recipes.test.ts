/** The hooks of docs/hooks, as they are, with the programs that they are for. */
import { once } from 'node:events'
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { createSnapshot, rehearseSnapshot } from '../../src/index.js'
import { Postgres } from '../harness/databases.js'
import { until } from '../harness/faults.js'
import { projectFile } from '../harness/files.js'
import { makeImage } from '../harness/image.js'
import { run, start } from '../harness/run.js'
import { openSandbox } from '../harness/sandbox.js'
import { mountVolume } from '../harness/volume.js'

t.setTimeout(400_000)
const sandbox = await openSandbox(t)
const hooks = join(sandbox.root, 'hooks.d')
process.env.HOLDFAST_HOOKS_DIR = hooks
const image = await makeImage(sandbox, { fs: 'xfs' })
const { volume, dir } = await mountVolume(sandbox, image, { name: 'data' })

/** This recipe alone. */
function use(recipe: string): void {
  rmSync(hooks, { recursive: true, force: true })
  mkdirSync(hooks)
  copyFileSync(projectFile(`docs/hooks/${recipe}`), join(hooks, recipe))
}

await t.test('recipe: postgresql-checkpoint', async (t) => {
  const sockets = join(sandbox.root, 'sockets')
  const postgres = new Postgres({ data: join(dir, 'pg'), sockets })
  await postgres.make()
  process.env.PGHOST = sockets
  use('postgresql-checkpoint')
  const lsn = () => postgres.sql('SELECT checkpoint_lsn FROM pg_control_checkpoint()')
  const before = await lsn()
  await postgres.sql("INSERT INTO ledger VALUES (1, 'one')")
  const [dry] = await rehearseSnapshot({ volumes: ['data'] })
  t.equal(dry?.result, 'ok', dry?.stderr ?? '')
  t.equal(await lsn(), before, 'not in a dry run')
  const { hooks: runs } = await createSnapshot({ volumes: ['data'] })
  t.equal(runs[0]?.result, 'ok', runs[0]?.stderr ?? '')
  t.not(await lsn(), before, 'a checkpoint was made')
  await postgres.halt('fast')
  await t.rejects(createSnapshot({ volumes: ['data'] }), { code: 'HOOK_FAILED' }, 'no server')
})

await t.test('recipe: sqlite-checkpoint', async (t) => {
  use('sqlite-checkpoint')
  const file = join(dir, 'a database')
  // Open all the time: the last one to close a database checkpoints it.
  const client = start('sqlite3', ['-batch', file])
  const ended = once(client, 'close')
  let said = ''
  client.stdout?.setEncoding('utf8').on('data', (text: string) => {
    said += text
  })
  client.stdin?.write('PRAGMA journal_mode=wal; CREATE TABLE t(x); INSERT INTO t VALUES (7);\n')
  client.stdin?.write("SELECT 'written';\n.output stdout\n")
  await until(() => said.includes('written'), 'the row')
  const alone = join(sandbox.root, 'alone')
  const rows = async () => {
    copyFileSync(file, alone)
    return run('sqlite3', ['-batch', alone, 'SELECT x FROM t']).catch(() => 'none')
  }
  t.equal(await rows(), 'none', 'it is in the log only')
  const { hooks: runs } = await createSnapshot({ volumes: ['data'] })
  t.equal(runs[0]?.result, 'ok', runs[0]?.stderr ?? '')
  t.equal(await rows(), '7\n')
  client.stdin?.end()
  await ended
})

await t.test('recipe: signal-quiesce', async (t) => {
  use('signal-quiesce')
  const quiesced = join(sandbox.root, 'quiesced')
  const seen = join(sandbox.root, 'seen')
  process.env.APP_PIDFILE = join(sandbox.root, 'pid')
  process.env.APP_QUIESCED = quiesced
  const app = start('python3', [
    '-c',
    `import os, signal
def rest(*_):
    open('${quiesced}', 'w')
def go_on(*_):
    os.unlink('${quiesced}')
    open('${seen}', 'w').write('rested')
signal.signal(signal.SIGUSR1, rest)
signal.signal(signal.SIGUSR2, go_on)
open('${process.env.APP_PIDFILE}', 'w').write(str(os.getpid()))
while True:
    signal.pause()`,
  ])
  const ended = once(app, 'close')
  writeFileSync(seen, '')
  const pid = () => {
    try {
      return readFileSync(join(sandbox.root, 'pid'), 'utf8')
    } catch {
      return ''
    }
  }
  await until(() => pid() !== '', 'the application')
  const { hooks: runs } = await createSnapshot({ volumes: ['data'] })
  t.ok(runs.length === 2 && runs.every(({ result }) => result === 'ok'), runs[0]?.stderr ?? '')
  await until(() => readFileSync(seen, 'utf8') === 'rested', 'it to go on')
  app.kill('SIGKILL')
  await ended
  await volume.unmount()
})
