// Does the replica keep up? The rate of capture on the primary against the rate at which the replica
// applies: both at once on the same CPUs, and one after the other, as on two machines.

import path from 'node:path'
import { run, sleep } from '../proc.mjs'
import { mountVolume, serveReplicas, waitApplied } from './hosts.mjs'

const SAMPLE_MS = 200
/** Of the start of a load, not looked at: setting up, the first frames. */
const SETTLE_MS = 1000

/**
 * Runs a load and samples the positions meanwhile.
 * @returns {Promise<{ at: number, seq: number, bytes: number, applied: number }[]>}
 */
async function sampled(primary, load) {
  const samples = []
  let over = false
  const running = load().finally(() => {
    over = true
  })
  while (!over) {
    const { captured, totals, replicas } = await primary.status()
    const applied = replicas[0]?.applied ?? 0
    const at = performance.now() / 1000
    samples.push({ at, seq: captured.seq, bytes: totals.capturedBytes, applied })
    await sleep(SAMPLE_MS)
  }
  await running
  return samples
}

/** What was captured, and applied, per second between the first sample that counts and the last. */
function rates(samples) {
  const last = samples.at(-1)
  const first = samples.find(({ at }) => at >= samples[0].at + SETTLE_MS / 1000)
  const seconds = last.at - first.at
  return {
    capturedSeqs: (last.seq - first.seq) / seconds,
    capturedBytes: (last.bytes - first.bytes) / seconds,
    appliedSeqs: (last.applied - first.applied) / seconds,
    behindFirst: first.seq - first.applied,
    behindLast: last.seq - last.applied,
  }
}

/** @param {string} workload of fsbench */
function replayRow(workload) {
  return {
    name: `replication-replay-${workload}`,
    /** @param {any} context */
    async measure({ primary, replica, fsbench, replaySeconds }) {
      const { tree } = await mountVolume(primary)
      await serveReplicas(replica)
      await primary.call('POST', '/v1/replicas', { peer: 'replica' })
      await waitApplied(primary)
      // Large writes fill the disks: half of the time is as much as they hold.
      const seconds = workload.startsWith('seq') ? replaySeconds / 2 : replaySeconds
      const load = () => run(fsbench, [workload, tree, '--seconds', String(seconds)])

      // Both at once.
      const together = rates(await sampled(primary, load))
      const endedAt = performance.now()
      await waitApplied(primary)
      const catchUpSeconds = (performance.now() - endedAt) / 1000

      // Capture alone, then the replica alone.
      await primary.call('DELETE', '/v1/replicas/replica')
      const before = (await primary.status()).totals.capturedBytes
      const alone = rates(await sampled(primary, load))
      await run('sync', ['-f', path.dirname(tree)])
      const { totals } = await primary.status()
      const bytes = totals.capturedBytes - before
      const begun = performance.now()
      await primary.call('POST', '/v1/replicas', { peer: 'replica' })
      await waitApplied(primary)
      const appliedBytes = bytes / ((performance.now() - begun) / 1000)

      const mib = (rate) => rate / 2 ** 20
      return {
        text: `${seconds} s, ${(together.capturedSeqs / 1000).toFixed(1)} k changes/s`,
        unit: 'MiB/s',
        values: {
          'capture, together': mib(together.capturedBytes),
          'applied, together': mib(
            (together.capturedBytes * together.appliedSeqs) / together.capturedSeqs,
          ),
          'behind at the end, s': catchUpSeconds,
          'capture alone': mib(alone.capturedBytes),
          'applied alone': mib(appliedBytes),
        },
        ratio: appliedBytes / alone.capturedBytes,
        against: 'capture alone',
        goal: 1,
        rounds: { together, alone },
      }
    },
  }
}

export const replayRows = ['randwrite4k-wronly-existing', 'create-write4k-close', 'seqwrite1m'].map(
  replayRow,
)
