/**
 * Schedules: when they are due, whatever the clock does; then a daemon that runs them, through
 * failures, restarts and its own end, and what is left of their snapshots.
 */
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { ControlClient } from '../../src/daemon/client.js'
import { useSnapshot } from '../../src/daemon/in-use.js'
import { pruneSnapshots } from '../../src/daemon/prune-snapshots.js'
import { removeSchedule, setSchedule } from '../../src/daemon/schedules.js'
import { createSnapshot, findSnapshot, listSnapshots, mount } from '../../src/index.js'
import { isDue, nextTime, snapshotName } from '../../src/snapshot/schedule.js'
import { until, untilProtected } from '../harness/faults.js'
import { HOLDFAST } from '../harness/files.js'
import { makeImage } from '../harness/image.js'
import { attempt } from '../harness/run.js'
import { openSandbox } from '../harness/sandbox.js'
import { mountVolume } from '../harness/volume.js'

/** Each run is a process of its own: on a busy machine they take their time. */
const RUNS_MS_MAX = 150_000
const MINUTE = 60_000
const HOUR = 60 * MINUTE

t.setTimeout(400_000)
const sandbox = await openSandbox(t)
const hooks = join(sandbox.root, 'hooks.d')
mkdirSync(hooks)
process.env.HOLDFAST_HOOKS_DIR = hooks
const image = await makeImage(sandbox, { fs: 'xfs' })
const left = await mountVolume(sandbox, image, { name: 'left' })
const right = await mountVolume(sandbox, image, { name: 'right' })
const cli = (...args: string[]) => attempt(process.execPath, [HOLDFAST, 'snapshot', ...args])

const ofSchedule = (name: string) =>
  listSnapshots().filter(({ labels }) => labels.schedule === name)

async function statusOf(name: string) {
  const { schedules } = await left.volume.status()
  return schedules.find((each) => each.name === name)
}

/** The one hook there is. */
function hook(script: string): void {
  const path = join(hooks, '10-hook')
  writeFileSync(path, `#!/bin/sh\n${script}\n`)
  chmodSync(path, 0o755)
}

/** The schedule has run so often. */
async function untilRuns(name: string, runs: number): Promise<void> {
  const ran = async () => {
    const status = await statusOf(name)
    return status !== undefined && status.runs >= runs && !status.running
  }
  await until(ran, `${runs} runs of ${name}`, RUNS_MS_MAX)
}

await t.test('schedule: when it is due', async (t) => {
  const now = Date.parse('2026-11-22T10:07:30Z')
  const every = { everyMs: 15 * MINUTE, cron: null }
  const at = (time: string) => Date.parse(`2026-11-22T${time}Z`)
  const due = (last: number, clock = now) => isDue(every, { last, now: clock })
  t.strictSame(due(at('10:00:01')), { due: false, next: at('10:15:00'), last: at('10:00:01') })
  t.match(due(at('10:00:01'), at('10:15:00')), { due: true, next: at('10:15:00') })
  t.match(due(at('10:15:00'), at('10:15:00')), { due: false, next: at('10:30:00') }, 'once')
  t.equal(due(now - 400 * 24 * HOUR).due, true, 'missed for a year: now')
  t.match(due(now), { due: false, next: at('10:15:00') }, 'and only once')
  const back = due(now + 30 * 24 * HOUR)
  t.match(back, { due: false, last: now, next: at('10:15:00') }, 'the clock was set back')
  t.equal(due(now + 3_000).last, now + 3_000, 'a little is nothing')
  const daily = { everyMs: null, cron: '0 3 * * *' }
  const noon = new Date(2026, 10, 22, 12).getTime()
  t.equal(nextTime(daily, noon), new Date(2026, 10, 23, 3).getTime(), 'in local time')
  t.equal(nextTime({ everyMs: null, cron: '0 0 30 2 *' }, now), null, 'never')
  t.throws(() => nextTime({ everyMs: null, cron: '61 * * * *' }, now), { code: 'USAGE' })
  t.equal(snapshotName({ name: 'auto' }, at('10:15:00')), 'auto-2026-11-22T10-15-00Z')
})

