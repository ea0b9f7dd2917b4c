/** The scheduler where the system gives it nothing: a run that cannot be started has failed, and no more. */
import { execFileSync } from 'node:child_process'
import { closeSync, mkdirSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import type { Volume } from '../../src/daemon/registry.js'
import { Scheduler } from '../../src/daemon/scheduler.js'
import { silentLogger } from '../../src/lib/log.js'
import { until } from '../harness/faults.js'

const root = mkdtempSync(join(tmpdir(), 'holdfast-scheduler-'))
t.teardown(() => rmSync(root, { recursive: true, force: true }))

function limitDescriptors(soft: number): void {
  execFileSync('prlimit', ['--pid', `${process.pid}`, `--nofile=${soft}:`])
}

/** Leaves this process one descriptor: a file can be read, no process started. */
function leaveOneDescriptor(): { release(): void } {
  const known = openSync('/dev/null', 'r')
  const taken = [known]
  // Those below the highest are taken; the limit is a number, not a count.
  for (let n = 0; n < 64; n += 1) taken.push(openSync('/dev/null', 'r'))
  limitDescriptors(Math.max(...taken) + 2)
  return {
    release: () => {
      for (const fd of taken) closeSync(fd)
      limitDescriptors(1024)
    },
  }
}

await t.test('scheduler: no descriptor for a run', async (t) => {
  const stateDirectory = join(root, 'state')
  mkdirSync(stateDirectory)
  const schedule = {
    ...{ name: 'auto', volumes: ['data'], everyMs: 1_000, cron: null, keep: {}, labels: {} },
    ...{ maxHoldMs: 500, hooks: false, since: Date.now() - 60_000 },
  }
  const file = JSON.stringify({ version: 1, schedules: [schedule] })
  writeFileSync(join(stateDirectory, 'schedules.json'), file)
  const volume = { stateDirectory } as unknown as Volume
  const scheduler = new Scheduler({ volume, log: silentLogger(), state: () => 'protected' })
  const { release } = leaveOneDescriptor()
  try {
    scheduler.start()
    await until(() => (scheduler.status[0]?.failures ?? 0) >= 2, 'it to be tried again')
    const [status] = scheduler.status
    t.match(status, { name: 'auto', succeeded: null, problem: /EMFILE/ })
  } finally {
    release()
    await scheduler.close()
  }
})
