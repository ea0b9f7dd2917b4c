/**
 * What must not go wrong with a group when something does: its coordinator is killed at any moment, a
 * member dies or stops, a clock jumps, a hook fails, a peer is not allowed. No hold outlives its bound, no half
 * snapshot stays, nothing is left armed.
 *
 * HOLDFAST_KILLS and HOLDFAST_SEED make it longer, or repeat it.
 */
import { once } from 'node:events'
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { GroupSnapshot } from '../../src/group/definition.js'
import { Chance, chooseSeed, setting, until } from '../harness/faults.js'
import { HOLDFAST } from '../harness/files.js'
import {
  brokenChains,
  endChains,
  endMembers,
  GroupLook,
  makeMembers,
  momentOf,
  setClock,
  startChains,
} from '../harness/group.js'
import { type Host, makeSwitched } from '../harness/hosts.js'
import { makeImage } from '../harness/image.js'
import { attempt } from '../harness/run.js'
import { openSandbox } from '../harness/sandbox.js'

const KILLS = setting('HOLDFAST_KILLS', 6)
const CHAINS = 3
/** From the order to the end, on a busy machine. */
const CUT_MS = 2_500
const seed = chooseSeed()
t.setTimeout(600_000 + KILLS * 10_000)
t.comment(`seed ${seed}, ${KILLS} kills: HOLDFAST_SEED=${seed} HOLDFAST_KILLS=${KILLS}`)

const chance = new Chance(seed)
const sandbox = await openSandbox(t)
const hooks = join(sandbox.root, 'hooks.d')
mkdirSync(hooks)
process.env.HOLDFAST_HOOKS_DIR = hooks
const image = await makeImage(sandbox, { fs: 'xfs', mib: 4096 })
const hosts = await makeSwitched(sandbox, ['hub', 'one', 'two'])
const [hub, one, two] = hosts as [Host, Host, Host]
for (const host of hosts) setClock(host, { offsetMs: chance.between(-5_000, 5_000), driftPpm: 0 })
const members = await makeMembers(sandbox, image, { hosts })
t.teardown(() => endMembers(members))
await hub.holdfast('group', 'create', 'shop', 'v0', 'one/v1', 'two/v2')

const create = ['group', 'snapshot', 'create', 'shop']
const look = new GroupLook('shop', hub, members)
function hook(name: string, script: string): void {
  writeFileSync(join(hooks, name), `#!/bin/bash\n${script}\n`)
  chmodSync(join(hooks, name), 0o755)
}

await t.test('group: its coordinator is killed at any moment', async (t) => {
  const chains = await startChains(members, CHAINS)
  for (let n = 0; n < KILLS; n += 1) {
    const method = chance.pick(['scheduled', 'barrier'])
    const order = [...create, '--name', `killed-${n}`, '--method', method, '--max-hold', '400ms']
    const child = hub.start(process.execPath, [HOLDFAST, ...order])
    const ended = once(child, 'close')
    await sleep(chance.between(200, CUT_MS))
    child.kill('SIGKILL')
    await ended
    await sleep(500)
    t.equal(await look.isHeld(), false, `kill ${n}: nothing is on hold any more`)
  }
  await hub.holdfast(...create, '--name', 'after')
  await endChains(chains)
  const all = await look.requireWhole(t, 'after the kills')
  const moments = all.map((each) => momentOf(members, each as unknown as GroupSnapshot))
  t.equal(await brokenChains(members, CHAINS, moments), 0, `none of ${all.length} is torn`)
})

await t.test('group: a host that stops, and one that is gone', async (t) => {
  process.kill(two.serverPid ?? 0, 'SIGSTOP')
  const stopped = await hub.tryHoldfast(...create, '--name', 'stopped')
  process.kill(two.serverPid ?? 0, 'SIGCONT')
  t.equal(stopped.code, 1)
  t.match(stopped.stderr, /two/)
  t.equal(await look.isHeld(), false)
  await two.stopServing('SIGKILL')
  const gone = await hub.tryHoldfast(...create, '--name', 'gone')
  t.match(gone.stderr, /cannot connect to .*is `holdfast replica serve` running/is)
  const shown = await hub.holdfast('group', 'show', 'shop')
  t.match(shown, /two\/v2 +two: cannot connect/)
  await two.startAgain()
  await hub.holdfast(...create, '--name', 'back')
  await look.requireWhole(t, 'after all')
})

await t.test('group: a clock jumps after it was read', async (t) => {
  const clock = `${one.env.HOLDFAST_TEST_CLOCK}`
  const before = readFileSync(clock, 'utf8')
  const jump = (ms: number) => {
    const { offsetNs } = JSON.parse(before)
    const jumped = { offsetNs: `${BigInt(offsetNs) + BigInt(ms) * 1_000_000n}`, driftPpm: 0 }
    hook('10-jump', `[ "$1" = pre-snapshot ] && echo '${JSON.stringify(jumped)}' >${clock}; true`)
  }
  for (const ms of [700, -60, 30]) {
    jump(ms)
    const order = ['--method', 'scheduled', '--attempts', '1', '--name', `jump${ms}`]
    const refused = await hub.tryHoldfast(...create, ...order)
    t.equal(refused.code, 1, `${ms} ms: refused: ${refused.stderr.split('\n')[0]}`)
    writeFileSync(clock, before)
    const taken = await hub.json<GroupSnapshot>(...create, '--name', `barrier${ms}`)
    t.equal(taken.method, 'barrier', 'which asks no clock')
    writeFileSync(clock, before)
  }
  hook('10-jump', 'true')
  const steady = [...create, '--name', 'steady', '--method', 'scheduled', '--attempts', '9']
  const taken = await hub.json<GroupSnapshot>(...steady)
  t.equal(taken.method, 'scheduled')
  await look.requireWhole(t, 'after the jumps')
})

