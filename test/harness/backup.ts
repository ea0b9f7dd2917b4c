/**
 * One backup program, by its recipe, on a volume at which writers are at work: what it restores is what
 * the view showed; the second backup reads little; without a snapshot, what it stores is torn.
 */
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import { mountSnapshot, unmountSnapshot } from '../../src/daemon/snapshot-views.js'
import { destroySnapshot, listSnapshots } from '../../src/index.js'
import { setting } from './faults.js'
import { makeImage } from './image.js'
import { broken, Ledgers } from './ledgers.js'
import { Machine } from './recipes.js'
import { bash } from './run.js'
import { openSandbox } from './sandbox.js'
import { makeTree } from './tree.js'
import { compareTrees, mountVolume, unmountVolume } from './volume.js'

/** Backups of the live tree until one is seen to be torn. */
const TRIES_MAX = setting('HOLDFAST_TRIES', 20)
const EXEC = /holdfast exec --snapshot data -- /
/** Files of the tree that nobody touches: what a second backup must not read. */
export const STILL_FILES = 300

export interface Program {
  /** Page of docs/backup. */
  page: string
  /** Where the tree is after "Restore"; `source` is where it was read. */
  restored: (source: string) => string
  /** What is wrong with the second backup, by what it said; empty: it was incremental. */
  incremental: (said: string) => string
  /** Run in the tree before it is protected: takes away what the program does not keep. */
  prepare?: string
  /** Forgets what was restored, and what would make the next backup incremental. */
  forget?: string[]
}

const placesOf = (tree: string) => ({ left: join(tree, 'left'), right: join(tree, 'right') })

export async function backupTests(t: Test, program: Program): Promise<void> {
  const { page, restored, incremental, prepare = '', forget = [] } = program
  t.setTimeout(900_000)
  const sandbox = await openSandbox(t)
  const image = await makeImage(sandbox, { fs: 'xfs', mib: 4096 })
  const fill = async (dir: string) => {
    await makeTree(dir)
    await bash(`rm socket; mkdir left right; ${prepare}`, { cwd: dir })
  }
  const data = await mountVolume(sandbox, image, { name: 'data', fill })
  const machine = new Machine(sandbox, data.dir)
  const ledgers = new Ledgers(join(sandbox.root, 'ack'))
  await ledgers.start(placesOf(data.dir))
  const script = (heading: string) => machine.script(page, heading)
  const restore = async (source: string) => {
    const target = machine.path('/restore')
    rmSync(target, { recursive: true, force: true })
    mkdirSync(target)
    await machine.run(script('Restore').replaceAll('/run/holdfast/exec/data', source), { page })
    return machine.path(restored(source))
  }
  const once = page === 'restic' || page === 'borg'
  if (once) await machine.run(script('Once'), { page })

  await t.test(`${page}: what is restored is what the snapshot showed`, async (t) => {
    for (const name of ['first', 'second']) {
      const acknowledged = ledgers.acknowledged()
      const said = await machine.run(script('Every time'), { page, keep: name })
      if (name === 'second') t.equal(incremental(said), '', 'the second one is incremental')
      const [view] = await mountSnapshot(name, { path: join(sandbox.root, name) })
      const tree = await restore('/run/holdfast/exec/data')
      t.equal(await compareTrees(tree, view?.path ?? ''), '', `${name}: equal`)
      t.same(broken(placesOf(tree), acknowledged), [], `${name}: no invariant is broken`)
    }
    const still = ['first', 'second'].map((name) => join(sandbox.root, name, 'many'))
    const [before = '', after = ''] = still
    const fields = ['--with', 'ino,ctime']
    t.equal(await compareTrees(before, after, ...fields), '', 'inodes and ctimes are the same')
    for (const { name } of listSnapshots()) {
      await unmountSnapshot(name, true)
      await destroySnapshot(name)
    }
  })

  await t.test(`${page}: without a snapshot it is torn`, async (t) => {
    const live = script('Every time').replace(EXEC, '').replaceAll('{}', '/srv/data')
    let torn: string[] = []
    let tries = 0
    for (; torn.length === 0 && tries < TRIES_MAX; tries += 1) {
      for (const path of forget) await bash(`rm -rf -- ${machine.path(path)}`)
      // tar and rsync say by their exit code that something changed while they read.
      await machine.attempt(live, { page })
      torn = broken(placesOf(await restore('/srv/data')))
    }
    t.ok(torn.length > 0, `${torn.length} wrong in try ${tries}: ${torn[0]}`)
  })
  await ledgers.stop()
  await unmountVolume(data)
}