await t.test('schedule: a daemon runs it, and keeps what it is to keep', async (t) => {
  await createSnapshot({ volumes: ['left'], name: 'by-hand' })
  await createSnapshot({ volumes: ['left'], name: 'of-another', labels: { schedule: 'other' } })
  const args = ['--every', '1s', '--keep-last', '2', '--label', 'why=test']
  const set = await cli('schedule', 'set', 'left,right', ...args)
  t.match(set.stdout, /^schedule auto of left, right; keeps last 2\n/, set.stderr)
  await untilRuns('auto', 3)
  const listed = await cli('schedule', 'list', 'right')
  t.match(listed.stdout, /auto +left,right +every 1\.0 s +last 2 +20.*Z +auto-20.*Z/)
  removeSchedule('auto')
  await until(async () => (await statusOf('auto')) === undefined, 'its end')
  const taken = ofSchedule('auto')
  t.equal(taken.length, 2)
  for (const { name, labels, members, state } of taken) {
    t.match(name, /^auto-20\d\d-\d\d-\d\dT\d\d-\d\d-\d\dZ$/)
    t.strictSame(labels, { why: 'test', schedule: 'auto' })
    t.equal(members.length, 2)
    t.equal(state, 'complete')
  }
  t.ok(findSnapshot('by-hand') && findSnapshot('of-another'), 'others stay')
  t.match(await cli('schedule', 'remove', 'auto'), { code: 3, stderr: /no schedule auto/ })
  t.match(await cli('schedule', 'set', 'left'), { code: 2, stderr: /either --every or --cron/ })
  t.match(await cli('schedule', 'set', 'left', '--cron', 'never'), { code: 2, stderr: /no cron/ })
})

await t.test('schedule: one that somebody has spoiled ends no daemon', async (t) => {
  setSchedule({ volumes: ['left'], name: 'spoiled', cron: '0 3 * * *', keep: {} })
  const path = join(left.volume.stateDirectory, 'schedules.json')
  const good = readFileSync(path, 'utf8')
  const log = () => readFileSync(join(left.volume.stateDirectory, 'daemon.log'), 'utf8')
  for (const [spoiled, why] of [
    [good.replace('0 3 * * *', '0 33 * * *'), 'no cron expression'],
    [good.replace('"0 3 * * *"', 'null'), 'either everyMs or cron says when'],
  ] as const) {
    writeFileSync(path, spoiled)
    await until(() => log().includes(why), 'the daemon to notice')
    t.match(await cli('schedule', 'list'), {
      code: 4,
      stderr: new RegExp(`schedules.*${why}`, 's'),
    })
    t.equal((await left.volume.status()).state, 'protected')
    await left.volume.unmount()
    left.volume = await mount({ dir: 'left' })
    await untilProtected(left)
    t.match(log(), new RegExp(`schedules do not run.*${why}|${why}.*schedules do not run`))
  }
  writeFileSync(path, good)
  removeSchedule('spoiled')
})

await t.test('schedule: missed while nothing ran, once; a clock that went back', async (t) => {
  setSchedule({ volumes: ['left'], name: 'hourly', everyMs: HOUR, keep: {} })
  setSchedule({ volumes: ['left'], name: 'ahead', everyMs: HOUR, keep: {} })
  await left.volume.unmount()
  const path = join(left.volume.stateDirectory, 'schedules-state.json')
  const since = Date.now() - 100 * HOUR
  const never = { snapshot: null, succeeded: null, error: null, running: false }
  const run = { ...never, since, runs: 0, failures: 0 }
  const runs = {
    hourly: { ...run, last: Date.now() - 50 * HOUR },
    ahead: { ...run, last: Date.now() + 1000 * HOUR },
  }
  writeFileSync(path, JSON.stringify({ version: 1, runs }))
  const schedules = join(left.volume.stateDirectory, 'schedules.json')
  const text = readFileSync(schedules, 'utf8').replaceAll(/"since": \d+/g, `"since": ${since}`)
  writeFileSync(schedules, text)
  left.volume = await mount({ dir: 'left' })
  await untilRuns('hourly', 1)
  t.equal(ofSchedule('hourly').length, 1, 'made up for, once')
  for (const name of ['hourly', 'ahead']) {
    const next = Date.parse((await statusOf(name))?.next ?? '')
    t.ok(next > Date.now() && next <= Date.now() + HOUR, `${name} goes on at the next hour`)
  }
  t.equal(ofSchedule('ahead').length, 0)
  const log = readFileSync(join(left.volume.stateDirectory, 'daemon.log'), 'utf8')
  t.match(log, /"schedule":"ahead".*the clock was set back/)
  removeSchedule('hourly')
  removeSchedule('ahead')
})

