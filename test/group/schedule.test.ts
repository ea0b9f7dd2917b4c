/**
 * Schedules of groups: what is due is taken once, also after a pause or a clock that was set back; what no rule
 * keeps goes on all hosts; what fails is told, and nothing goes while nothing comes.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { decide, type GroupScheduleResult } from '../../src/daemon/group-schedule-runs.js'
import type { GroupSchedule, KnownGroupSchedule } from '../../src/daemon/group-schedules.js'
import type { KnownGroupSnapshot } from '../../src/daemon/groups.js'
import type { ScheduleRun } from '../../src/daemon/schedules.js'
import type { Snapshot } from '../../src/daemon/snapshots.js'
import { endMembers, makeMembers } from '../harness/group.js'
import { type Host, makeSwitched } from '../harness/hosts.js'
import { makeImage } from '../harness/image.js'
import { openSandbox } from '../harness/sandbox.js'

const HOUR = 3_600_000
const T0 = Date.UTC(2026, 0, 5, 12, 10)

t.setTimeout(300_000)
const sandbox = await openSandbox(t)
const image = await makeImage(sandbox, { fs: 'xfs', mib: 1024 })
const hosts = await makeSwitched(sandbox, ['hub', 'one'])
const [hub, one] = hosts as [Host, Host]
const members = await makeMembers(sandbox, image, { hosts })
t.teardown(() => endMembers(members))
await hub.holdfast('group', 'create', 'shop', 'v0', 'one/v1')
const snapshot = ['group', 'snapshot']
const groupDirectory = join(hub.env.HOLDFAST_STATE_ROOT ?? '', '.host', 'groups', 'shop')

const names = async () =>
  (await hub.json<{ snapshots: KnownGroupSnapshot[] }>(...snapshot, 'list', 'shop')).snapshots.map(
    ({ name }) => name,
  )
const namesOn = async (host: Host) =>
  (await host.json<{ snapshots: Snapshot[] }>('snapshot', 'list')).snapshots.map(({ name }) => name)
const schedules = async () =>
  (await hub.json<{ schedules: KnownGroupSchedule[] }>(...snapshot, 'schedule', 'list')).schedules

/** Its time has come: as if it had been set, and had run, an hour earlier. */
function earlier(name: string, file: 'schedules.json' | 'schedules-state.json'): void {
  const path = join(groupDirectory, file)
  const stored = JSON.parse(readFileSync(path, 'utf8'))
  const known = file === 'schedules.json' ? stored.schedules : Object.values(stored.runs)
  for (const each of known) {
    if (each.name !== undefined && each.name !== name) continue
    each.since -= HOUR
    if (each.last !== undefined) each.last -= HOUR
  }
  writeFileSync(path, JSON.stringify(stored))
}

function comeDue(name: string): void {
  earlier(name, 'schedules.json')
  try {
    earlier(name, 'schedules-state.json')
  } catch {
    // It has not run yet.
  }
}

async function run(): Promise<{ code: number | string; runs: GroupScheduleResult[] }> {
  const { code, stdout } = await hub.tryHoldfast(...snapshot, 'run-schedules', '--json')
  return { code, ...(JSON.parse(stdout) as { runs: GroupScheduleResult[] }) }
}

await t.test('group schedule: what is due, by the clock and what was done', async (t) => {
  const hourly: GroupSchedule = {
    name: 'hourly',
    everyMs: HOUR,
    cron: null,
    keep: {},
    labels: {},
    maxHoldMs: 500,
    hooks: true,
    method: 'auto',
    since: T0,
  }
  let runs: Record<string, ScheduleRun> = {}
  const at = (now: number) => {
    const decision = decide([hourly], runs, now)
    // As if it had ended well.
    const whole = Object.entries(decision.runs).map(([name, run]) => [
      name,
      { ...run, running: false },
    ])
    runs = Object.fromEntries(whole)
    return decision.due.map(({ snapshot }) => snapshot)
  }
  t.same(at(T0 + HOUR / 2), [], 'nothing before the first whole hour after it was set')
  t.same(at(T0 + HOUR), ['hourly-2026-01-05T13-10-00Z'])
  t.same(at(T0 + HOUR + 60_000), [], 'once')
  t.same(at(T0 + 30 * HOUR), ['hourly-2026-01-06T18-10-00Z'], 'what was missed is made up for once')
  t.same(at(T0 + 30 * HOUR + 60_000), [])
  t.same(at(T0 + 2 * HOUR), [], 'a clock set back causes none')
  t.same(at(T0 + 3 * HOUR), ['hourly-2026-01-05T15-10-00Z'], 'and is counted from')
  t.equal(runs.hourly?.runs, 3)
  const died = decide([hourly], { hourly: { ...(runs.hourly as ScheduleRun), running: true } }, T0)
  t.match(died.runs.hourly, { running: false, failures: 1, error: { code: 'ABORTED' } })
  t.same(decide([], runs, T0).runs, {}, 'one that is removed is forgotten')
})

