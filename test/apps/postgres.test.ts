/** PostgreSQL on a volume: crash recovery under load, then its own checks of every page and index. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { makeImage } from '../harness/image.js'
import { attempt, run } from '../harness/run.js'
import { openSandbox } from '../harness/sandbox.js'
import { onVolume } from '../harness/volume.js'

t.setTimeout(180_000)

const BIN = '/usr/lib/postgresql/15/bin'
const SCALE = 2
const CLIENTS = 4
const SECONDS = 3

/** A cluster, its server and its tools, all as the user postgres. */
class Cluster {
  readonly #data: string
  readonly #sockets: string

  constructor({ data, sockets }: { data: string; sockets: string }) {
    this.#data = data
    this.#sockets = sockets
  }

  /** PostgreSQL refuses to run as root. */
  as(program: string, ...args: string[]): Promise<string> {
    return run('runuser', ['-u', 'postgres', '--', join(BIN, program), ...args], { cwd: '/' })
  }

  async make(): Promise<void> {
    await this.as('initdb', '-D', this.#data, '-A', 'trust', '-k', '--no-locale', '-E', 'UTF8')
  }

  async start(): Promise<void> {
    const options = `-c listen_addresses= -c unix_socket_directories=${this.#sockets} \
      -c max_connections=20 -c shared_buffers=32MB -c checkpoint_timeout=30s -c full_page_writes=on`
    const log = join(this.#sockets, 'log')
    await this.as('pg_ctl', '-D', this.#data, '-w', '-s', '-l', log, '-o', options, 'start')
  }

  async stop(how: 'fast' | 'immediate'): Promise<void> {
    await this.as('pg_ctl', '-D', this.#data, '-w', '-s', '-m', how, 'stop')
  }

  async sql(text: string): Promise<string> {
    return (await this.client('psql', '-XAtq', '-c', text)).trim()
  }

  client(program: string, ...args: string[]): Promise<string> {
    return this.as(program, '-h', this.#sockets, '-U', 'postgres', ...args, 'postgres')
  }

  /** Runs a load that may be cut short. */
  load(): Promise<unknown> {
    const bench = ['-n', '-c', String(CLIENTS), '-j', '2', '-T', String(SECONDS), '-h']
    const args = ['-u', 'postgres', '--', join(BIN, 'pgbench'), ...bench, this.#sockets, 'postgres']
    return attempt('runuser', args, { cwd: '/' })
  }
}

const sandbox = await openSandbox(t)

t.test('postgres: crash recovery, checksums and indexes', async (t) => {
  const image = await makeImage(sandbox, { fs: 'xfs' })
  const sockets = join(sandbox.root, 'sockets')
  mkdirSync(sockets)
  await run('chown', ['postgres:postgres', sockets])
  await onVolume(t, { sandbox, image, name: 'postgres' }, async ({ dir }) => {
    const data = join(dir, 'cluster')
    mkdirSync(data)
    await run('chown', ['postgres:postgres', data])
    const cluster = new Cluster({ data, sockets })
    await cluster.make()
    await cluster.start()
    await cluster.client('pgbench', '-i', '-q', '-s', String(SCALE))
    await cluster.load()
    await cluster.sql(`CREATE TABLESPACE extra LOCATION '${await extraPlace(dir)}'`)
    await cluster.sql('CREATE TABLE copied TABLESPACE extra AS SELECT * FROM pgbench_accounts')
    const done = Number(await cluster.sql('SELECT count(*) FROM pgbench_history'))
    t.ok(done > 0, `${done} transactions`)

    const load = cluster.load()
    await sleep((SECONDS * 1000) / 2)
    await cluster.stop('immediate')
    await load
    await cluster.start()
    const log = await run('cat', [join(sockets, 'log')])
    t.match(log, /redo done/, 'recovers by replaying its own log')
    const recovered = Number(await cluster.sql('SELECT count(*) FROM pgbench_history'))
    t.ok(recovered > done, `${recovered} transactions after the crash`)
    await checkAll(t, cluster)
    await cluster.stop('fast')
    const verdict = await cluster.as('pg_checksums', '--check', '-D', data)
    t.match(verdict, /Bad checksums: +0/, 'no bad checksum')
  })
})

async function extraPlace(dir: string): Promise<string> {
  const place = join(dir, 'tablespace')
  mkdirSync(place)
  await run('chown', ['postgres:postgres', place])
  return place
}

async function checkAll(t: Tap, cluster: Cluster): Promise<void> {
  const sums = await cluster.sql(`SELECT
    (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history),
    (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(delta) FROM pgbench_history),
    (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT sum(delta) FROM pgbench_history)`)
  t.equal(sums, 't|t|t', 'all balances agree')
  const rows = String(SCALE * 100_000)
  t.equal(await cluster.sql('SELECT count(*) FROM copied'), rows, 'the table space is whole')
  await cluster.client(
    'pg_amcheck',
    '--install-missing',
    '--heapallindexed',
    '--parent-check',
    '-d',
  )
  t.pass('amcheck finds nothing')
  await cluster.client('vacuumdb', '-q', '--full', '-d')
  await cluster.client('pg_amcheck', '-d')
  t.pass('nor after VACUUM FULL')
}
type Tap = Pick<typeof t, 'equal' | 'pass'>
