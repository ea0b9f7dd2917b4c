/**
 * `exec --group`: the command runs on every host, on one instant of all of them; its output, its signals
 * and its exit codes come through; who may not run it is refused before anything is taken; and nothing is
 * left on any host, however it ends.
 */
import type { ChildProcess } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { KnownGroupSnapshot } from '../../src/daemon/groups.js'
import type { Snapshot } from '../../src/daemon/snapshots.js'
import { readMounts } from '../../src/lib/mountinfo.js'
import { alive, until } from '../harness/faults.js'
import { HOLDFAST } from '../harness/files.js'
import { brokenInTrees, endChains, endMembers, makeMembers, startChains } from '../harness/group.js'
import { type Host, makeSwitched } from '../harness/hosts.js'
import { makeImage } from '../harness/image.js'
import { openSandbox } from '../harness/sandbox.js'
import { Sshd } from '../harness/ssh.js'

const CHAINS = 3
/** Longest time until what a killed exec has left is gone. */
const CLEAN_MS = 20_000

t.setTimeout(600_000)
const sandbox = await openSandbox(t)
const programs = join(sandbox.root, 'group-exec.d')
mkdirSync(programs)
const image = await makeImage(sandbox, { fs: 'xfs', mib: 2048 })
const hosts = await makeSwitched(sandbox, ['hub', 'one', 'two'])
const [hub, one, two] = hosts as [Host, Host, Host]
for (const host of hosts) host.env.HOLDFAST_GROUP_EXEC_DIR = programs
const members = await makeMembers(sandbox, image, { hosts })
t.teardown(() => endMembers(members))
await hub.holdfast('group', 'create', 'shop', 'v0', 'one/v1', 'two/v2')
for (const { dir, volume } of members) writeFileSync(join(dir, 'file'), `of ${volume}\n`)
const here = hostname()

function program(name: string, script: string, mode = 0o755): void {
  writeFileSync(join(programs, name), `#!/bin/bash\n${script}\n`)
  chmodSync(join(programs, name), mode)
}

const allow = (...flags: string[]) =>
  Promise.all([
    one.holdfast('peer', 'allow', 'hub', '--all', ...flags),
    two.holdfast('peer', 'allow', 'hub', '--all', ...flags),
  ])
const exec = (...args: string[]) => hub.tryHoldfast('exec', '--group', 'shop', ...args)
const snapshotsOf = async (host: Host) =>
  (await host.json<{ snapshots: Snapshot[] }>('snapshot', 'list')).snapshots.map(({ name }) => name)
const known = async () =>
  (await hub.json<{ snapshots: KnownGroupSnapshot[] }>('group', 'snapshot', 'list', 'shop'))
    .snapshots
const views = () =>
  readMounts().filter(({ source, mountpoint }) => {
    return source.startsWith('holdfast-view:') && mountpoint.startsWith(sandbox.root)
  })

async function isClean(): Promise<boolean> {
  const kept = await Promise.all(hosts.map(snapshotsOf))
  return views().length === 0 && kept.flat().length === 0 && (await known()).length === 0
}

/** An exec whose command has said `ready` on all hosts; it goes on. */
async function running(...command: string[]) {
  const child = hub.start(process.execPath, [HOLDFAST, 'exec', '--group', 'shop', '--', ...command])
  const said = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const) {
    child[name]?.setEncoding('utf8').on('data', (text: string) => {
      said[name] += text
    })
  }
  const ended = once(child, 'close').then(([code]) => code as number | null)
  const isReady = () => (said.stdout.match(/ready/g) ?? []).length === hosts.length
  await until(() => isReady() || child.exitCode !== null, 'the commands to run', 30_000)
  if (child.exitCode !== null) throw new Error(`exec ended: ${said.stderr}`)
  return { child, ended, said }
}
const pidsIn = (text: string) => [...text.matchAll(/ready (\d+)/g)].map(([, pid]) => Number(pid))

/** nsenter becomes the program. */
function residentMib({ pid }: ChildProcess): number {
  const [, kib] = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? []
  return Math.round(Number(kib) / 1024)
}

async function killed(child: ChildProcess): Promise<void> {
  const gone = once(child, 'exit')
  child.kill('SIGKILL')
  await gone
}

