// The benchmark: every target in one run, interleaved, medians of rounds, ratios against peers.
// `node scripts/bench/main.mjs --help`. Needs root (loop device, mounts, dropping caches).

import { execFileSync } from 'node:child_process'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { makeImage } from './image.mjs'
import { makeCluster } from './postgres.mjs'
import { defer, run, sleep, startServer, unwind } from './proc.mjs'
import { replicationLine, replicationMarkdown } from './replication/report.mjs'
import { measureReplication, REPLICATION_ROWS } from './replication/run.mjs'
import { appendLedger, markdown, plainTable, summarize, writeMarkdown } from './report.mjs'
import { allTargets, DEFAULT_TARGETS, holdfastIsThere } from './targets.mjs'
import { WORKLOADS } from './workloads.mjs'

const HERE = path.dirname(fileURLToPath(import.meta.url))
const PROJECT = path.resolve(HERE, '../..')

const HELP = `npm run bench -- [options]

Measures holdfast against native XFS and other FUSE file systems in one run. Needs root.

  --quick            1 round of 0.3 s per workload, short databases
  --only REGEX       only the workloads that match; "replication": the rows of two hosts,
                     which take about 6 minutes; "^(?!replication)": all others
  --targets LIST     comma-separated (default ${DEFAULT_TARGETS.join(',')};
                     also passthrough_ll, passthrough_ll-wb, passthrough_hp-noxattr,
                     mergerfs-nosys)
  --extra NAME=CMD   one more peer: a command with {dir} and {mnt} that stays in the foreground
                     (repeatable; measured in addition to --targets)
  --rounds N         rounds; the table shows medians (default 3)
  --seconds S        timed seconds per workload, target and round (default 1)
  --awake            keep the CPUs from halting, with idle-priority spinners (see BENCHMARKS.md)
  --holdfast CMD     the holdfast command (default "node dist/program/cli/main.js")
  --dir DIR          where the XFS image is made (default: the temporary directory)
  --state DIR        the journal's place (default: on the same XFS image)
  --json FILE        also write the results to FILE
  --no-ledger        write neither docs/bench-ledger.jsonl nor docs/BENCHMARKS.md
                     (with --only, the latter is left alone in any case)
  --list             list workloads and end
  --help             this text`

