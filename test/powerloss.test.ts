/**
 * Power loss under load, with volume and journal on one file system and on two: after it the volume
 * says truthfully that it re-captures, every fsynced operation is in the tree, the journal verifies,
 * and its replay onto a copy of the base equals the tree.
 *
 * HOLDFAST_LOSSES and HOLDFAST_SEED make it longer, or repeat it.
 */
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { mount, open } from '../src/index.js'
import {
  Chance,
  changeBase,
  checkLoad,
  chooseSeed,
  daemonPid,
  fillBase,
  kill,
  Load,
  setting,
  until,
} from './harness/faults.js'
import { FILE_SYSTEMS, type FileSystem, type Image, makeImage } from './harness/image.js'
import { loseRing, mountAgain, shutDown } from './harness/power.js'
import { run } from './harness/run.js'
import { openSandbox } from './harness/sandbox.js'
import { compareTrees } from './harness/volume.js'

/** Of all four arrangements together. */
const LOSSES_CI = 12
const RING_BYTES = 64 << 20

const losses = setting('HOLDFAST_LOSSES', LOSSES_CI)
const seed = chooseSeed()

t.setTimeout(240_000 + losses * 30_000)
t.comment(`seed ${seed}, ${losses} losses: HOLDFAST_SEED=${seed} HOLDFAST_LOSSES=${losses}`)
const sandbox = await openSandbox(t)

/** Where a volume and its journal are, and what is kept elsewhere to judge them by. */
interface Site {
  name: string
  fs: FileSystem
  data: Image
  journal: Image
  /** Never loses power. */
  safe: Image
  images: Image[]
  dir: string
}

const sites: Site[] = []
for (const fs of FILE_SYSTEMS) {
  const make = (name: string) => makeImage(sandbox, { fs, mib: 2048, name: `${fs}-${name}` })
  const [data, journal, safe] = await Promise.all([make('data'), make('journal'), make('safe')])
  for (const two of [false, true]) {
    const name = `${fs}-${two ? 'two' : 'one'}`
    const images = two ? [data, journal] : [data]
    const dir = join(data.dir, name)
    sites.push({ name, fs, data, journal: two ? journal : data, safe, images, dir })
  }
}

for (const site of sites) {
  const { name, dir } = site
  await t.test(
    `power loss: ${site.fs}, journal on ${site.images.length} file system(s)`,
    async (t) => {
      const chance = new Chance(seed)
      mkdirSync(dir)
      await fillBase(dir)
      await run('cp', [
        '-a',
        '--reflink=never',
        '--sparse=always',
        dir,
        join(site.safe.dir, `${name}.base`),
      ])
      await run('sync', ['-f', dir])
      await mount({
        dir,
        name,
        stateDirectory: join(site.journal.dir, `${name}.state`),
        options: { ringDirectory: sandbox.rings, ringBytes: RING_BYTES },
      })
      await changeBase(dir)
      const rounds = Math.ceil(losses / sites.length)
      for (let round = 1; round <= rounds; round += 1) {
        const wrong = await oneLoss(site, chance, round)
        if (wrong !== '') return void t.fail(`loss ${round} of ${rounds}: ${wrong}`)
      }
      t.pass(`${rounds} losses`)
      await open(name).unmount()
      t.equal(await replayAndCompare(site), '', 'replay equals the tree after an orderly end')
    },
  )
}

/** Load, power loss, recovery, judgement. Returns what is wrong. */
async function oneLoss(site: Site, chance: Chance, round: number): Promise<string> {
  const { dir, name } = site
  const load = {
    dir: join(dir, `round-${round}`),
    ack: join(sandbox.root, `${name}-${round}.ack`),
    seed: seed + round,
    threads: chance.between(2, 5),
    fsyncRate: chance.pick([0.02, 0.1, 0.3]),
  }
  mkdirSync(load.dir)
  const running = await Load.begin(load)
  rmSync(join(dir, `round-${round - 2}`), { recursive: true, force: true })
  await sleep(chance.between(100, 1500))
  await losePower(site, chance)
  await running.end()
  // The power may fail again while the last failure is being recovered from.
  for (let again = chance.pick([0, 0, 1, 2]); again > 0; again -= 1) {
    await restart(site)
    await sleep(chance.between(0, 300))
    await losePower(site, chance)
  }
  if (chance.next() < 0.5) {
    const { problems } = await open(site.name).verify()
    if (problems.length > 0) return `journal before the start: ${JSON.stringify(problems)}`
  }
  const said = await restart(site)
  if (said !== '') return said
  const mode = site.fs === 'xfs' ? '--racy-shutdown' : '--durable-only'
  const lost = await checkLoad(load, mode)
  rmSync(load.ack)
  return lost === '' ? replayAndCompare(site) : `lost: ${lost}`
}

/** The daemon may be dead before, or see the disk die below it. */
async function losePower({ name, images }: Site, chance: Chance): Promise<void> {
  const volume = open(name)
  const order = chance.next() < 0.5 ? images : [...images].reverse()
  if (chance.next() < 0.3) await kill(daemonPid(name))
  await shutDown(order)
  await sleep(chance.pick([0, 0, 50]))
  await kill(daemonPid(name)).catch(() => {})
  await run('umount', ['-l', volume.config.mountpoint])
  loseRing(sandbox, volume.config.uuid)
  await mountAgain(images)
}

/** Starts the volume; says what is not true of its status until it is whole again. */
async function restart({ name }: Site): Promise<string> {
  const volume = await mount({ dir: name })
  if (volume.start?.recapture?.includes('ring was lost') !== true) {
    return `started without re-capture: ${JSON.stringify(volume.start)}`
  }
  const lies: string[] = []
  await until(async () => {
    const { state, recapture, reason } = await volume.status()
    if (recapture.needed !== (state === 'recapturing')) lies.push(`${state} while ${reason}`)
    if (recapture.errors > 0) lies.push(`re-capture errors: ${recapture.errors}`)
    return !recapture.needed || lies.length > 0
  }, 'the re-capture to end')
  return lies.join('; ')
}

/** Verifies the journal, replays all of it onto a fresh copy of the base, compares. */
async function replayAndCompare({ name, dir, safe }: Site): Promise<string> {
  const volume = open(name)
  await volume.flush().catch(() => {})
  const report = await volume.verify()
  if (report.problemCount > 0) return `journal: ${JSON.stringify(report.problems)}`
  const target = join(safe.dir, `${name}.replay`)
  await run('cp', [
    '-a',
    '--reflink=never',
    '--sparse=always',
    join(safe.dir, `${name}.base`),
    target,
  ])
  await volume.replay({ onto: target })
  // Not the holes: what was allocated and not written when the power failed is zeros to a scan that has
  // it in the cache, and a hole to one that has not (docs/SEMANTICS.md).
  const differences = await compareTrees(dir, target)
  rmSync(target, { recursive: true })
  return differences
}
