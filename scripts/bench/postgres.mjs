// pgbench on a PostgreSQL cluster under a target. The cluster is made once per target, through
// the mount; the server runs only while it is measured.

import { chmod, mkdir, readdir, stat } from 'node:fs/promises'
import path from 'node:path'
import { defer, run } from './proc.mjs'

/** 10 branches: 1,000,000 rows, about 150 MB. */
const SCALE = 10
const CLIENTS = 2

/** Directory of initdb, pg_ctl and pgbench: the newest that is installed. */
async function programs() {
  const base = '/usr/lib/postgresql'
  const versions = await readdir(base).catch(() => [])
  const newest = versions.sort((a, b) => Number(b) - Number(a))[0]
  if (newest === undefined) throw new Error('PostgreSQL is not installed')
  return path.join(base, newest, 'bin')
}

/** PostgreSQL refuses to run as root. */
const asPostgres = (args, options) => run('runuser', ['-u', 'postgres', '--', ...args], options)

/**
 * @param {string} mountpoint
 * @param {string} sockets directory for the socket and the server's log, not on the target
 */
export async function makeCluster(mountpoint, sockets) {
  const bin = await programs()
  const cluster = path.join(mountpoint, 'pg')
  const pgData = path.join(cluster, 'main')
  await mkdir(cluster)
  await mkdir(sockets, { recursive: true })
  for (const dir of [cluster, sockets]) {
    await run('chown', ['postgres:postgres', dir])
    await chmod(dir, 0o700)
  }
  // A layer that runs the operation with its own identity cannot hold a cluster at all.
  await asPostgres(['touch', path.join(cluster, 'probe')])
  const owner = await stat(path.join(cluster, 'probe'))
  if (owner.uid === 0) throw new Error('new files belong to the daemon, not to their creator')

  await asPostgres([path.join(bin, 'initdb'), '-D', pgData, '-A', 'trust', '--no-locale', '-N'])
  const server = [
    `-c listen_addresses=''`,
    `-c unix_socket_directories='${sockets}'`,
    '-c max_wal_size=2GB',
    '-c checkpoint_timeout=30min',
    '-c autovacuum=off',
  ].join(' ')
  const control = (action, undoing) =>
    asPostgres([path.join(bin, 'pg_ctl'), '-D', pgData, '-w', '-s', ...action], { undoing })

  const session = async (work) => {
    const stop = defer('stop PostgreSQL', async () => {
      await control(['-m', 'fast', 'stop'], true)
    })
    await control(['-l', path.join(sockets, 'log'), '-o', server, 'start'], false)
    try {
      return await work()
    } finally {
      await stop()
    }
  }
  const pgbench = (args) =>
    asPostgres([path.join(bin, 'pgbench'), '-h', sockets, ...args, 'postgres'])
  await session(() => pgbench(['-i', '-q', '-s', String(SCALE)]))

  /**
   * @param {string} script
   * @param {number} seconds
   * @returns {Promise<number>} transactions per second
   */
  return (script, seconds) =>
    session(async () => {
      const common = ['-n', '-b', script, '-c', String(CLIENTS), '-j', String(CLIENTS)]
      await pgbench([...common, '-T', '1'])
      const out = await pgbench([...common, '-T', String(seconds)])
      const tps = /^tps = ([\d.]+)/m.exec(out)?.[1]
      if (tps === undefined) throw new Error('pgbench told no tps')
      return Number(tps)
    })
}