function options() {
  const { values } = parseArgs({
    options: {
      quick: { type: 'boolean', default: false },
      only: { type: 'string' },
      targets: { type: 'string', default: DEFAULT_TARGETS.join(',') },
      extra: { type: 'string', multiple: true, default: [] },
      rounds: { type: 'string' },
      seconds: { type: 'string' },
      awake: { type: 'boolean', default: false },
      holdfast: { type: 'string', default: 'node dist/program/cli/main.js' },
      dir: { type: 'string', default: os.tmpdir() },
      state: { type: 'string' },
      json: { type: 'string' },
      'no-ledger': { type: 'boolean', default: false },
      list: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  const positive = (text, name) => {
    const value = Number(text)
    if (!(value > 0)) throw new Error(`--${name} must be a positive number`)
    return value
  }
  return {
    ...values,
    rounds: positive(values.rounds ?? (values.quick ? 1 : 3), 'rounds'),
    seconds: positive(values.seconds ?? (values.quick ? 0.3 : 1), 'seconds'),
    only: values.only === undefined ? undefined : new RegExp(values.only),
  }
}

/** Builds fsbench and fsfloor; cargo knows whether there is anything to do. */
async function buildPrograms() {
  const manifest = path.join(HERE, 'workload/Cargo.toml')
  await run('cargo', ['build', '--release', '--quiet', '--manifest-path', manifest])
  const dir = path.join(HERE, 'workload/target/release')
  return { fsbench: path.join(dir, 'fsbench'), floor: path.join(dir, 'fsfloor') }
}

/**
 * Makes the fixture in each backing directory, then starts the targets; one that does not start
 * is told and left out.
 */
async function startTargets({ targets, root, fsbench }) {
  const started = []
  for (const target of targets) {
    const dir = path.join(root, `t-${target.name}`)
    await mkdir(dir)
    if (!target.noFixture) await run(fsbench, ['prepare', dir])
    try {
      started.push({ target, mountpoint: await target.start(dir) })
    } catch (error) {
      if (error.message === 'stopped') throw error
      console.error(`bench: ${target.name} is left out: ${error.message}`)
      await target.stop()
    }
  }
  return started
}

/**
 * One measurement: the rate, in the workload's unit.
 * @param {import('./workloads.mjs').Workload} workload
 */
async function measureOnce(workload, { name, mountpoint }, context) {
  const { fsbench, seconds, quick, clusters, work } = context
  if (workload.tool === 'pgbench') {
    if (!clusters.has(name)) {
      clusters.set(name, makeCluster(mountpoint, path.join(work, `pg-${name}`)))
    }
    const pgbench = await clusters.get(name)
    return pgbench(workload.args[0], quick ? 3 : Math.max(10 * seconds, 3))
  }
  if (workload.tool === 'sqlite') {
    const script = path.join(HERE, 'sqlite.py')
    const out = await run('python3', [script, mountpoint, ...workload.args, String(seconds)])
    const { ops, seconds: spent } = JSON.parse(out)
    return ops / spent
  }
  const [kind, ...more] = workload.args
  const out = await run(fsbench, [kind, mountpoint, '--seconds', String(seconds), ...more])
  const { ops, bytes, seconds: spent } = JSON.parse(out)
  return workload.unit === 'MiB/s' ? bytes / 2 ** 20 / spent : ops / spent
}

/** Writes out what the last measurement left dirty, so that the next does not pay for it. */
async function settle(mountpoint, root) {
  await run('sync', ['-f', mountpoint]).catch(() => '')
  await run('sync', ['-f', root])
  await sleep(100)
}

/** @param {import('./workloads.mjs').Workload} workload */
async function measureWorkload(workload, started, context) {
  /** @type {Record<string, number[]>} */
  const rounds = {}
  /** @type {Record<string, string>} */
  const failed = {}
  const able = started.filter(
    ({ target }) => !target.noFixture || (!workload.fixture && workload.tool === 'fsbench'),
  )
  for (let round = 0; round < context.rounds; round++) {
    for (const { target, mountpoint } of able) {
      if (failed[target.name] !== undefined) continue
      await settle(mountpoint, context.root)
      try {
        const rate = await measureOnce(workload, { name: target.name, mountpoint }, context)
        rounds[target.name] ??= []
        rounds[target.name].push(rate)
      } catch (error) {
        if (error.message === 'stopped') throw error
        // It may be out of descriptors (one per cached inode): let it recover for the next.
        await writeFile('/proc/sys/vm/drop_caches', '2')
        const [what] = error.message.split('\n')
        failed[target.name] = what
          .replaceAll(context.work, '…')
          .replaceAll(`${path.dirname(context.fsbench)}/`, '')
      }
    }
  }
  return summarize(
    workload,
    able.map(({ target }) => target),
    rounds,
    failed,
  )
}

const load = async () => (await readFile('/proc/loadavg', 'utf8')).split(' ')[0]

function commit() {
  const git = (...args) => execFileSync('git', args, { cwd: PROJECT, encoding: 'utf8' }).trim()
  try {
    const changed = git('status', '--porcelain', '--untracked-files=no') !== ''
    return git('rev-parse', '--short', 'HEAD') + (changed ? '+' : '')
  } catch {
    return 'unknown'
  }
}

/** What a reader must know of a run. */
async function aboutRun(opts) {
  return {
    date: new Date().toISOString(),
    commit: commit(),
    kernel: os.release(),
    cpus: os.cpus().length,
    memoryGiB: Math.round(os.totalmem() / 2 ** 30),
    rounds: opts.rounds,
    seconds: opts.seconds,
    awake: opts.awake,
    loadBefore: await load(),
  }
}

async function bench(opts) {
  if (process.getuid?.() !== 0) throw new Error('the benchmark needs root (loop device, mounts)')
  const wantedOnly = ({ name }) => opts.only?.test(name) ?? true
  const workloads = WORKLOADS.filter(wantedOnly)
  const rows = REPLICATION_ROWS.filter(wantedOnly)
  if (workloads.length + rows.length === 0) throw new Error('no workload matches --only')
  const { fsbench, floor } = await buildPrograms()
  const about = await aboutRun(opts)
  const dir = path.resolve(opts.dir)
  const replication =
    rows.length === 0
      ? []
      : await measureReplication({ ...opts, dir, rows, fsbench, project: PROJECT })
  const local =
    workloads.length === 0
      ? { targets: [], results: [] }
      : await measureLocal(opts, { workloads, fsbench, floor })
  return { about: { ...about, loadAfter: await load() }, ...local, replication }
}

/** The workloads of one host, on all targets. */
async function measureLocal(opts, { workloads, fsbench, floor }) {
  const { root, work } = await makeImage(path.resolve(opts.dir))
  const setting = {
    work,
    floor,
    project: PROJECT,
    cache: path.join(HERE, 'workload/target/peers'),
    stateDir: opts.state ? path.resolve(opts.state) : path.join(root, 'state'),
    holdfast: opts.holdfast,
    extra: opts.extra,
  }
  const extraNames = opts.extra.map((text) => text.split('=')[0])
  const wanted = [...opts.targets.split(','), ...extraNames]
  const known = allTargets(setting)
  const unknown = wanted.find((name) => !known.some((target) => target.name === name))
  if (unknown !== undefined) throw new Error(`unknown target ${unknown}`)
  let targets = known.filter(({ name }) => wanted.includes(name))
  if (wanted.includes('holdfast') && !(await holdfastIsThere(setting))) {
    console.error(`bench: holdfast is left out: "${opts.holdfast}" is not built`)
    targets = targets.filter(({ name }) => name !== 'holdfast')
  }
  let started = await startTargets({ targets, root, fsbench })
  if (
    wanted.includes('passthrough_hp') &&
    !wanted.includes('passthrough_ll') &&
    !started.some(({ target }) => target.name === 'passthrough_hp')
  ) {
    console.error('bench: passthrough_ll stands in for passthrough_hp')
    const instead = known.filter(({ name }) => name === 'passthrough_ll')
    started = [...started, ...(await startTargets({ targets: instead, root, fsbench }))]
  }
  if (opts.awake) {
    const spinner = startServer(fsbench, ['keepawake', work])
    defer('stop the spinners', spinner.end)
  }
  const clusters = new Map()
  const context = { ...opts, fsbench, root, work, clusters }
  const results = []
  for (const workload of workloads) {
    const result = await measureWorkload(workload, started, context)
    results.push(result)
    const names = started.map(({ target }) => target.name)
    console.error(plainTable([result], names).split('\n')[1])
  }
  const measured = started.map(({ target }) => target)
  return { targets: measured, results }
}

async function main() {
  const opts = options()
  if (opts.help) {
    console.log(HELP)
    return
  }
  if (opts.list) {
    for (const { name } of [...WORKLOADS, ...REPLICATION_ROWS]) console.log(name)
    return
  }
  for (const [signal, number] of [
    ['SIGINT', 2],
    ['SIGTERM', 15],
    ['SIGHUP', 1],
  ]) {
    process.on(signal, () => {
      unwind().finally(() => process.exit(128 + number))
    })
  }
  try {
    const measured = await bench(opts)
    if (measured.results.length > 0) {
      console.log(
        plainTable(
          measured.results,
          measured.targets.map(({ name }) => name),
        ),
      )
    }
    for (const result of measured.replication) console.log(replicationLine(result))
    for (const { name, note } of measured.targets) console.log(`${name}: ${note}`)
    if (opts.json) await writeFile(opts.json, `${JSON.stringify(measured, null, 2)}\n`)
    if (!opts['no-ledger']) {
      await appendLedger(path.join(PROJECT, 'docs/bench-ledger.jsonl'), measured)
      // A part of the workloads must not replace the whole table.
      const document = path.join(PROJECT, 'docs/BENCHMARKS.md')
      if (!opts.only) await writeMarkdown(document, 'bench', markdown(measured))
      if (measured.replication.length === REPLICATION_ROWS.length && !opts.quick) {
        await writeMarkdown(document, 'bench-replication', replicationMarkdown(measured))
      }
    }
  } finally {
    await unwind()
  }
}

main().catch((error) => {
  console.error(`bench: ${error.message}`)
  process.exitCode = 1
})
