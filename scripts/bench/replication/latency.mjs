// Lag of a replica under load, and what its acknowledgement adds to fsync.

import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { run, sleep } from '../proc.mjs'
import { mountVolume, serveReplicas, waitApplied } from './hosts.mjs'

const PROBE = path.join(path.dirname(fileURLToPath(import.meta.url)), 'probe.mjs')
const PAUSE_MS = 15
const WARM_UP_MS = 1500

/** @param {number[]} values @param {number} part */
export function percentile(values, part) {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN
}

const summary = (values) => ({ p50: percentile(values, 0.5), p99: percentile(values, 0.99) })

/** Milliseconds from a marker's capture to the moment at which the replica has applied it. */
async function lags(primary, count) {
  const values = []
  for (let n = 0; n < count; n += 1) {
    const begun = performance.now()
    const { seq } = await primary.call('POST', '/v1/marker', { name: `lag-${n}` })
    await primary.call('POST', '/v1/wait', { for: 'applied', seq, waitMs: 60_000 })
    values.push(performance.now() - begun)
    await sleep(PAUSE_MS)
  }
  return values
}

/** Loads under which the lag is looked at, as commands. */
const LOADS = {
  idle: () => undefined,
  '2000 writes/s': ({ tree }) => ['node', PROBE, 'paced', tree, '2000'],
  // More than the replica can apply beside it would only tell for how long it was done.
  '8000 writes/s': ({ tree }) => ['node', PROBE, 'paced', tree, '8000'],
}

const lagRow = {
  name: 'replication-lag',
  /** @param {any} context */
  async measure(context) {
    const { primary, replica, samples } = context
    const { tree } = await mountVolume(primary)
    await serveReplicas(replica)
    await primary.call('POST', '/v1/replicas', { peer: 'replica' })
    await waitApplied(primary)
    const values = {}
    for (const [name, command] of Object.entries(LOADS)) {
      const [program, ...args] = command({ ...context, tree }) ?? []
      const load = program === undefined ? undefined : primary.start(name, program, args)
      await sleep(WARM_UP_MS)
      const { p50, p99 } = summary(await lags(primary, samples))
      Object.assign(values, { [`${name} p50`]: p50, [`${name} p99`]: p99 })
      await load?.end()
      await waitApplied(primary)
    }
    return { text: `${samples} markers each, from capture to applied`, unit: 'ms', values }
  },
}

const MODES = ['none', 'async', 'sync-log', 'sync-apply']

const fsyncRow = {
  name: 'replication-fsync',
  /** @param {any} context */
  async measure({ primary, replica, samples, rounds, median }) {
    const { tree } = await mountVolume(primary)
    await serveReplicas(replica)
    /** @type {Record<string, number[]>} */
    const all = {}
    for (let round = 0; round < rounds; round += 1) {
      for (const mode of MODES) {
        if (mode !== 'none') {
          await primary.call('POST', '/v1/replicas', { peer: 'replica', ack: mode })
          await waitApplied(primary)
        }
        if (mode.startsWith('sync')) await armed(primary)
        const { p50, p99 } = summary(
          JSON.parse(await run('node', [PROBE, 'fsync', tree, String(samples)])),
        )
        for (const [name, value] of Object.entries({ p50, p99 })) {
          all[`${mode} ${name}`] ??= []
          all[`${mode} ${name}`].push(value)
        }
        if (mode !== 'none') await primary.call('DELETE', '/v1/replicas/replica')
      }
    }
    const values = {}
    for (const [name, each] of Object.entries(all)) values[name] = median(each)
    return { text: `${samples} writes of 4 KiB, each with fsync`, unit: 'ms', values, rounds: all }
  },
}

/** fsync waits for the replica from now on. */
async function armed(primary) {
  while (!(await primary.status()).replicas.every(({ waitedFor }) => waitedFor)) await sleep(50)
}

export const latencyRows = [lagRow, fsyncRow]
