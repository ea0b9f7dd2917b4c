// Memory of both sides while the peer stands still: the replica server is stopped (SIGSTOP), the
// primary writes on, then the server goes on and catches up.

import { closeSync, openSync, writeSync } from 'node:fs'
import path from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import { sleep } from '../proc.mjs'
import { memoryOf, mountVolume, serveReplicas, waitApplied } from './hosts.mjs'

const MIB = 2 ** 20
const FILE_MIB = 256
const STALL_MS = 500

/** Writes files of 256 MiB, one after the other. */
async function write(dir, mib) {
  const block = Buffer.alloc(MIB, 0x37)
  for (let at = 0; at < mib; at += FILE_MIB) {
    const fd = openSync(path.join(dir, `stalled-${at}`), 'w')
    for (let n = 0; n < FILE_MIB; n += 1) {
      writeSync(fd, block)
      await turn()
    }
    closeSync(fd)
  }
}

const memoryRow = {
  name: 'replication-memory',
  /** @param {any} context */
  async measure({ primary, replica, stalledMib }) {
    const { tree } = await mountVolume(primary)
    await serveReplicas(replica)
    await primary.call('POST', '/v1/replicas', { peer: 'replica' })
    await waitApplied(primary)
    const { pid } = await primary.status()
    const server = replica.serverPid
    const before = { daemon: await memoryOf(pid), server: await memoryOf(server) }
    process.kill(server, 'SIGSTOP')
    try {
      await sleep(STALL_MS)
      await write(tree, stalledMib)
    } finally {
      process.kill(server, 'SIGCONT')
    }
    const stalled = { daemon: await memoryOf(pid), server: await memoryOf(server) }
    await waitApplied(primary)
    const after = { daemon: await memoryOf(pid), server: await memoryOf(server) }
    const mib = (bytes) => bytes / MIB
    return {
      text: `${stalledMib} MiB written while the replica's server is stopped`,
      unit: 'MiB',
      values: {
        'daemon before': mib(before.daemon.anonymous),
        'daemon stalled': mib(stalled.daemon.anonymous),
        'daemon after': mib(after.daemon.anonymous),
        'server before': mib(before.server.anonymous),
        'server after': mib(after.server.anonymous),
        'daemon VmHWM': mib(after.daemon.most),
        'server VmHWM': mib(after.server.most),
      },
      rounds: { before, stalled, after },
    }
  },
}

export const memoryRows = [memoryRow]