await t.test('exec --group: who may run what', async (t) => {
  program('show', 'cat "$1/file"')
  const refused = await exec('--', 'show', '{}')
  t.equal(refused.code, 4)
  t.match(refused.stderr, /(one|two): hub may not run show on .*\[NOT_ALLOWED\]/)
  t.match(refused.stderr, /On .*: put a program show into .*peer allow hub VOLUME… --exec show/)
  await allow('--exec', 'show', '--exec', 'absent')
  for (const word of ['/bin/cat', '../bin/cat', 'cat']) {
    const other = await exec('--', word, '{}/file')
    t.match(other, { code: 4, stderr: /may not run .*NOT_ALLOWED/ }, word)
  }
  t.match(await exec('--', 'absent'), { code: 3, stderr: /has no program absent in .*group-exec/ })
  program('show', 'cat "$1/file"', 0o777)
  t.match(await exec('--', 'show', '{}'), { code: 4, stderr: /can be written to by everybody/ })
  program('show', 'cat "$1/file"')
  t.ok(await isClean(), 'no snapshot was taken for any of it')
  const { code, stdout, stderr } = await exec('--', 'show', '{}')
  t.same([code, stderr], [0, ''])
  const lines = [`${here}: of v0`, 'one: of v1', 'two: of v2']
  t.same(stdout.trim().split('\n').sort(), lines.sort())
  await one.holdfast('peer', 'allow', 'hub', '--all')
  t.match(await exec('--', 'show', '{}'), { code: 4, stderr: /one: hub may not run show/ })
  for (const flags of [
    ['--at', '/x'],
    ['--snapshot', 'v0'],
  ]) {
    t.match(await exec(...flags, '--', 'show'), { code: 2 }, flags.join(' '))
  }
  const alone = await hub.tryHoldfast('exec', '--snapshot', 'v0', '--here', '--', 'true')
  t.match(alone, { code: 2, stderr: /that option is for groups/ })
  t.ok(await isClean())
})

await t.test('exec --group: what the commands see, and what comes out', async (t) => {
  await allow('--exec', 'copy', '--exec', 'say', '--exec', 'much')
  const copies = join(sandbox.root, 'copies')
  mkdirSync(copies)
  program(
    'copy',
    `cp -a "$HOLDFAST_VIEW" ${copies}/"$(ls -d "$1" | md5sum | cut -c1-8)"; echo "$1"`,
  )
  const chains = await startChains(members, CHAINS)
  const { code, stdout } = await exec('--name', 'copied', '--', 'copy', '{}')
  await endChains(chains)
  t.equal(code, 0)
  const places = new Map(
    stdout
      .trim()
      .split('\n')
      .map((line) => line.split(': ') as [string, string]),
  )
  t.match(places.get('one'), /one\/run\/exec\/v1$/, 'where it is on that host each time')
  const trees = [here, 'one', 'two'].map((host) => {
    const place = `${places.get(host)}\n`
    return join(copies, createHash('md5').update(place).digest('hex').slice(0, 8))
  })
  t.equal(brokenInTrees(trees, CHAINS), 0, 'one instant of all hosts')
  program('say', 'env | grep ^HOLDFAST_ | grep -v TEST; echo no >&2; printf "no end"; exit "$1"')
  const said = await exec('--name', 'said', '--', 'say', '0')
  t.match(said.stdout, 'two: HOLDFAST_SNAPSHOT=said\n')
  t.match(said.stdout, 'two: HOLDFAST_GROUP=shop\n')
  t.match(said.stdout, /two: HOLDFAST_VIEW_V2=\S+\/two\/run\/exec\/v2\n/)
  t.match(said.stdout, /one: no end\n/)
  t.match(said.stderr, 'one: no\n')
  program('much', 'head -c 3000000 /dev/zero | tr "\\0" x | fold -w 999; echo; exit 3')
  const much = await exec('--', 'much')
  t.equal(much.stdout.match(/^one: x{999}$/gm)?.length, 3003, 'more than is kept at once')
  t.equal(much.code, 3)
  t.match(much.stderr, /one: the command ended with 3\n.*two: the command ended with 3/)
  program('say', 'case "$HOLDFAST_VIEW" in */v1) exit 5;; */v2) kill -9 $$;; esac')
  const codes = await exec('--', 'say')
  t.equal(codes.code, 5, 'of the first in the order of the members')
  t.match(codes.stderr, /one: the command ended with 5\n.*two: the command ended with 137\n$/)
  t.ok(await isClean())
})

