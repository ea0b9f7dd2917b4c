/**
 * `holdfast exec`: what the command gets and gives passes through unchanged, and nothing is left
 * however it ends: no view, no snapshot, no process.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { destroySnapshot, listSnapshots, mount } from '../../src/index.js'
import { readMounts } from '../../src/lib/mountinfo.js'
import { alive, daemonPid, kill, until } from '../harness/faults.js'
import { HOLDFAST } from '../harness/files.js'
import { makeImage } from '../harness/image.js'
import { attempt, type RunOptions, start } from '../harness/run.js'
import { openSandbox } from '../harness/sandbox.js'
import { mountVolume, type TestVolume, unmountVolume } from '../harness/volume.js'

t.setTimeout(600_000)
const sandbox = await openSandbox(t)
const image = await makeImage(sandbox, { fs: 'xfs', mib: 4096 })
const fill = (dir: string) => writeFileSync(join(dir, 'file'), 'before\n')
const data = await mountVolume(sandbox, image, { name: 'data', fill })
const mail = await mountVolume(sandbox, image, { name: 'mail-1', fill })
const runDirectory = process.env.HOLDFAST_RUN_DIR ?? ''
const place = join(runDirectory, 'exec', 'data')

/** Longest time until what a killed exec has left is gone. */
const CLEAN_MS = 15_000

const exec = (args: string[], options?: RunOptions) =>
  attempt(process.execPath, [HOLDFAST, 'exec', '--snapshot', ...args], options)

interface Running {
  child: ChildProcess
  ended: Promise<{ code: number; stderr: string }>
}

/** An exec whose command has said something; it goes on. */
async function running(script: string, ...volumes: string[]): Promise<Running> {
  const names = volumes.length === 0 ? 'data' : volumes.join(',')
  const args = ['exec', '--snapshot', names, '--', 'bash', '-c', script, 'bash', '{}']
  const child = start(process.execPath, [HOLDFAST, ...args])
  const ended = endOf(child)
  await Promise.race([once(child.stdout ?? child, 'data'), ended])
  if (child.exitCode !== null) throw new Error(`exec ended: ${(await ended).stderr}`)
  child.stdout?.resume()
  return { child, ended }
}

async function endOf(child: ChildProcess): Promise<{ code: number; stderr: string }> {
  let stderr = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr += text
  })
  const [code] = await once(child, 'close')
  return { code, stderr }
}

/** Of this test; others may run. */
const views = () =>
  readMounts().filter(({ source, mountpoint }) => {
    return source.startsWith('holdfast-view:') && mountpoint.startsWith(sandbox.root)
  })

function nothingIsLeft(t: Tap, when: string): void {
  t.same(views(), [], `${when}: no view is left`)
  t.same(listSnapshots(), [], `${when}: no snapshot is left`)
  t.notOk(existsSync(place), `${when}: nor the directory`)
}
type Tap = Pick<typeof t, 'same' | 'notOk' | 'equal' | 'match'>

await t.test('exec: what goes in and what comes out', async (t) => {
  const script =
    'cat; cat "$1/file"; echo no >&2; echo "$HOLDFAST_VIEW $HOLDFAST_VIEW_DATA"; exit 7'
  const args = ['data', '--', 'bash', '-c', script, 'bash', '{}']
  const said = await exec(args, { input: 'from outside\n' })
  t.match(said, { code: 7, stdout: `from outside\nbefore\n${place} ${place}\n`, stderr: 'no\n' })
  nothingIsLeft(t, 'after code 7')
  const late = 'echo after >"$2/file"; cat "$1/file"; touch "$1/new" || touch "$1/file"'
  const frozen = await exec(['data', '--', 'bash', '-c', late, 'bash', '{}', data.dir])
  t.match(frozen, { code: 1, stdout: /^before\n$/, stderr: /new.*: Read-only file system/ })
  t.equal(readFileSync(join(data.dir, 'file'), 'utf8'), 'after\n', 'the volume goes on')
  const cat = ['setpriv', '--reuid', '65534', 'cat', '{}/file']
  const user = await exec(['data', '--at', join(sandbox.root, 'public'), '--', ...cat])
  t.match(user, { code: 0, stdout: 'after\n' }, 'for other users, where they may go')
  t.match(await exec(['data', '--', 'no-such-command']), { code: 127, stderr: /no-such-command/ })
  t.match(await exec(['data', '--', data.dir]), { code: 126 }, 'one that cannot be run')
  t.match(await exec(['data', '--', 'sh', '-c', 'kill -KILL $$']), { code: 137 })
  t.match(await exec(['nothing', '--', 'true']), { code: 3, stderr: /no volume nothing/ })
  t.match(await exec(['data']), { code: 2, stderr: /missing required argument 'command'/ })
  t.match(await exec(['data', '--name', 'a/b', '--', 'true']), { code: 2, stderr: /no name/ })
  nothingIsLeft(t, 'after all')
})