await t.test('group: a hook fails on one host', async (t) => {
  const told = join(sandbox.root, 'told')
  hook(
    '20-tell',
    `echo "$1 $HOLDFAST_VOLUME $HOLDFAST_RESULT $HOLDFAST_GROUP $HOLDFAST_GROUP_MEMBERS" >>${told}
     [ "$1 $HOLDFAST_VOLUME" != "pre-snapshot v2" ]`,
  )
  const refused = await hub.tryHoldfast(...create, '--name', 'unwanted')
  t.match(refused.stderr, /two: hook 20-tell failed in pre-snapshot/)
  const undone = () => /post-snapshot v1 failed/.test(readFileSync(told, 'utf8'))
  await until(() => existsSync(told) && undone(), 'what was begun elsewhere to be undone')
  t.match(readFileSync(told, 'utf8'), /pre-snapshot v0 {2}shop \S+\/v0 one\/v1 two\/v2/)
  hook('20-tell', 'true')
  hook('30-held', `[ "$1" != held ] || echo "held $HOLDFAST_VOLUME" >>${told}`)
  writeFileSync(
    join(hooks, 'hooks.json'),
    JSON.stringify({ hooks: { '30-held': { phases: ['held'] } } }),
  )
  const taken = await hub.json<GroupSnapshot>(...create, '--name', 'held')
  t.equal(taken.method, 'barrier', 'a hook that runs while I/O is held needs one')
  const held = readFileSync(told, 'utf8').match(/^held v\d$/gm) ?? []
  t.same(held.sort(), ['held v0', 'held v1', 'held v2'])
  await look.requireWhole(t, 'after the hooks')
})

await t.test('group: one that fails in a barrier lets go all others at once', async (t) => {
  const held = (script: string) => hook('30-held', `[ "$1" = held ] || exit 0; ${script}`)
  // v0 is not at rest for long; v1 would be held meanwhile.
  held('case "$HOLDFAST_VOLUME" in v0) sleep 4;; v2) exit 1;; esac')
  const stop = join(sandbox.root, 'stop')
  const script = `import os, time
fd = os.open(${JSON.stringify(join(members[1]?.dir ?? '', 'written'))}, os.O_CREAT | os.O_WRONLY)
longest = 0
while not os.path.exists(${JSON.stringify(stop)}):
    begun = time.monotonic()
    os.pwrite(fd, b'x' * 512, 0)
    longest = max(longest, time.monotonic() - begun)
print(longest * 1000)`
  const writer = attempt('python3', ['-c', script])
  const order = [...create, '--name', 'barrier-fails', '--max-hold', '6s', '--attempts', '1']
  const refused = await hub.tryHoldfast(...order)
  writeFileSync(stop, '')
  t.match(refused.stderr, /two: hook 30-held failed in held: exit code 1/)
  const longest = Number((await writer).stdout)
  t.ok(longest > 0 && longest < 3_000, `longest write on one ${longest} ms`)
  held('true')
})

await t.test('group: hooks that follow take their time, and fail', async (t) => {
  const told = join(sandbox.root, 'followed')
  hook(
    '40-slow',
    `[ "$1" = post-snapshot ] || exit 0; sleep 12; echo "$HOLDFAST_VOLUME $HOLDFAST_RESULT" >>${told}; exit 5`,
  )
  const taken = await hub.tryHoldfast(...create, '--name', 'followed', '--timeout', '8s')
  t.match(taken, { code: 0 }, taken.stderr)
  const lines = readFileSync(told, 'utf8').trim().split('\n').sort()
  t.same(lines, ['v0 taken', 'v1 taken', 'v2 taken'], 'they were waited for')
  for (const { host, volume } of members) {
    t.match(host.daemonLog(volume), /hook 40-slow: post-snapshot: failed/, 'and it is told')
  }
  hook('40-slow', 'true')
  const all = await look.requireWhole(t, 'after all')
  t.ok(all.some(({ name }) => name === 'followed'))
})

await t.test('group: who may', async (t) => {
  await two.holdfast('peer', 'allow', 'hub')
  const refused = await hub.tryHoldfast(...create, '--name', 'forbidden')
  t.match(refused.stderr, /hub may not hold v2 of .*peer allow hub v2/s)
  await two.holdfast('peer', 'allow', 'hub', 'v2')
  await hub.holdfast(...create, '--name', 'allowed')
  await look.requireWhole(t, 'after that')
  await hub.holdfast('group', 'snapshot', 'destroy', 'shop', 'allowed', 'held')
  await look.requireWhole(t, 'after two are destroyed')
  await two.holdfast('snapshot', 'destroy', 'steady')
  const states = new Map((await look.known()).map(({ name, state }) => [name, state]))
  t.equal(states.get('steady'), 'incomplete', 'a part of it was destroyed')
})