await t.test('exec --group: a slow reader', async (t) => {
  await allow('--exec', 'flood')
  const lines = 50_000
  program('flood', `echo ready $$; sleep 1; yes "$(printf %01000d 0)" | head -n $1; exit 4`)
  const { child, ended, said } = await running('flood', `${lines}`)
  child.stdout?.pause()
  const before = residentMib(child)
  // Longer than a host waits for a coordinator that says nothing.
  await sleep(13_000)
  const more = residentMib(child) - before
  t.ok(more < 60, `the coordinator has taken ${more} MiB of memory for it`)
  child.stdout?.resume()
  t.equal(await ended, 4, said.stderr)
  t.equal(said.stdout.match(/^\S+: 0{1000}$/gm)?.length, hosts.length * lines, 'all of it came')
})

await t.test('exec --group: a host that ssh reaches', async (t) => {
  const sshd = await Sshd.start(sandbox, two)
  const config = ['--ssh-config', sshd.at('config')]
  await hub.holdfast('peer', 'add', `ssh://${two.address}`, '--name', 'far', ...config)
  await hub.holdfast('group', 'create', 'distant', 'far/v2')
  const said = await hub.tryHoldfast('exec', '--group', 'distant', '--', 'cat', '{}/file')
  t.match(said, { code: 0, stdout: /^of v2\n$/ }, 'any program; of one host the output is as it is')
  await sshd.stop()
  t.ok(await isClean())
})

await t.test('exec --group: once, here; and a snapshot that stays', async (t) => {
  await allow()
  const seen = await exec('--here', '--', 'sh', '-c', 'cat {}/file {one}/file {two}/file; cat', 'x')
  t.match(seen, { code: 0, stdout: 'of v0\nof v1\nof v2\n' }, 'needs no leave to run anything')
  const env = await exec('--here', '--', 'sh', '-c', 'echo "$HOLDFAST_VIEW_ONE_V1"; exit 6')
  t.match(env, { code: 6, stdout: /^\S+one\/run\/exec\/v1\n$/ })
  t.ok(await isClean())
  t.match(await exec('--here', '--keep', '--name', 'kept', '--', 'true'), { code: 0 })
  t.same(
    (await known()).map(({ name, state }) => [name, state]),
    [['kept', 'complete']],
  )
  t.same(views(), [])
  t.match(await exec('--here', '--name', 'kept', '--', 'true'), { code: 4 })
  await hub.holdfast('group', 'snapshot', 'destroy', 'shop', 'kept')
  t.ok(await isClean())
})

await t.test('exec --group: signals, and a second one', async (t) => {
  await allow('--exec', 'wait')
  program('wait', `trap 'echo got; exit 9' "$1"; echo ready $$; while :; do sleep 0.05; done`)
  for (const name of ['TERM', 'INT'] as const) {
    const { child, ended, said } = await running('wait', name)
    child.kill(`SIG${name}`)
    t.equal(await ended, 9, `SIG${name}`)
    t.equal(said.stdout.match(/: got$/gm)?.length, hosts.length, 'on all hosts')
  }
  t.ok(await isClean())
  const { child, ended } = await running('wait', 'TERM')
  const second = await exec('--', 'wait', 'TERM')
  t.match(second, { code: 4, stderr: /another command sees a snapshot at/ })
  t.equal((await known()).length, 1, 'no snapshot was taken for it')
  child.kill('SIGTERM')
  t.equal(await ended, 9)
  t.ok(await isClean())
})

await t.test(
  'exec --group: stopped before the commands run, what was begun is undone',
  async (t) => {
    const hooks = join(sandbox.root, 'hooks.d')
    const told = join(sandbox.root, 'told')
    const said = () => readFileSync(told, 'utf8')
    mkdirSync(hooks)
    // On all hosts, each in a process that was started with that directory.
    for (const host of hosts) host.env.HOLDFAST_HOOKS_DIR = hooks
    await one.stopServing()
    await one.startAgain()
    const tells = `echo "$1 $HOLDFAST_VOLUME" >>${told}; [ "$1" != pre-snapshot ] || exec sleep 600`
    writeFileSync(join(hooks, '10-freezes'), `#!/bin/bash\n${tells}\n`, { mode: 0o755 })
    for (const flags of [[], ['--here']]) {
      writeFileSync(told, '')
      const args = [HOLDFAST, 'exec', '--group', 'shop', ...flags, '--', 'wait', 'TERM']
      const child = hub.start(process.execPath, args)
      const ended = once(child, 'close')
      await until(() => said().match(/pre-snapshot v[01]/g)?.length === 2, 'the hooks')
      child.kill('SIGINT')
      const begun = performance.now()
      t.same(await ended, [1, null])
      t.ok(performance.now() - begun < 15_000, 'at once')
      await until(() => said().match(/post-snapshot v[01]/g)?.length === 2, 'them to be undone')
    }
    rmSync(hooks, { recursive: true })
    for (const host of hosts) delete host.env.HOLDFAST_HOOKS_DIR
    await one.stopServing()
    await one.startAgain()
    t.ok(await isClean())
  },
)

