/**
 * Databases as witnesses: clients that insert numbered rows, one transaction each, and know which
 * were acknowledged to them. On a copy of a replica's tree each must recover by itself, be whole, and
 * have every row that was acknowledged before the copy was promised.
 */
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { alive, signal, until } from './faults.js'
import { run, start } from './run.js'

const POSTGRES = '/usr/lib/postgresql'
/** Transactions per second; beside others. */
const PGBENCH_RATE = 50

/** One row after the other through the input of a client, until it is told to end, or dies. */
abstract class Writer {
  /** The last row that was acknowledged. */
  acknowledged = 0
  #client: ChildProcess | undefined
  #going = false
  #ended: Promise<unknown> = Promise.resolve()

  /** The client, reading SQL from its input. */
  protected abstract client(): [command: string, args: string[]]

  start(pauseMs: number): void {
    const [command, args] = this.client()
    const client = start(command, args, { cwd: '/' })
    this.#client = client
    this.#going = true
    this.#ended = once(client, 'close')
    client.stdin?.on('error', () => {})
    client.stderr?.resume()
    if (client.stdout === null) throw new Error('the client has no output')
    const insert = () => {
      const row = this.acknowledged + 1
      // A row whose acknowledgement was lost may be there already.
      client.stdin?.write(
        `INSERT INTO ledger VALUES (${row}, '${'x'.repeat(row % 500)}') ON CONFLICT (id) DO NOTHING;\n` +
          `SELECT 'row ' || ${row};\n`,
      )
    }
    createInterface({ input: client.stdout }).on('line', async (line) => {
      const [, row] = /^row (\d+)$/.exec(line) ?? []
      if (row === undefined) return
      this.acknowledged = Number(row)
      await sleep(pauseMs)
      if (this.#going) insert()
      else client.stdin?.end()
    })
    insert()
  }

  /** After the row under way; also when its server is dead. */
  async stop(): Promise<void> {
    this.#going = false
    const client = this.#client
    if (client === undefined || client.exitCode !== null) return
    const end = setTimeout(() => client.kill('SIGKILL'), 10_000)
    await this.#ended
    clearTimeout(end)
  }

  /** By its client or server: dies at once. */
  async kill(): Promise<void> {
    this.#going = false
    this.#client?.kill('SIGKILL')
    await this.#ended
  }
}

const LEDGER = 'CREATE TABLE ledger (id INTEGER PRIMARY KEY, text TEXT)'

export class Sqlite extends Writer {
  readonly #file: string

  constructor(file: string) {
    super()
    this.#file = file
  }

