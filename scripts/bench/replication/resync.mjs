// Proving and bringing back a copy, against `rsync --checksum` on the same files, of which 1 % of the
// segments have changed: seconds, and bytes that went over the veth. holdfast's replica had the changes
// by then, as a connected one has; so its bytes are those of the comparison, and rsync's those of both.
// holdfast's codes have been computed in the background, as they are on any running volume.

import { randomFillSync } from 'node:crypto'
import { closeSync, mkdirSync, openSync, writeSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { run, sleep } from '../proc.mjs'
import { mountVolume, serveReplicas, waitApplied } from './hosts.mjs'

const MIB = 2 ** 20
const SEGMENT = 64 << 10
const FILES = 4
const SHARE = 0.01
/** What is aimed at, relative to rsync. */
const GOAL = 10
const CODES_MS_MAX = 120_000

function fill(dir, { mib }) {
  const content = randomFillSync(Buffer.alloc(MIB))
  mkdirSync(dir, { recursive: true })
  for (let n = 0; n < FILES; n += 1) {
    const fd = openSync(path.join(dir, `large-${n}`), 'w')
    for (let at = 0; at < mib; at += 1) {
      content.writeUInt32LE(n * mib + at, 0)
      writeSync(fd, content)
    }
    closeSync(fd)
  }
  return { files: FILES, bytes: FILES * mib * MIB }
}

/** 4 KiB in every hundredth segment. */
function change(dir, { mib, round }) {
  const block = randomFillSync(Buffer.alloc(4096))
  const segments = (mib * MIB) / SEGMENT
  for (let n = 0; n < FILES; n += 1) {
    const fd = openSync(path.join(dir, `large-${n}`), 'r+')
    for (let k = 0; k < segments * SHARE; k += 1) {
      block.writeUInt32LE(round * 1_000_003 + k, 0)
      const segment = (k * 100 + round * 37 + n * 11) % segments
      writeSync(fd, block, 0, block.length, segment * SEGMENT + 4096)
    }
    closeSync(fd)
  }
}

/** Bytes that have left this host over its link. */
async function sentOver(host) {
  const text = await host.run('cat', ['/proc/net/dev'])
  const line = text.split('\n').find((each) => each.trim().startsWith(`${host.link}:`))
  const fields = (line ?? '').split(':')[1]?.trim().split(/\s+/) ?? []
  return Number(fields[8] ?? Number.NaN)
}

async function timed(host, work) {
  const before = await sentOver(host)
  const begun = performance.now()
  await work()
  const seconds = (performance.now() - begun) / 1000
  return { seconds, sent: (await sentOver(host)) - before }
}

async function replicaOf(primary) {
  return (await primary.status()).replicas[0]
}

/** Waits until both sides have computed what codes were missing. */
async function codesSettle(primary, server) {
  const busy = async () => {
    const stat = await readFile(`/proc/${server}/stat`, 'utf8')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return Number(fields[11]) + Number(fields[12])
  }
  const end = Date.now() + CODES_MS_MAX
  let passes = 0
  while (passes === 0 && Date.now() < end) {
    await sleep(500)
    const { codes } = await primary.status()
    passes = codes === null || codes.running ? 0 : codes.passes
  }
  for (let before = await busy(), still = 0; still < 4 && Date.now() < end; ) {
    await sleep(500)
    const now = await busy()
    still = now - before < 5 ? still + 1 : 0
    before = now
  }
}

const resyncRow = {
  name: 'replication-resync',
  /** @param {any} context */
  async measure({ primary, replica, rsync, quick, rounds, median }) {
    const mib = quick ? 128 : 512
    const volume = await mountVolume(primary, (dir) => fill(dir, { mib }))
    await serveReplicas(replica)
    await primary.call('POST', '/v1/replicas', { peer: 'replica' })
    await waitApplied(primary)
    await rsync.daemon(volume.plain, 'resync')
    await codesSettle(primary, replica.serverPid)
    const seen = { holdfast: [], rsync: [] }
    for (let round = 1; round <= rounds; round += 1) {
      change(volume.tree, { mib, round })
      await waitApplied(primary)
      // Neither waits for what was written before.
      for (const { root } of [primary, replica]) await run('sync', ['-f', root])
      const { resyncs } = await replicaOf(primary)
      seen.holdfast.push(
        await timed(primary, async () => {
          await primary.call('POST', '/v1/resync', {})
          for (;;) {
            const now = await replicaOf(primary)
            if (now.resyncs > resyncs && now.copy !== 'Inconsistent') return
            await sleep(5)
          }
        }),
      )
      seen.rsync.push(await timed(primary, () => rsync.checksum(volume.plain, 'resync')))
    }
    const of = (way, what) => median(seen[way].map((each) => each[what]))
    return {
      text: `${FILES} files of ${mib} MiB, 4 KiB changed in 1 % of the 64 KiB segments (holdfast: shipped before)`,
      unit: 's, MiB sent',
      values: {
        holdfast: of('holdfast', 'seconds'),
        rsync: of('rsync', 'seconds'),
        'holdfast sent': of('holdfast', 'sent') / MIB,
        'rsync sent': of('rsync', 'sent') / MIB,
      },
      rounds: seen,
      ratio: of('rsync', 'seconds') / of('holdfast', 'seconds'),
      against: 'rsync --checksum',
      goal: GOAL,
    }
  },
}

export const resyncRows = [resyncRow]
