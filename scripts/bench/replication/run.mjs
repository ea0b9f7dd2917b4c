// The rows of hosts: replication, groups, and what one of them does alone (snapshots). One after the other;
// for each row new volumes, and an empty replica host.

import path from 'node:path'
import { groupRows } from '../group.mjs'
import { historyRows } from '../history.mjs'
import { mark, unwindTo } from '../proc.mjs'
import { median } from '../report.mjs'
import { snapshotRows } from '../snapshot.mjs'
import { baselineRows } from './baseline.mjs'
import { makeHosts } from './hosts.mjs'
import { latencyRows } from './latency.mjs'
import { memoryRows } from './memory.mjs'
import { replayRows } from './replay.mjs'
import { replicationLine } from './report.mjs'
import { resyncRows } from './resync.mjs'
import { startRsync } from './rsync.mjs'

/** Every row is { name, measure(context) → ReplicationResult }. */
export const REPLICATION_ROWS = [
  ...baselineRows,
  ...resyncRows,
  ...replayRows,
  ...latencyRows,
  ...memoryRows,
  ...snapshotRows,
  ...historyRows,
  ...groupRows,
]

/**
 * @param {{ rows: typeof REPLICATION_ROWS, dir: string, holdfast: string, quick: boolean,
 *   rounds: number, fsbench: string, project: string }} options
 * @returns {Promise<import('./report.mjs').ReplicationResult[]>}
 */
export async function measureReplication(options) {
  const { rows, quick, project } = options
  const holdfast = options.holdfast
    .split(/\s+/)
    .map((word) => (word.includes('/') ? path.resolve(project, word) : word))
  const begin = mark()
  const { primary, replica } = await makeHosts({ dir: options.dir, holdfast })
  const rsync = await startRsync({ primary, replica })
  await replica.serve(path.join(replica.root, 'none'))
  await primary.introduce(replica)
  await replica.stopServing()
  const context = {
    ...options,
    primary,
    replica,
    rsync,
    median,
    replaySeconds: quick ? 3 : 6,
    samples: quick ? 60 : 300,
    stalledMib: quick ? 1024 : 3072,
  }
  const results = []
  for (const { name, measure } of rows) {
    const start = mark()
    try {
      const result = { workload: name, ...(await measure(context)) }
      results.push(result)
      console.error(replicationLine(result))
    } catch (error) {
      if (error.message === 'stopped') throw error
      results.push({ workload: name, text: '', unit: '', values: {}, failed: error.message })
      console.error(`${name}: failed: ${error.message}`)
    }
    await unwindTo(start)
  }
  await unwindTo(begin)
  return results
}