await t.test('group schedule: taken, and pruned, on all hosts', async (t) => {
  const set = [...snapshot, 'schedule', 'set', 'shop', '--every', '1h', '--keep-last', '2']
  t.match(await hub.holdfast(...set), /schedule shop of shop; keeps last 2/)
  t.equal(await hub.holdfast(...snapshot, 'run-schedules'), '', 'nothing is due')
  await hub.holdfast(...snapshot, 'create', 'shop', '--name', 'by-hand')
  const taken: string[] = []
  for (let n = 0; n < 3; n += 1) {
    comeDue('shop')
    const { code, runs } = await run()
    t.equal(code, 0)
    taken.push(runs[0]?.snapshot ?? '')
    t.same(runs[0]?.pruned, n < 2 ? [] : [taken[0]])
  }
  const left = ['by-hand', ...taken.slice(1)]
  t.same((await names()).sort(), left.toSorted())
  for (const host of hosts) t.same((await namesOn(host)).sort(), left.toSorted(), host.name)
  t.same((await run()).runs, [], 'and it is not due again')
  const [known] = await schedules()
  t.match(known, { group: 'shop', run: { runs: 3, failures: 0, snapshot: taken[2] } })
  t.match(await hub.holdfast(...snapshot, 'schedule', 'list'), /shop +shop +every 1 h/)
})

await t.test('group prune: by hand, on all hosts', async (t) => {
  const before = await names()
  const prune = (...flags: string[]) => hub.tryHoldfast(...snapshot, 'prune', 'shop', ...flags)
  t.match(await prune(), { code: 2, stderr: /nothing says what is to be kept/ })
  t.match(await prune('--keep-last', '2', '--dry-run'), {
    code: 0,
    stdout: new RegExp(`would go +${before[0]}`),
  })
  t.same(await names(), before, 'nothing went')
  const mine = await prune('--keep-last', '1', '--label', 'made=by-nobody', '--json')
  t.same(JSON.parse(mine.stdout), { snapshots: [] })
  await hub.holdfast(...snapshot, 'create', 'shop', '--name', 'one-more')
  t.match(await prune('--keep-last', '3'), { code: 0, stdout: /gone +by-hand/ })
  const left = [...before.filter((name) => name !== 'by-hand'), 'one-more']
  t.same((await names()).sort(), left.toSorted())
  for (const host of hosts) t.same((await namesOn(host)).sort(), left.toSorted(), host.name)
  await hub.holdfast(...snapshot, 'destroy', 'shop', 'one-more')
  await hub.holdfast(...snapshot, 'create', 'shop', '--name', 'by-hand')
})

await t.test('group schedule: what fails, and what is lost', async (t) => {
  const before = await names()
  await one.stopServing()
  comeDue('shop')
  const failed = await run()
  t.equal(failed.code, 1)
  t.match(failed.runs, [{ snapshot: null, pruned: [], error: { message: /one: cannot connect/ } }])
  const [known] = await schedules()
  t.match(known, { run: { running: false, failures: 1, error: { code: 'CONNECTION' } } })
  await one.startAgain()
  t.same(await names(), before, 'nothing goes while nothing comes')
  const older = before.find((name) => name !== 'by-hand') ?? ''
  await one.holdfast('snapshot', 'destroy', older)
  comeDue('shop')
  const { runs } = await run()
  t.same(
    runs[0]?.pruned,
    [older],
    'a broken one goes in its turn, and takes no place of a whole one',
  )
  t.equal((await names()).length, 3)
  for (const host of hosts) t.notOk((await namesOn(host)).includes(older))
  t.match(await hub.tryHoldfast(...snapshot, 'schedule', 'remove', 'none'), { code: 3 })
  await hub.holdfast(...snapshot, 'schedule', 'remove', 'shop')
  t.same(await schedules(), [])
  const wrong = await hub.tryHoldfast(...snapshot, 'schedule', 'set', 'shop', '--keep-last', '1')
  t.match(wrong, { code: 2, stderr: /either --every or --cron/ })
})
