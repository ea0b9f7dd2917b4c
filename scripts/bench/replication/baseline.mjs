// Baselines: a tree that the other host has nothing of, against rsync.

import { randomFillSync } from 'node:crypto'
import { closeSync, mkdirSync, openSync, writeSync } from 'node:fs'
import { mkdir, rm } from 'node:fs/promises'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { run, sleep } from '../proc.mjs'
import { mountVolume, waitApplied } from './hosts.mjs'

/** What is aimed at, relative to rsync. */
const GOAL = 2
const SMALL_BYTES = [4096, 6144, 8192, 12_288, 16_384]
const FILES_PER_DIRECTORY = 500
const BARE = fileURLToPath(new URL('bare.py', import.meta.url))
const BARE_PORT = '7430'

/**
 * @param {string} dir
 * @param {{ files: number }} size
 * @returns {{ files: number, bytes: number }}
 */
function fillSmall(dir, { files }) {
  const content = randomFillSync(Buffer.alloc(1 << 20))
  let bytes = 0
  for (let n = 0; n < files; n += 1) {
    const parent = path.join(dir, `d${Math.floor(n / FILES_PER_DIRECTORY)}`)
    if (n % FILES_PER_DIRECTORY === 0) mkdirSync(parent, { recursive: true })
    const length = SMALL_BYTES[n % SMALL_BYTES.length] ?? 4096
    const fd = openSync(path.join(parent, `file-${n}`), 'w')
    writeSync(fd, content, (n * 4096) % (1 << 19), length)
    closeSync(fd)
    bytes += length
  }
  return { files, bytes }
}

/**
 * @param {string} dir
 * @param {{ files: number, mib: number }} size
 */
function fillLarge(dir, { files, mib }) {
  const content = randomFillSync(Buffer.alloc(1 << 20))
  mkdirSync(dir, { recursive: true })
  for (let n = 0; n < files; n += 1) {
    const fd = openSync(path.join(dir, `large-${n}`), 'w')
    for (let at = 0; at < mib; at += 1) {
      content.writeUInt32LE(n * mib + at, 0)
      writeSync(fd, content)
    }
    closeSync(fd)
  }
  return { files, bytes: files * mib * 2 ** 20 }
}

/** Takes one tree by bare TCP; resolves when it listens. */
async function bareReceiver(replica, directory) {
  const args = [BARE, 'receive', replica.address, BARE_PORT, directory]
  const { end, log } = replica.start('the bare receiver', 'python3', args)
  while (!log().includes('listening')) await sleep(5)
  return end
}

/** Ways to the other host: seconds until the copy is there. */
function ways({ primary, replica, volume, rsync }) {
  const timed = async (work) => {
    const begun = performance.now()
    await work()
    return (performance.now() - begun) / 1000
  }
  const clear = async (dir) => {
    await rm(dir, { recursive: true, force: true })
    for (const root of [primary.root, replica.root]) await run('sync', ['-f', root])
    await sleep(200)
  }
  const byRsync = (kind, { durable }) => ({
    prepare: () => clear(path.join(rsync.root, kind)),
    measure: () =>
      timed(async () => {
        await rsync[kind](volume.plain, kind)
        if (durable) await run('sync', ['-f', rsync.root])
      }),
    after: () => clear(path.join(rsync.root, kind)),
  })
  const root = path.join(replica.root, 'replicas')
  const bare = path.join(replica.root, 'bare')
  const to = [replica.address, BARE_PORT]
  return {
    holdfast: {
      prepare: async () => {
        await clear(root)
        await replica.serve(root)
      },
      measure: () =>
        timed(async () => {
          await primary.call('POST', '/v1/replicas', { peer: 'replica' })
          await waitApplied(primary)
        }),
      after: async () => {
        await primary.call('DELETE', '/v1/replicas/replica')
        await replica.stopServing()
        await clear(root)
      },
    },
    rsync: byRsync('daemon', { durable: false }),
    'rsync+sync': byRsync('daemon', { durable: true }),
    'rsync-ssh': byRsync('ssh', { durable: false }),
    'bare tar': {
      prepare: async () => {
        await clear(bare)
        await mkdir(bare)
      },
      measure: async () => {
        const end = await bareReceiver(replica, bare)
        const seconds = await timed(() =>
          primary.run('python3', [BARE, 'send', ...to, volume.plain]),
        )
        await end()
        return seconds
      },
      after: () => clear(bare),
    },
  }
}

/**
 * One kind of tree, every way, in turns.
 * @param {string} name
 * @param {(dir: string, context: any) => { files: number, bytes: number }} fill
 */
function baselineRow(name, fill) {
  return {
    name: `replication-${name}`,
    /** @param {any} context */
    async measure(context) {
      const { rounds, median } = context
      const volume = await mountVolume(context.primary, (dir) => fill(dir, context))
      const { files, bytes } = volume.filled
      /** @type {Record<string, number[]>} */
      const seconds = {}
      for (let round = 0; round < rounds; round += 1) {
        const all = Object.entries(ways({ ...context, volume }))
        // Whoever comes after another finds its memory warm: each is first once.
        const turn = round % all.length
        for (const [way, { prepare, measure, after }] of [
          ...all.slice(turn),
          ...all.slice(0, turn),
        ]) {
          await prepare()
          const spent = await measure()
          seconds[way] ??= []
          seconds[way].push(spent)
          await after()
        }
      }
      const rate = {}
      for (const [way, each] of Object.entries(seconds)) rate[way] = bytes / 2 ** 20 / median(each)
      return {
        text: `${files} files, ${(bytes / 2 ** 20).toFixed(0)} MiB`,
        unit: 'MiB/s',
        values: rate,
        rounds: seconds,
        ratio: rate.holdfast / rate.rsync,
        against: 'rsync',
        goal: GOAL,
      }
    },
  }
}

export const baselineRows = [
  baselineRow('baseline-small', (dir, { quick }) =>
    fillSmall(dir, { files: quick ? 10_000 : 50_000 }),
  ),
  baselineRow('baseline-large', (dir, { quick }) =>
    fillLarge(dir, { files: 4, mib: quick ? 128 : 512 }),
  ),
]
