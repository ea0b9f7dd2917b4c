/**
 * Who keeps write locks is seen on every host, with its path, whatever kind of lock it is; a snapshot that
 * asks for it is only taken when nobody does, or at a moment when nobody does.
 */
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { GroupLock } from '../../src/daemon/groups.js'
import { endMembers, makeMembers } from '../harness/group.js'
import { type Host, makeSwitched } from '../harness/hosts.js'
import { makeImage } from '../harness/image.js'
import { start } from '../harness/run.js'
import { openSandbox } from '../harness/sandbox.js'

const KINDS = {
  POSIX: 'fcntl.lockf(f, fcntl.LOCK_EX)',
  FLOCK: 'fcntl.flock(f, fcntl.LOCK_EX)',
  // F_OFD_SETLKW; l_type F_WRLCK.
  OFDLCK: 'fcntl.fcntl(f, 38, struct.pack("hhqqi4x", 1, 0, 0, 0, 0))',
} as const

t.setTimeout(300_000)
const sandbox = await openSandbox(t)
const image = await makeImage(sandbox, { fs: 'xfs', mib: 1024 })
const hosts = await makeSwitched(sandbox, ['hub', 'one'])
const [hub] = hosts as [Host]
const members = await makeMembers(sandbox, image, { hosts })
t.teardown(() => endMembers(members))
await hub.holdfast('group', 'create', 'shop', 'v0', 'one/v1')
const path = join(image.dir, 'v1', 'locked')
writeFileSync(path, '')

/** A process that has the file locked, after `begin`; ends with its input. */
async function lock(kind: keyof typeof KINDS, then = 'sys.stdin.read()'): Promise<ChildProcess> {
  const script = `import fcntl, struct, sys, time
f = open(${JSON.stringify(path)}, 'r+')
${KINDS[kind]}
print('locked', flush=True)
${then}`
  const child = start('python3', ['-c', script])
  await once(child.stdout ?? child, 'data')
  return child
}

async function end(child: ChildProcess): Promise<void> {
  const ended = once(child, 'close')
  child.kill('SIGKILL')
  await ended
}

for (const kind of Object.keys(KINDS) as (keyof typeof KINDS)[]) {
  await t.test(`group: a ${kind} lock on another host`, async (t) => {
    const holder = await lock(kind)
    const told = await hub.tryHoldfast('group', 'check', 'shop', '--json')
    t.equal(told.code, 4)
    const { can, locks } = JSON.parse(told.stdout) as { can: boolean; locks: GroupLock[] }
    t.same([can, locks], [false, [{ ...locks[0], host: 'one', volume: 'v1', kind, path }]])
    t.equal(locks[0]?.pid, holder.pid)
    const create = ['group', 'snapshot', 'create', 'shop', '--name', kind]
    const refused = await hub.tryHoldfast(...create, '--check-locks', '100ms')
    t.match(refused.stderr, new RegExp(`one: python3\\[${holder.pid}\\] keeps a write lock`))
    const never = await hub.tryHoldfast(...create, '--when-free', '1s')
    t.match(never.stderr, /one: there was no moment without write locks in 1 s/)
    const long = [...create, '--when-free', '5s', '--timeout', '9s']
    const once = await hub.tryHoldfast(...long)
    t.match(once.stderr, /in 5 s/, 'looked for once, however often it would be tried')
    await end(holder)
    t.match(await hub.holdfast('group', 'check', 'shop'), /can be cut/)
    await hub.holdfast(...create, '--check-locks', '100ms')
    t.equal((await members[1]?.host.status('v1'))?.held, false)
  })
}

await t.test('group: a moment at which nobody holds one', async (t) => {
  const turns = `while True:
    fcntl.lockf(f, fcntl.LOCK_UN); time.sleep(0.3)
    fcntl.lockf(f, fcntl.LOCK_EX); time.sleep(0.3)`
  const holder = await lock('POSIX', turns)
  await hub.holdfast('group', 'snapshot', 'create', 'shop', '--name', 'free', '--when-free', '20s')
  const shown = await members[1]?.host.json<{ locks: { access: string }[] }>(
    'snapshot',
    'show',
    'free',
  )
  t.same(
    shown?.locks.filter(({ access }) => access === 'WRITE'),
    [],
  )
  await end(holder)
})