  async make(mode: 'delete' | 'wal'): Promise<void> {
    await sqlite(this.#file, `PRAGMA journal_mode = ${mode}; ${LEDGER};`)
  }

  protected client(): [string, string[]] {
    const setUp = ['-cmd', '.timeout 60000', '-cmd', 'PRAGMA synchronous = FULL']
    return ['stdbuf', ['-oL', 'sqlite3', '-batch', '-bail', ...setUp, this.#file]]
  }

  /** What is wrong with a copy of it; empty: it is whole and has all rows up to `row`. */
  static async check(file: string, row: number): Promise<string> {
    const said = await sqlite(
      file,
      `PRAGMA integrity_check; SELECT count(*) FROM ledger WHERE id <= ${row};
       SELECT count(*) - coalesce(max(id), 0) FROM ledger;`,
    )
    return said === `ok\n${row}\n0\n` ? '' : `sqlite: ${said} for ${row} rows`
  }
}

function sqlite(file: string, text: string): Promise<string> {
  return run('sqlite3', ['-batch', '-bail', '-cmd', '.timeout 60000', file], { input: text })
}

/** Between two looks at what is left of a server. */
const POLL_MS = 20
/** Characters of a server's log in a failure's message. */
const LOG_SHOWN = 2_000

export class Postgres extends Writer {
  readonly #data: string
  readonly #sockets: string
  #pid = 0

  /** `sockets`: a directory for the socket and the log; not on the volume. */
  constructor({ data, sockets }: { data: string; sockets: string }) {
    super()
    this.#data = data
    this.#sockets = sockets
  }

  async make(): Promise<void> {
    for (const dir of [this.#data, this.#sockets]) {
      mkdirSync(dir)
      await run('chown', ['postgres:postgres', dir])
    }
    await as('initdb', '-D', this.#data, '-A', 'trust', '-k', '--no-locale', '-E', 'UTF8', '-N')
    await this.boot()
    await this.sql(LEDGER)
  }

  /** Starts the server; it recovers by itself. */
  async boot(): Promise<void> {
    const options = `-c listen_addresses= -c unix_socket_directories=${this.#sockets} \
      -c max_connections=20 -c shared_buffers=16MB -c checkpoint_timeout=30s -c max_wal_size=64MB`
    const log = join(this.#sockets, 'log')
    const start = ['-D', this.#data, '-w', '-s', '-l', log, '-o', options, 'start']
    await as('pg_ctl', ...start).catch((error: Error) => {
      throw new Error(`${error.message}\n${readFileSync(log, 'utf8').slice(-LOG_SHOWN)}`)
    })
    this.#pid = Number.parseInt(readFileSync(join(this.#data, 'postmaster.pid'), 'utf8'), 10)
  }

  async halt(how: 'fast' | 'immediate'): Promise<void> {
    await as('pg_ctl', '-D', this.#data, '-w', '-s', '-m', how, 'stop')
  }

  /** The server is dead with its volume: what is left of it goes. */
  async bury(): Promise<void> {
    await this.kill()
    // Also those that have outlived it: while one is there, its shared memory is in use, and no other starts.
    for (let left = this.#processes(); left.length > 0; left = this.#processes()) {
      for (const pid of left) signal(pid, 'SIGKILL')
      await sleep(POLL_MS)
    }
    // Until somebody has asked how it ended, the next one takes it for one that runs.
    await until(() => !existsSync(`/proc/${this.#pid}`), 'the server to be no zombie any more')
  }

  /** All of this cluster, which are at work in its directory. */
  #processes(): number[] {
    return readdirSync('/proc').flatMap((name) => {
      try {
        const isOurs = readlinkSync(`/proc/${name}/cwd`).startsWith(this.#data)
        return isOurs && alive(Number(name)) ? [Number(name)] : []
      } catch {
        return []
      }
    })
  }

  async sql(text: string): Promise<string> {
    return (await as('psql', '-h', this.#sockets, '-XAtq', '-c', text, 'postgres')).trim()
  }

  protected client(): [string, string[]] {
    const psql = join(programs(), 'psql')
    const args = ['-h', this.#sockets, '-XAtq', '-v', 'ON_ERROR_STOP=1', 'postgres']
    return ['runuser', ['-u', 'postgres', '--', psql, ...args]]
  }

  /** What is wrong with a copy of a cluster; empty: it recovers and has all rows up to `row`. */
  static async check(place: { data: string; sockets: string }, row: number): Promise<string> {
    mkdirSync(place.sockets)
    await run('chown', ['postgres:postgres', place.sockets])
    await run('rm', ['-f', join(place.data, 'postmaster.pid')])
    const copy = new Postgres(place)
    await copy.boot()
    const rows = await copy.sql(
      `SELECT (SELECT count(*) FROM ledger WHERE id <= ${row}), count(*) - coalesce(max(id), 0) FROM ledger`,
    )
    await as('pg_amcheck', '-h', place.sockets, '--install-missing', '--heapallindexed', 'postgres')
    await copy.halt('fast')
    const sums = await as('pg_checksums', '--check', '-D', place.data)
    if (!/Bad checksums: +0/.test(sums)) return sums
    return rows === `${row}|0` ? '' : `postgres: ${rows} of ${row} rows`
  }

  /** What is wrong with the banks of pgbench in a copy that has been checked; empty: nothing. */
  static async checkPgbench(place: { data: string; sockets: string }): Promise<string> {
    const copy = new Postgres(place)
    await copy.boot()
    const sums = await copy.sql(`SELECT
      (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),
      (SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(delta) FROM pgbench_history)`)
    await copy.halt('fast')
    const balances = new Set(sums.split('|'))
    return balances.size === 1 && !balances.has('') ? '' : `pgbench: ${sums}`
  }
}

/** Banks of pgbench's own kind: every transaction changes three balances and writes down by how much. */
export async function startPgbench(sockets: string): Promise<{ stop(): Promise<void> }> {
  await as('pgbench', '-h', sockets, '-i', '-q', '-s', '1', 'postgres')
  const options = ['-n', '-c', '2', '-R', `${PGBENCH_RATE}`, '-T', '100000']
  const program = join(programs(), 'pgbench')
  const args = ['-u', 'postgres', '--', program, '-h', sockets, ...options, 'postgres']
  const client = start('runuser', args, { cwd: '/' })
  client.stdout?.resume()
  client.stderr?.resume()
  const ended = once(client, 'close')
  return {
    stop: async () => {
      process.kill(-(client.pid ?? 0), 'SIGKILL')
      await ended
    },
  }
}

/** PostgreSQL refuses to run as root. */
function as(program: string, ...args: string[]): Promise<string> {
  return run('runuser', ['-u', 'postgres', '--', join(programs(), program), ...args], { cwd: '/' })
}

/** Of the newest version that is installed. */
function programs(): string {
  const [newest] = readdirSync(POSTGRES).sort((a, b) => Number(b) - Number(a))
  if (newest === undefined) throw new Error(`no PostgreSQL in ${POSTGRES}`)
  return join(POSTGRES, newest, 'bin')
}
