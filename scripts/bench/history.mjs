// What keeping the past costs, and what it gives: the price of each history mode on writes (beside that
// of btrfs snapshots on btrfs), how long a view takes to open, how fast it is read, how large it gets.

import { mkdir, readdir, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { unmount } from './image.mjs'
import { defer, run, sleep } from './proc.mjs'
import { mountNamed } from './replication/hosts.mjs'

const MODES = ['none', 'snapshots', 'continuous']
const KINDS = ['randwrite4k-wronly-existing', 'seqwrite1m', 'create-write4k-close', 'unlink']
const SECONDS = '2'
const BTRFS_BYTES = 6 * 2 ** 30

/** @param {string} out */
function rate(out) {
  const { ops, seconds } = JSON.parse(out)
  return ops / seconds
}

/**
 * A btrfs of its own beside the disk; undefined where it cannot be made.
 * @param {any} primary
 */
async function makeBtrfs(primary) {
  const dir = path.join(primary.work, 'btrfs')
  const file = path.join(primary.root, 'btrfs.img')
  try {
    await mkdir(dir, { recursive: true })
    await run('truncate', ['-s', String(BTRFS_BYTES), file])
    defer('remove the btrfs image', () => rm(file, { force: true }))
    await run('mkfs.btrfs', ['-q', file])
    await run('mount', ['-o', 'loop', file, dir])
    defer('unmount btrfs', () => unmount(dir))
    await run('btrfs', ['-q', 'subvolume', 'create', path.join(dir, 'data')])
    return dir
  } catch (error) {
    console.error(`bench: no btrfs: ${error.message}`)
    return undefined
  }
}

const costRow = (kind) => ({
  name: `history-cost-${kind}`,
  /** @param {any} context */
  async measure({ primary, fsbench, rounds, median }) {
    const trees = {}
    for (const mode of MODES) {
      const options = ['--history', mode, '--history-size', '1G', '--retain-size', '512M']
      trees[mode] = await mountNamed(primary, mode, undefined, options)
      await primary.run(fsbench, ['prefill', trees[mode]])
    }
    const btrfs = await makeBtrfs(primary)
    if (btrfs !== undefined) await run(fsbench, ['prefill', path.join(btrfs, 'data')])
    const values = {}
    const add = (name, value) => {
      values[name] ??= []
      values[name].push(value)
    }
    const measure = async (tree) =>
      rate(await primary.run(fsbench, [kind, tree, '--seconds', SECONDS]))
    for (let round = 0; round < rounds; round += 1) {
      for (const mode of MODES) {
        const name = `bench-${mode}-${round}`
        // Everything that is changed afterwards is changed for the first time.
        if (mode !== 'none') await primary.holdfast('snapshot', 'create', mode, '--name', name)
        add(mode, await measure(trees[mode]))
        if (mode !== 'none') await primary.holdfast('snapshot', 'destroy', name)
      }
      if (btrfs !== undefined) {
        const data = path.join(btrfs, 'data')
        add('btrfs', await measure(data))
        const kept = path.join(btrfs, `${round}`)
        await run('btrfs', ['-q', 'subvolume', 'snapshot', '-r', data, kept])
        add('btrfs snapshots', await measure(data))
        await run('btrfs', ['-q', 'subvolume', 'delete', '-c', kept])
      }
      await run('sync', ['-f', primary.root])
    }
    const medians = Object.fromEntries(Object.entries(values).map(([k, v]) => [k, median(v)]))
    const text = `${SECONDS} s each, a new snapshot before each`
    return { text, unit: 'op/s', values: medians, against: 'none', ...ratioOf(medians) }
  },
})

/** The mode that is the default, against none. */
function ratioOf({ none, snapshots }) {
  return { ratio: snapshots / none, goal: 0.5 }
}

/**
 * @param {string} tree
 * @param {number} count
 */
async function fillSmall(tree, count) {
  const perDirectory = 1000
  for (let d = 0; d * perDirectory < count; d += 1) {
    const dir = path.join(tree, `d${d}`)
    await mkdir(dir)
    const files = Array.from({ length: perDirectory }, (_, n) => path.join(dir, `f${n}`))
    for (let at = 0; at < files.length; at += 100) {
      await Promise.all(files.slice(at, at + 100).map((file) => writeFile(file, file)))
    }
  }
}

const openRow = {
  name: 'history-open',
  /** @param {any} context */
  async measure({ primary, quick, rounds, median }) {
    const count = quick ? 50_000 : 1_000_000
    const tree = await mountNamed(primary, 'many', (dir) => fillSmall(dir, count))
    await primary.holdfast('snapshot', 'create', 'many', '--name', 'open')
    const values = { open: [], command: [], walk: [], 'walk native': [] }
    for (let round = 0; round < rounds; round += 1) {
      const at = path.join(primary.work, 'view')
      let begun = performance.now()
      await primary.holdfast('snapshot', 'mount', 'open', at)
      values.command.push(performance.now() - begun)
      begun = performance.now()
      await readdir(at)
      values.open.push(performance.now() - begun)
      begun = performance.now()
      await run('find', [at, '-printf', '%s\n'])
      values.walk.push(performance.now() - begun)
      begun = performance.now()
      await run('find', [tree, '-printf', '%s\n'])
      values['walk native'].push(performance.now() - begun)
      await primary.holdfast('snapshot', 'unmount', 'open')
    }
    const medians = Object.fromEntries(Object.entries(values).map(([k, v]) => [k, median(v)]))
    const text = `${count} files; command: snapshot mount; open: first listing; walk: find with stat, through the view and the volume`
    return { text, unit: 'ms', values: medians }
  },
}

const readRow = {
  name: 'history-read',
  /** @param {any} context */
  async measure({ primary, rounds, median, quick }) {
    const mib = quick ? 256 : 1024
    await mountNamed(primary, 'big', async (dir) => {
      for (const name of ['a', 'b']) {
        await run('dd', ['if=/dev/urandom', `of=${path.join(dir, name)}`, 'bs=1M', `count=${mib}`])
      }
      await run('cp', [path.join(dir, 'a'), path.join(primary.root, 'plain')])
    })
    defer('remove the plain file', () => rm(path.join(primary.root, 'plain'), { force: true }))
    const tree = path.join(primary.root, 'big')
    await primary.holdfast('snapshot', 'create', 'big', '--name', 'read')
    // One of the two is changed all over.
    await run('dd', [
      'if=/dev/zero',
      `of=${path.join(tree, 'b')}`,
      'bs=1M',
      `count=${mib}`,
      'conv=notrunc',
    ])
    const at = path.join(primary.work, 'view')
    await primary.holdfast('snapshot', 'mount', 'read', at)
    const files = {
      native: path.join(primary.root, 'plain'),
      unchanged: path.join(at, 'a'),
      changed: path.join(at, 'b'),
    }
    const values = {}
    for (let round = 0; round < rounds; round += 1) {
      await run('sync', [])
      await writeFile('/proc/sys/vm/drop_caches', '1')
      for (const [name, file] of Object.entries(files)) {
        for (const heat of ['cold', 'warm']) {
          const begun = performance.now()
          await run('dd', [`if=${file}`, 'of=/dev/null', 'bs=1M'])
          const key = `${name} ${heat}`
          values[key] ??= []
          values[key].push((mib * 1000) / (performance.now() - begun))
        }
      }
    }
    await primary.holdfast('snapshot', 'unmount', 'read')
    const medians = Object.fromEntries(Object.entries(values).map(([k, v]) => [k, median(v)]))
    return {
      text: `${mib} MiB by dd`,
      unit: 'MiB/s',
      values: medians,
      against: 'native warm',
      ratio: medians['unchanged warm'] / medians['native warm'],
      goal: 0.9,
    }
  },
}

const sizeRow = {
  name: 'history-size',
  /** @param {any} context */
  async measure({ primary, fsbench }) {
    const values = {}
    for (const mode of ['snapshots', 'continuous']) {
      const tree = await mountNamed(primary, mode, undefined, ['--history', mode])
      await primary.run(fsbench, ['prefill', tree])
      await primary.holdfast('snapshot', 'create', mode, '--name', `size-${mode}`)
      const before = JSON.parse(await primary.holdfast('status', mode, '--json'))
      const out = await primary.run(fsbench, [
        'randwrite4k-wronly-existing',
        tree,
        '--seconds',
        '4',
      ])
      await sleep(1000)
      const after = JSON.parse(await primary.holdfast('status', mode, '--json'))
      const mib = (n) => n / 2 ** 20
      values[`${mode}: written`] = mib(JSON.parse(out).bytes)
      values[`${mode}: history`] = mib(after.history.bytes - before.history.bytes)
    }
    return { text: '4 KiB random writes; the history grows by 32 MiB', unit: 'MiB', values }
  },
}

const restoreRow = {
  name: 'history-restore',
  /** @param {any} context */
  async measure({ primary, quick }) {
    const count = quick ? 5_000 : 50_000
    const tree = await mountNamed(primary, 'restore', (dir) => fillSmall(dir, count))
    await primary.holdfast('snapshot', 'create', 'restore', '--name', 'whole')
    const values = {}
    const timed = async (name, work) => {
      const begun = performance.now()
      await work()
      values[name] = (performance.now() - begun) / 1000
    }
    const restore = () => primary.holdfast('restore', 'restore', '--to-snapshot', 'whole', '--yes')
    await run('sync', ['-f', primary.root])
    await run('sh', ['-c', 'echo changed >"$1/d1/f1"; rm "$1/d2/f2"', 'sh', tree])
    await timed('two files changed', restore)
    await run('sh', ['-c', 'rm -rf "$1"/d*', 'sh', tree])
    await timed('all removed', restore)
    const to = path.join(primary.root, 'output')
    defer('remove the output', () => rm(to, { recursive: true, force: true }))
    await timed('to another place', () =>
      primary.holdfast('restore', 'restore', '--to-snapshot', 'whole', '--output', to),
    )
    const copy = path.join(primary.root, 'copy')
    defer('remove the copy', () => rm(copy, { recursive: true, force: true }))
    await timed('cp -a', () => run('cp', ['-a', tree, copy]))
    return { text: `${count} small files`, unit: 's', values }
  },
}

export const historyRows = [...KINDS.map(costRow), openRow, readRow, sizeRow, restoreRow]