await t.test('schedule: a run that fails is told aloud', async (t) => {
  hook('[ "$1" != pre-snapshot ] || { echo why >&2; exit 3; }')
  setSchedule({ volumes: ['left', 'right'], name: 'loud', everyMs: 1_000, keep: { last: 1 } })
  await untilRuns('loud', 2)
  const status = await statusOf('loud')
  t.match(status, { snapshot: null, problem: /hook 10-hook failed in pre-snapshot: .* 3: why/ })
  t.ok((status?.failures ?? 0) >= 2)
  const metrics = await new ControlClient('left').metrics()
  t.match(metrics, /holdfast_schedule_problem\{schedule="loud",volume="left"\} 1\n/)
  t.match(metrics, /holdfast_schedule_failures_total\{[^}]*\} [2-9]/)
  const log = readFileSync(join(left.volume.stateDirectory, 'daemon.log'), 'utf8')
  t.match(log, /"level":"error".*"schedule":"loud".*a scheduled snapshot has failed/)
  const shown = await attempt(process.execPath, [HOLDFAST, 'status', 'left'])
  t.match(shown.stdout, /schedule +loud of left, right, .*hook 10-hook failed/)
  hook('')
  const succeeds = async () => (await statusOf('loud'))?.problem === null
  await until(succeeds, 'a run that succeeds', RUNS_MS_MAX)
  await right.volume.unmount()
  const gone = async () => /right is not mounted/.test((await statusOf('loud'))?.problem ?? '')
  await until(gone, 'a volume that is gone to be told', RUNS_MS_MAX)
  t.equal(ofSchedule('loud').length, 1, 'nothing goes while nothing comes')
  removeSchedule('loud')
})

await t.test('schedule: the daemon ends in the middle of a run', async (t) => {
  const told = join(sandbox.root, 'told')
  writeFileSync(told, '')
  hook(`echo "$1" >>${told}; [ "$1" != pre-snapshot ] || exec sleep 600`)
  setSchedule({ volumes: ['left'], name: 'cut-off', everyMs: 1_000, keep: {} })
  // A run of the schedule before may still be failing.
  await until(() => readFileSync(told, 'utf8').includes('pre-'), 'the hook', RUNS_MS_MAX)
  await left.volume.unmount()
  t.match(readFileSync(told, 'utf8'), /pre-snapshot\npost-snapshot\nfailure\n/, 'it is undone')
  hook('')
  removeSchedule('cut-off')
  left.volume = await mount({ dir: 'left' })
})

await t.test('snapshot: pruned by a policy', async (t) => {
  for (const { name } of listSnapshots()) await cli('destroy', name)
  for (const name of ['a', 'b', 'c', 'd']) await createSnapshot({ volumes: ['left'], name })
  t.match(await cli('prune', 'left'), { code: 2, stderr: /nothing says what is to be kept/ })
  const dry = await cli('prune', 'left', '--keep-last', '1', '--dry-run')
  t.match(dry.stdout, /keep +d .* last\nwould go +c .*\nwould go +b .*\nwould go +a /)
  const used = await useSnapshot(findSnapshot('a').id)
  const results = await pruneSnapshots({ policy: { last: 1 }, volume: 'left' })
  t.match(results.at(-1), { name: 'a', keep: true, reasons: [/^in use: /] })
  used.close()
  const names = () => listSnapshots().map(({ name }) => name)
  t.strictSame(names(), ['a', 'd'])
  hook('[ "$1" != pre-destroy ]')
  const kept = await cli('prune', '--keep-last', '1')
  t.match(kept, { code: 1, stdout: /failed +a .*hook 10-hook failed in pre-destroy/ })
  t.strictSame(names(), ['a', 'd'])
  t.match(await cli('prune', '--keep-last', '1', '--no-hooks'), { code: 0, stdout: /gone +a / })
  t.strictSame(names(), ['d'])
  await left.volume.unmount()
})
