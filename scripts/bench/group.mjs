// A group of two hosts: how long a snapshot of it holds I/O on each of them, by both methods and behind
// links of several lengths, and what it costs applications that another host is still preparing.

import { once } from 'node:events'
import { chmod, mkdir, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { defer, sleep } from './proc.mjs'
import { mountNamed, serveReplicas } from './replication/hosts.mjs'
import { percentile } from './replication/latency.mjs'

const HARNESS = fileURLToPath(new URL('../../dist/test/harness', import.meta.url))
const WARM_UP_MS = 1500
const SLOW_PORT = 7430
/** Longer than a measurement of what prepared members do. */
const HOOK_S = 12
const ARMED_S = 4
/** `ms`: added each way; `known`: the coordinator was told of it, but for a millisecond that timers take. */
const LINKS = [
  { name: 'veth', ms: 0 },
  { name: '1 ms', ms: 1 },
  { name: '20 ms', ms: 20 },
  { name: '20 ms, known', ms: 20, known: 19 },
]

/** A volume on each host; the primary coordinates them, over a link that takes so long each way. */
async function makeGroup(context) {
  const { primary, replica } = context
  const trees = []
  for (const [host, name] of [
    [primary, 'near'],
    [replica, 'far'],
  ]) {
    trees.push(await mountNamed(host, name, undefined, ['--retain-size', '1G']))
  }
  await serveReplicas(replica)
  await replica.holdfast('peer', 'allow', 'primary', '--all')
  // Another row may have left it behind a link that is no more.
  await takeLink(context, LINKS[0])
  await primary.holdfast('group', 'create', 'bench', 'near', 'replica/far')
  defer('destroy the group', () => primary.holdfast('group', 'destroy', 'bench'))
  return trees
}

/** Has the primary reach the other host over this link from now on. */
async function takeLink({ primary, replica }, { name, ms, known }) {
  let port = 7420
  if (ms > 0) {
    port = SLOW_PORT + ms
    const main = path.join(HARNESS, 'slow-link-main.js')
    const about = [`${port}`, '7420', replica.address, `${ms}`, `${ms}`, '0']
    const { child } = replica.start(`the link of ${name}`, 'node', [main, ...about])
    await Promise.race([once(child, 'exit'), sleep(500)])
  }
  const address = `${replica.address}:${port}`
  const token = await replica.holdfast('peer', 'token', '--address', address, '--name', 'replica')
  await primary.holdfast('peer', 'add', token.trim(), '--as', 'primary')
  await primary.holdfast('peer', 'distance', 'replica', '--at-least', `${known ?? 0}ms`)
}

const holdRow = {
  name: 'group-hold',
  /** @param {any} context */
  async measure(context) {
    const { primary, replica, fsbench, samples } = context
    const trees = await makeGroup(context)
    for (const [host, tree] of [
      [primary, trees[0]],
      [replica, trees[1]],
    ]) {
      host.start('load', fsbench, ['randwrite4k-wronly-existing', tree, '--seconds', '3000'])
    }
    await sleep(WARM_UP_MS)
    const values = {}
    for (const link of LINKS) {
      await takeLink(context, link)
      for (const method of ['scheduled', 'barrier']) {
        const order = { group: 'bench', count: Math.ceil(samples / 3), method, maxHoldMs: 500 }
        const main = path.join(HARNESS, 'group-cuts-main.js')
        const out = await primary.run('node', [main, JSON.stringify(order)])
        const told = out
          .trim()
          .split('\n')
          .map((line) => JSON.parse(line))
        const taken = told.flatMap((each) => each.taken ?? [])
        const held = (n) =>
          taken.map(({ hosts }) => {
            const [{ closedNs, releaseNs }] = hosts[n].members
            return Number(BigInt(releaseNs) - BigInt(closedNs)) / 1e6
          })
        for (const [n, host] of ['near', 'far'].entries()) {
          for (const [name, part] of Object.entries({ p50: 0.5, p99: 0.99, max: 1 })) {
            values[`${link.name}, ${method}, ${host}: ${name}`] = percentile(held(n), part)
          }
        }
        values[`${link.name}, ${method}: taken of ${told.length}`] = taken.length
        const [why] = told.flatMap((each) => each.failed ?? [])
        if (why !== undefined) console.error(`${link.name}, ${method}: not taken: ${why}`)
      }
    }
    return { text: '4 KiB random writes on both hosts; time on hold', unit: 'ms', values }
  },
}

const armedRow = {
  name: 'group-armed',
  /** @param {any} context */
  async measure(context) {
    const { primary, replica, fsbench, rounds, median } = context
    const hooks = path.join(replica.work, 'hooks.d')
    await mkdir(hooks, { recursive: true })
    const hook = path.join(hooks, '10-slow')
    await writeFile(hook, `#!/bin/sh\n[ "$1" != pre-snapshot ] || sleep ${HOOK_S}\n`)
    await chmod(hook, 0o755)
    replica.env.HOLDFAST_HOOKS_DIR = hooks
    const [tree] = await makeGroup(context)
    const rate = async () => {
      const job = ['randwrite4k-wronly-existing', tree, '--seconds', `${ARMED_S}`]
      const { ops, seconds } = JSON.parse(await primary.run(fsbench, job))
      return ops / seconds
    }
    await rate()
    const found = { alone: [], prepared: [] }
    for (let round = 0; round < rounds; round += 1) {
      found.alone.push(await rate())
      const args = ['group', 'snapshot', 'create', 'bench', '--name', `armed-${round}`]
      const taken = primary.holdfast(...args)
      await sleep(WARM_UP_MS)
      found.prepared.push(await rate())
      await taken
      await primary.holdfast('group', 'snapshot', 'destroy', 'bench', `armed-${round}`)
    }
    delete replica.env.HOLDFAST_HOOKS_DIR
    const values = { alone: median(found.alone), prepared: median(found.prepared) }
    const text = `4 KiB random writes on one host while the other's hook takes ${HOOK_S} s`
    const ratio = values.prepared / values.alone
    return { text, unit: 'op/s', values, rounds: found, against: 'alone', ratio, goal: 0.98 }
  },
}

export const groupRows = [holdRow, armedRow]
