/**
 * The mount behaves like a directory, and the journal tells all of it: one random sequence of
 * operations runs through the mount and on a plain directory with equal results (fsdiff), and the
 * replay of the journal onto a copy of the base gives the same tree, also when it is killed.
 *
 * HOLDFAST_OPS and HOLDFAST_SEED make it longer, or repeat it.
 */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { Chance, changeBase, chooseSeed, fillBase, setting } from './harness/faults.js'
import { HOLDFAST, tool } from './harness/files.js'
import { FILE_SYSTEMS, makeImage } from './harness/image.js'
import { attempt, start } from './harness/run.js'
import { openSandbox } from './harness/sandbox.js'
import { compareTrees, mountVolume, type TestVolume, unmountVolume } from './harness/volume.js'

/** Of all four runs together. */
const OPS_CI = 56_000
const REPLAY_KILLS = 6
const TRANSPORTS = ['auto', 'device'] as const

const ops = setting('HOLDFAST_OPS', OPS_CI)
const seed = chooseSeed()

t.setTimeout(120_000 + (ops / 100) * 1000)
t.comment(`seed ${seed}, ${ops} operations: HOLDFAST_SEED=${seed} HOLDFAST_OPS=${ops}`)
const sandbox = await openSandbox(t)
const images = await Promise.all(FILE_SYSTEMS.map((fs) => makeImage(sandbox, { fs, mib: 4096 })))

for (const image of images) {
  const { fs } = image
  for (const transport of TRANSPORTS) {
    await t.test(`differential: ${fs} over transport ${transport}`, async (t) => {
      const name = `${fs}-${transport}`
      const test = await mountVolume(sandbox, image, {
        name,
        fill: fillBase,
        options: { transport },
      })
      await changeBase(test.dir)
      const right = join(image.dir, `${name}.right`)
      mkdirSync(right)
      const share = Math.ceil(ops / (FILE_SYSTEMS.length * TRANSPORTS.length))
      const { code, stdout, stderr } = await attempt(
        tool('fsdiff'),
        ['--left', join(test.dir, 't'), '--right', right, '--users'].concat([
          '--ops',
          `${share}`,
          '--seed',
          `${seed}`,
          '--check-every',
          `${Math.ceil(share / 2)}`,
        ]),
        { timeoutMs: 100_000 + share * 20 },
      )
      const rate = /\S+ operations\/s/.exec(stdout)?.[0] ?? ''
      if (code !== 0) t.comment(`${stdout}\n${stderr}`)
      t.equal(code, 0, `same results and errnos on both sides, ${share} operations, ${rate}`)
      await unmountVolume(test)
      const report = await test.volume.verify()
      t.strictSame(report.problems, [], `journal of ${report.records} records verifies`)
      await replayWithKills(t, test)
      t.equal(await compareTrees(test.dir, test.base, '--holes'), '', 'replay equals the tree')
    })
  }
}

/** Kills the replaying process again and again before it is left to end. */
async function replayWithKills(t: Tap, test: TestVolume): Promise<void> {
  const chance = new Chance(seed)
  const args = [HOLDFAST, 'journal', 'replay', test.volume.name, '--onto', test.base]
  let killed = 0
  for (let i = 0; i < REPLAY_KILLS; i += 1) {
    // Killed when it has just ended, it could not be told from one that was not begun without its state.
    const child = start(process.execPath, [...args, '--keep-state'])
    const closed = new Promise((resolve) => child.once('close', resolve))
    await sleep(chance.between(150, 700))
    child.kill('SIGKILL')
    await closed
    if (child.signalCode === 'SIGKILL') killed += 1
    else break
  }
  const { code, stdout, stderr } = await attempt(process.execPath, args)
  t.equal(code, 0, `replay after ${killed} kills: ${stdout}${stderr}`)
}
type Tap = Pick<typeof t, 'equal'>