await t.test('exec: several volumes, another place, a snapshot that stays', async (t) => {
  const environment = 'cd "$1"; echo *; env | grep ^HOLDFAST_ | grep -v TEST_ROOT | sort'
  const both = ['mail-1,data', '--', 'bash', '-c', environment, 'bash', '{}']
  const { stdout } = await exec(both)
  const shown = join(runDirectory, 'exec', 'data+mail-1')
  t.match(stdout, /^data mail-1\n/)
  for (const name of ['data', 'mail-1']) {
    const variable = name.toUpperCase().replace('-', '_')
    t.match(stdout, `\nHOLDFAST_VIEW_${variable}=${join(shown, name)}\n`)
    t.match(stdout, new RegExp(`\nHOLDFAST_SEQ_${variable}=\\d+\n`))
  }
  t.match(stdout, `\nHOLDFAST_VIEW=${shown}\n`)
  t.match(stdout, /\nHOLDFAST_SNAPSHOT=\d{4}-/)
  t.notOk(existsSync(shown), 'the directory is gone')
  const at = join(sandbox.root, 'shown')
  const there = await exec(['data', '--at', 'shown', '--', 'echo', '{}'], { cwd: sandbox.root })
  t.match(there, { code: 0, stdout: `${at}\n` }, 'a relative place')
  t.match(await exec(['data', '--at', join(data.dir, 'in'), '--', 'true']), {
    code: 2,
    stderr: /inside the volume data/,
  })
  t.match(await exec(['data', '--keep', '--name', 'kept', '--', 'false']), { code: 1 })
  t.match(await exec(['data', '--name', 'kept', '--', 'true']), { code: 4 }, 'the name is taken')
  t.same(
    listSnapshots().map(({ name }) => name),
    ['kept'],
  )
  await destroySnapshot('kept')
  nothingIsLeft(t, 'after all')
})

await t.test('exec: signals reach the command; a killed exec leaves nothing', async (t) => {
  for (const name of ['TERM', 'INT', 'HUP', 'USR1', 'QUIT'] as const) {
    const trap = `trap 'echo got; exit 9' ${name}; echo ready; while :; do sleep 0.05; done`
    const { child, ended } = await running(trap)
    child.kill(`SIG${name}`)
    t.equal((await ended).code, 9, `SIG${name}`)
    nothingIsLeft(t, name)
  }
  const { child, ended } = await running('echo ready; exec sleep 600')
  child.kill('SIGTERM')
  t.equal((await ended).code, 143, 'a command that dies of it')
  const { child: killed } = await running('exec 2>&-; echo ready; exec sleep 600', 'data', 'mail-1')
  const children = readFileSync(`/proc/${killed.pid}/task/${killed.pid}/children`, 'utf8')
  const pids = children.trim().split(' ').map(Number)
  const gone = once(killed, 'exit')
  killed.kill('SIGKILL')
  await gone
  const begun = Date.now()
  await until(() => !pids.some(alive), 'the command to end', CLEAN_MS)
  await until(() => views().length === 0, 'the views to go', CLEAN_MS)
  await until(() => listSnapshots().length === 0, 'the snapshot to go', CLEAN_MS)
  t.ok(pids.length > 0, `SIGKILL: all was gone after ${Date.now() - begun} ms`)
  for (let n = 0; n < 5; n += 1) {
    const early = spawn(process.execPath, [HOLDFAST, 'exec', '--snapshot', 'data', '--', 'true'])
    const over = once(early, 'exit')
    setTimeout(() => early.kill('SIGKILL'), 200 + 250 * n)
    await over
  }
  t.match(await exec(['data', '--', 'cat', '{}/file']), { code: 0, stdout: 'after\n' })
  await until(() => views().length === 0 && listSnapshots().length === 0, 'nothing to be left')
  nothingIsLeft(t, 'after kills at any moment')
})

