// How long a snapshot holds I/O, and how long it takes: one volume and two, idle and under load.

import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { sleep } from './proc.mjs'
import { mountNamed } from './replication/hosts.mjs'
import { percentile } from './replication/latency.mjs'

const CUTS = path.join(path.dirname(fileURLToPath(import.meta.url)), 'cuts.mjs')
const WARM_UP_MS = 1500

/** Loads for a tree, as commands; all at once, and none that fills the disk in the end. */
const LOADS = {
  idle: () => [],
  'under load': (tree, fsbench) =>
    ['randwrite4k-wronly-existing', 'rename'].map((kind) => [
      fsbench,
      kind,
      tree,
      '--seconds',
      '600',
    ]),
}

const holdRow = {
  name: 'snapshot-hold',
  /** @param {any} context */
  async measure({ primary, fsbench, samples }) {
    const volumes = ['left', 'right']
    const trees = []
    for (const name of volumes) {
      const limits = ['--history-size', '2G', '--retain-size', '1G']
      const tree = await mountNamed(primary, name, undefined, limits)
      await primary.run(fsbench, ['prefill', tree])
      trees.push(tree)
    }
    const values = {}
    for (const [load, commands] of Object.entries(LOADS)) {
      const running = trees
        .flatMap((tree) => commands(tree, fsbench))
        .map(([program, ...args]) => primary.start(load, program, args))
      await sleep(WARM_UP_MS)
      for (const names of [volumes.slice(0, 1), volumes]) {
        const out = await primary.run('node', [CUTS, `${samples}`, ...names])
        const { held, took } = JSON.parse(out)
        const what = `${names.length === 1 ? 'one' : 'two'}, ${load}:`
        for (const [name, part] of Object.entries({ p50: 0.5, p99: 0.99, max: 1 })) {
          values[`${what} held ${name}`] = percentile(held, part)
        }
        values[`${what} took p50`] = percentile(took, 0.5)
      }
      for (const each of running) await each.end()
    }
    const text = `${samples} snapshots each; held: the longest of their volumes`
    return { text, unit: 'ms', values }
  },
}

export const snapshotRows = [holdRow]
