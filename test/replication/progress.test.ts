/**
 * What a baseline shows while it is under way, and what both hosts tell of a replica: status, lag in
 * bytes and seconds, metrics.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import t from 'tap'
import { until } from '../harness/faults.js'
import { HOLDFAST, projectFile } from '../harness/files.js'
import { type Host, makeHosts } from '../harness/hosts.js'
import { makeImage } from '../harness/image.js'
import { openSandbox } from '../harness/sandbox.js'

const MIB = 2 ** 20
const FILES = 40

t.setTimeout(480_000)
const sandbox = await openSandbox(t)
const [primary, replica] = await makeHosts(sandbox)
const image = await makeImage(sandbox, { fs: 'xfs', mib: 2048 })
const dir = join(image.dir, 'data')
const root = join(image.dir, 'replicas')

const shown = async () => {
  const [found] = (await primary.status('data')).replicas
  if (found === undefined) throw new Error('no replica in the status')
  return found
}
const hosted = async () => {
  const [found] = (await replica.replicas()).replicas
  if (found === undefined) throw new Error('no replica on its host')
  return found
}

/** GET /v1/metrics of a socket. */
function metrics(host: Host, socket: string): Promise<string> {
  const socketPath = join(sandbox.root, host.name, 'run', socket)
  return new Promise((resolve, reject) => {
    const sent = request({ socketPath, path: '/v1/metrics' }, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (part) => {
        text += part
      })
      response.on('end', () => resolve(text))
    })
    sent.on('error', reject)
    sent.end()
  })
}

const value = (text: string, name: string, labels: string) => {
  const line = text.split('\n').find((each) => each.startsWith(`${name}{`) && each.includes(labels))
  return line === undefined ? undefined : Number(line.slice(line.lastIndexOf(' ')))
}

mkdirSync(dir)
for (let n = 0; n < FILES; n += 1) writeFileSync(join(dir, `file-${n}`), Buffer.alloc(MIB, n))
await primary.holdfast('mount', dir, '--ring', sandbox.rings, '--ring-size', '64M')
await replica.serve(root)
await primary.introduce(replica)

await t.test(
  'replicate --wait: plain lines without a terminal, then the replica is there',
  async (t) => {
    const args = ['replicate', 'data', '--to', 'replica']
    const waited = await primary.tryHoldfast(...args, '--wait')
    t.equal(waited.code, 0, waited.stderr)
    t.match(waited.stderr, /^baseline to replica: /m)
    t.match(waited.stdout, /replica has data, async/)
    const { copy, baseline, lag } = await shown()
    t.not(copy, 'Inconsistent')
    t.equal(baseline, null)
    t.ok(lag.appliedBytes >= 0 && lag.seconds < 60)
    t.match(await primary.holdfast(...args, '--no-wait'), /is shipped to/)
  },
)

await t.test('replicate: a bar on a terminal; a baseline that stands still is told', async (t) => {
  await primary.holdfast('replicate', 'data', '--stop', 'replica')
  await primary.setLink('down')
  const command = [process.execPath, HOLDFAST, 'replicate', 'data', '--to', 'replica']
  const shell = spawn('python3', [projectFile('test/harness/terminal.py'), ...command], {
    env: { ...process.env, ...primary.env },
  })
  const ended = once(shell, 'close')
  let seen = ''
  let pressed = false
  shell.stdout.setEncoding('utf8').on('data', (text) => {
    seen += text
    if (!pressed && seen.includes('░')) shell.stdin.write('\x03')
    pressed ||= seen.includes('░')
  })
  const [code] = await ended
  t.equal(code, 1, seen)
  t.match(seen, /baseline to replica .*░/, 'the bar')
  t.match(seen, /not waiting any longer; the baseline goes on/)
  await primary.setLink('up')
  await primary.holdfast('wait', 'data', '--timeout', '60s')
})

await t.test('lag: in bytes and seconds while the replica is away', async (t) => {
  await primary.setLink('down')
  writeFileSync(join(dir, 'unsent'), Buffer.alloc(8 * MIB, 1))
  const isCounted = async () => (await shown()).lag.appliedBytes >= 8 * MIB
  await until(isCounted, 'what was written to be counted')
  const first = (await shown()).lag
  t.ok(first.appliedBytes >= 8 * MIB && first.appliedBytes < 10 * MIB, `${first.appliedBytes}`)
  t.equal(first.loggedBytes, first.appliedBytes)
  await until(async () => (await shown()).lag.seconds > 2, 'the lag to grow')
  t.match(await primary.holdfast('status', 'data'), /behind, 8\.\d MiB, \d+\.\d s\)/)
  const text = await metrics(primary, 'data.sock')
  t.ok((value(text, 'holdfast_replica_applied_lag_bytes', 'peer="replica"') ?? 0) >= 8 * MIB)
  t.ok((value(text, 'holdfast_replica_applied_lag_seconds', 'peer="replica"') ?? 0) > 2)
  await primary.setLink('up')
  await primary.holdfast('wait', 'data', '--timeout', '60s')
  const { lag } = await shown()
  t.match(lag, { appliedBytes: 0, loggedBytes: 0, seconds: 0, loggedSeconds: 0 })
})

await t.test('metrics: what both hosts tell of the replica', async (t) => {
  await until(async () => (await hosted()).copy === 'UpToDate', 'the replica to be up to date')
  const here = await metrics(primary, 'data.sock')
  const there = await metrics(replica, '.replica-host.sock')
  const { captured } = await primary.status('data')
  t.equal(value(here, 'holdfast_replica_applied_seq', 'peer="replica"'), captured.seq)
  t.equal(value(here, 'holdfast_replica_connection', 'state="connected"'), 1)
  t.equal(value(here, 'holdfast_replica_connection', 'state="waiting"'), 0)
  t.equal(value(here, 'holdfast_replica_copy', 'state="UpToDate"'), 1)
  t.ok((value(here, 'holdfast_replica_sent_bytes_total', 'peer="replica"') ?? 0) > 8 * MIB)
  t.equal(value(there, 'holdfast_hosted_applied_seq', 'replica="data"'), captured.seq)
  t.equal(value(there, 'holdfast_hosted_lag_bytes', 'replica="data"'), 0)
  t.equal(value(there, 'holdfast_hosted_connected', 'primary="primary"'), 1)
  t.match(await hosted(), { lag: { records: 0, bytes: 0, seconds: 0 }, failures: 0 })
  t.match(await replica.holdfast('replica', 'list'), /nothing behind/)
  await primary.holdfast('replicate', 'data', '--stop', 'replica')
  const gone = await metrics(primary, 'data.sock')
  t.equal(value(gone, 'holdfast_replica_applied_seq', 'peer="replica"'), undefined)
  await primary.holdfast('unmount', 'data')
  t.equal(await replica.stopServing(), 0)
})
