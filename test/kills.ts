/**
 * SIGKILL of the daemon at random instants under concurrent load: applications get errors, never
 * the unprotected tree; mounting again recovers in place; every acknowledged operation is in the
 * tree, the journal verifies, and its replay equals the tree.
 *
 * HOLDFAST_KILLS and HOLDFAST_SEED make it longer, or repeat it.
 */
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { runningDaemon } from '../src/daemon/lock.js'
import { mount } from '../src/index.js'
import {
  Chance,
  catchUpAndCompare,
  changeBase,
  checkLoad,
  chooseSeed,
  daemonPid,
  errnoOfPath,
  fillBase,
  forgetReplayed,
  kill,
  Load,
  setting,
} from './harness/faults.js'
import { type FileSystem, type Image, makeImage } from './harness/image.js'
import { attempt } from './harness/run.js'
import { openSandbox } from './harness/sandbox.js'
import { mountVolume, replayAndCompare, type TestVolume } from './harness/volume.js'

/** On each file system. */
const KILLS_CI = 55
/** Rounds after which the journal is verified, replayed and compared. */
const ROUNDS_PER_COMPARISON = 10

const kills = setting('HOLDFAST_KILLS', KILLS_CI)
const seed = chooseSeed()
const sandbox = await openSandbox(t)

/** The test of one file system, in a file of its own: they take their time side by side. */
export async function testKills(fs: FileSystem): Promise<void> {
  t.setTimeout(120_000 + kills * 20_000)
  t.comment(`seed ${seed}, ${kills} kills: HOLDFAST_SEED=${seed} HOLDFAST_KILLS=${kills}`)
  const image = await makeImage(sandbox, { fs, mib: 8192 })
  await t.test(`kill: ${fs}, under load at random instants`, async (t) => {
    const chance = new Chance(seed)
    const test = await newVolume(image, 'load')
    await changeBase(test.dir)
    const seen = { recovered: 0, intents: 0, pending: 0 }
    for (let round = 1; round <= kills; round += 1) {
      const failed = await oneRound({ test, chance, round, seen })
      if (failed !== '') return void t.fail(`round ${round} of ${kills}: ${failed}`)
      if (round % ROUNDS_PER_COMPARISON === 0 || round === kills) {
        const differs = await catchUpAndCompare(test)
        if (differs !== '') return void t.fail(`replay differs after round ${round}: ${differs}`)
        await forgetReplayed(test)
      }
    }
    t.comment(JSON.stringify(seen))
    t.ok(seen.pending > 0, 'records were recovered from the ring')
    // One in three kills or so; a short run may see none.
    if (kills >= 40) {
      t.ok(seen.intents > 0, 'operations were interrupted between intent and record')
    }
    const differs = await replayAndCompare(test, '--holes')
    t.equal(differs, '', `after ${kills} kills replay equals the tree`)
  })
}

interface Round {
  test: TestVolume
  chance: Chance
  round: number
  seen: { recovered: number; intents: number; pending: number }
}

/** Load, kill, mount again, check. Returns what is wrong. */
async function oneRound({ test, chance, round, seen }: Round): Promise<string> {
  const { dir, volume } = test
  const options = {
    dir: join(dir, `round-${round}`),
    ack: join(sandbox.root, `${volume.name}-${round}.ack`),
    seed: seed + round,
    threads: chance.between(2, 6),
    fsyncRate: chance.pick([0, 0.01, 0.05]),
  }
  mkdirSync(options.dir)
  const load = await Load.begin(options)
  // The last round's tree goes while this one's grows: names vanish under load as well.
  const removal = attempt('rm', ['-rf', join(dir, `round-${round - 1}`)])
  await sleep(chance.between(30, 900))
  const pid = daemonPid(volume.name)
  await kill(pid)
  const errno = errnoOfPath(join(dir, `round-${round}`))
  if (errno === undefined) return 'the tree was reachable without its daemon'
  await load.end()
  await removal
  // Some deaths come again while the last one is being recovered from.
  if (chance.next() < 0.2) await interruptedStart(volume.name, chance.between(100, 700))
  const { start } = await mount({ dir: volume.name })
  seen.recovered += start?.ring === 'recovered' ? 1 : 0
  seen.intents += start?.intents ?? 0
  seen.pending += start?.pendingRecords ?? 0
  const wrong = await checkLoad(options)
  rmSync(options.ack)
  return wrong
}

async function newVolume(image: Image, name: string): Promise<TestVolume> {
  return mountVolume(sandbox, image, { name: `${image.fs}-${name}`, fill: fillBase })
}

/** Starts a volume and kills its daemon in the middle of that. */
async function interruptedStart(name: string, afterMs: number): Promise<void> {
  const started = mount({ dir: name }).catch(() => {})
  const begun = Date.now()
  while (Date.now() - begun < afterMs) await sleep(5)
  for (const ended of [Promise.resolve(), started]) {
    await ended
    const pid = runningDaemon(name)?.pid
    if (pid !== undefined) await kill(pid)
  }
}