await t.test('exec --group: what a command has started ends with it', async (t) => {
  // As a script that runs its backup program without exec.
  program('wait', `trap 'exit 9' TERM; eval "$1"; sleep 600 & echo ready $!; eval "$2"`)
  for (const [before, then, code] of [
    ['true', 'wait', 9],
    // The program is gone, and what it has started ignores what it is asked.
    ["trap '' TERM", 'exit 5', 5],
  ] as const) {
    const { child, ended, said } = await running('wait', before, then)
    if (code === 9) child.kill('SIGTERM')
    t.equal(await ended, code, said.stderr)
    t.equal(pidsIn(said.stdout).length, hosts.length)
    t.notOk(pidsIn(said.stdout).some(alive), `${then}: nothing of it runs any more`)
    t.ok(await isClean())
  }
})

await t.test('exec --group: the coordinator goes, with output that nobody has taken', async (t) => {
  const pipes = () =>
    readdirSync(`/proc/${one.serverPid}/fd`).filter((fd) => {
      try {
        return /^(pipe|socket):/.test(readlinkSync(`/proc/${one.serverPid}/fd/${fd}`))
      } catch {
        return false
      }
    }).length
  const before = pipes()
  program('wait', 'echo ready $$; sleep 2; exec yes')
  const { child, said } = await running('wait')
  child.kill('SIGSTOP')
  await sleep(4_000)
  await killed(child)
  const pids = pidsIn(said.stdout)
  await until(() => !pids.some(alive), 'the commands to end', CLEAN_MS)
  await until(isClean, 'nothing to be left', CLEAN_MS)
  await until(() => pipes() <= before, 'their output to be let go')
  t.ok(pids.length === hosts.length && said.stdout.length < 2 ** 20, 'it has not read all of it')
})

await t.test('exec --group: the coordinator is killed', async (t) => {
  program('wait', 'trap "" TERM; echo ready $$; exec sleep 600')
  const { child, said } = await running('wait')
  const pids = pidsIn(said.stdout)
  t.equal(pids.length, hosts.length)
  await killed(child)
  const begun = Date.now()
  const own = pids.filter((pid) => said.stdout.includes(`${here}: ready ${pid}`))
  const others = pids.filter((pid) => !own.includes(pid))
  await until(() => !others.some(alive), 'the commands to end, although they ignore it', CLEAN_MS)
  // Nobody is left here who could do more than the kernel, which asks it to end.
  for (const pid of own) process.kill(pid, 'SIGKILL')
  await until(isClean, 'nothing to be left', CLEAN_MS)
  t.pass(`all was gone after ${Date.now() - begun} ms`)
  for (let n = 0; n < 3; n += 1) {
    const early = hub.start(process.execPath, [HOLDFAST, 'exec', '--group', 'shop', '--', 'wait'])
    setTimeout(() => early.kill('SIGKILL'), 700 + 400 * n)
    await once(early, 'exit')
    await until(isClean, `nothing to be left of kill ${n}`, CLEAN_MS)
  }
  t.match(await exec('--here', '--', 'cat', '{two}/file'), { code: 0, stdout: 'of v2\n' })
})

await t.test('exec --group: a host is lost', async (t) => {
  program('wait', 'echo ready $$; case "$HOLDFAST_VIEW" in */v1) exec sleep 600;; esac; sleep 4')
  const { ended, said } = await running('wait')
  await one.stopServing('SIGKILL')
  t.equal(await ended, 1)
  t.match(said.stderr, /error: one: .*\[CONNECTION\]/)
  t.notMatch(said.stderr, /error: two/)
  const [pid = 0] = [...said.stdout.matchAll(/one: ready (\d+)/g)].map(([, text]) => Number(text))
  await until(() => !alive(pid), 'its command to end', CLEAN_MS)
  await until(() => views().length === 0, 'its view to go', CLEAN_MS)
  await until(async () => (await snapshotsOf(one)).length === 0, 'its part to go', CLEAN_MS)
  await one.startAgain()
  t.ok(await isClean())
  t.notOk(existsSync(join(one.env.HOLDFAST_RUN_DIR ?? '', 'exec', 'v1')))
})