await t.test('exec: what the command has started does not see the next snapshot', async (t) => {
  // As a script that runs its backup program without exec: it alone gets the signal.
  for (const [end, code] of [
    ['wait', 143],
    ['exit 5', 5],
  ] as const) {
    const runs = `trap '' HUP; sleep 601 & echo $! >${sandbox.root}/left; echo ready; ${end}`
    const { child, ended } = await running(runs)
    if (code === 143) child.kill('SIGTERM')
    t.equal((await ended).code, code)
    const pid = Number(readFileSync(join(sandbox.root, 'left'), 'utf8'))
    t.ok(pid > 0)
    t.notOk(alive(pid), `${end}: it has ended before the view`)
    nothingIsLeft(t, end)
  }
})

await t.test('exec: a second one at the same place, and an unmount while one runs', async (t) => {
  const { child, ended } = await running('echo ready; read -r line; cat "$1/file"')
  const second = await exec(['data', '--', 'true'])
  t.match(second, { code: 4, stderr: /another command sees a snapshot at .*\n.*--at/s })
  t.equal(listSnapshots().length, 1, 'no snapshot was taken for it')
  const elsewhere = ['data', '--at', join(sandbox.root, 'other'), '--', 'cat', '{}/file']
  t.match(await exec(elsewhere), { code: 0, stdout: 'after\n' })
  t.match(await exec(['data,mail-1', '--', 'true']), { code: 0 }, 'with others')
  const cli = (...args: string[]) => attempt(process.execPath, [HOLDFAST, ...args])
  const refused = await cli('unmount', 'data')
  t.match(refused, { code: 4, stderr: `seen as it was at ${place}` })
  t.match(await cli('unmount', '--force', 'data'), { code: 0 })
  child.stdin?.end('go on\n')
  t.match(await ended, { code: 3, stderr: /data went away while the command ran/ })
  nothingIsLeft(t, 'after a forced unmount')
  data.volume = await mount({ dir: 'data' })
})

async function dies(t: Tap, again: (test: TestVolume) => Promise<unknown>): Promise<void> {
  const { child, ended } = await running(
    'echo ready; read -r line; cat "$1/file" >/dev/null; exit 0',
  )
  await kill(daemonPid('data'))
  await again(data)
  child.stdin?.end('go on\n')
  const { code, stderr } = await ended
  t.equal(code, 3, stderr)
  t.match(stderr, /data went away while the command ran: it did not see all of the snapshot/)
}

await t.test('exec: the daemon dies while the command runs', async (t) => {
  await dies(t, async () => {})
  nothingIsLeft(t, 'after its death')
  t.match(await exec(['data', '--', 'true']), { code: 1, stderr: /no snapshot: data/ })
  data.volume = await mount({ dir: 'data' })
  await dies(t, async (test) => {
    test.volume = await mount({ dir: 'data' })
  })
  nothingIsLeft(t, 'after its death and return')
  t.match(await exec(['data', '--', 'cat', '{}/file']), { code: 0, stdout: 'after\n' })
})

await t.test('exec: a volume of the same name in another run directory', async (t) => {
  const { child, ended } = await running('echo ready; read -r line; cat "$1/file" && exit 5')
  const dir = join(image.dir, 'other')
  mkdirSync(dir)
  const env = {
    HOLDFAST_STATE_ROOT: join(sandbox.root, 'other-state'),
    HOLDFAST_RUN_DIR: join(sandbox.root, 'other-run'),
  }
  const cli = (...args: string[]) => attempt(process.execPath, [HOLDFAST, ...args], { env })
  const rings = ['--ring', sandbox.rings]
  t.match(await cli('mount', dir, '--name', 'data', ...rings), { code: 0 })
  child.stdin?.end('go on\n')
  t.equal((await ended).code, 5, 'its start leaves the view alone')
  t.match(await cli('unmount', 'data'), { code: 0 })
})

await t.test('exec: nothing is left at the end', async (t) => {
  t.same(readdirSync(join(runDirectory, 'exec')), [])
  mkdirSync(join(data.dir, 'still-writable'))
  for (const test of [data, mail]) await unmountVolume(test)
})
