import { execFileSync, spawn } from 'node:child_process'
import { mkdirSync, readFileSync, renameSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { CLI, execute, Home } from '../fixture.js'

t.test('mount: refuses what is no directory', async (t) => {
  const home = new Home(t)
  const file = join(home.path, 'file')
  writeFileSync(file, '')
  t.match(await home.refusal({ dir: file }), { exitCode: 4, code: 'NOT_A_DIRECTORY' })
  const missing = await home.refusal({ dir: join(home.path, 'missing') })
  t.match(missing, { code: 'NOT_A_DIRECTORY', hint: /mkdir -p/ })
  const at = await home.refusal({ at: join(home.path, 'nowhere') })
  t.match(at, { code: 'NOT_A_DIRECTORY', message: /mountpoint/ })
})

t.test('mount: refuses a volume that is mounted already, by any path to it', async (t) => {
  const home = new Home(t)
  const link = join(home.path, 'link')
  symlinkSync(home.data, link)
  await home.mount()
  for (const which of [home.data, link, 'data', `${home.data}/`]) {
    t.match(await home.refusal({ dir: which }), { exitCode: 4, code: 'ALREADY_MOUNTED' }, which)
  }
  t.match(await home.refusal({ name: 'other' }), { code: 'ALREADY_MOUNTED' })
  await home.unmount()
})

t.test('mount: refuses state, ring or mountpoint inside the volume', async (t) => {
  const home = new Home(t)
  const state = await home.refusal({ stateDirectory: join(home.data, 'state') })
  t.match(state, { exitCode: 4, code: 'STATE_INSIDE_VOLUME', hint: /--state/ })
  t.match(await home.refusal({ dir: home.path }), { code: 'STATE_INSIDE_VOLUME' })
  const inside = join(home.data, 'inside')
  mkdirSync(inside)
  t.match(await home.refusal({ at: inside }), { code: 'STATE_INSIDE_VOLUME' })
  t.notOk(home.isMounted())
})

t.test('mount: refuses the journal of another volume', async (t) => {
  const home = new Home(t)
  const other = join(home.path, 'other')
  mkdirSync(other)
  for (const dir of [home.data, other]) {
    const volume = await home.mount({ dir })
    await volume.unmount()
  }
  const journal = (name: string) => join(home.stateRoot, name, 'journal')
  renameSync(journal('data'), `${journal('data')}.away`)
  renameSync(journal('other'), journal('data'))
  t.match(await home.refusal(), { exitCode: 4, code: 'FOREIGN_JOURNAL' })
  const byState = await home.refusal({ stateDirectory: join(home.stateRoot, 'other') })
  t.match(byState, { code: 'FOREIGN_JOURNAL', hint: /--name or --state/ })
})

t.test('mount: refuses an unknown format version and a damaged volume.json', async (t) => {
  const home = new Home(t)
  await home.mount()
  await home.unmount()
  const file = join(home.stateRoot, 'data', 'volume.json')
  const good = readFileSync(file, 'utf8')
  writeFileSync(file, good.replace('"version": 1', '"version": 9'))
  const newer = await home.refusal({ dir: 'data' })
  t.match(newer, {
    exitCode: 4,
    code: 'UNKNOWN_FORMAT',
    message: /version 9; this holdfast reads 1/,
  })
  writeFileSync(file, good.replace('"ringBytes"', '"ringBytes": 3, "x"'))
  t.match(await home.refusal({ dir: 'data' }), { code: 'UNKNOWN_FORMAT', message: /ringBytes/ })
  writeFileSync(file, 'nonsense')
  t.match(await home.refusal({ dir: 'data' }), { code: 'UNKNOWN_FORMAT' })
})

t.test('mount: refuses a tree that processes use, naming them, unless forced', async (t) => {
  const home = new Home(t)
  const child = spawn('sleep', ['60'], { cwd: home.data, stdio: 'ignore' })
  t.teardown(() => child.kill('SIGKILL'))
  const refused = await home.refusal()
  t.match(refused, { exitCode: 4, code: 'OCCUPIED', details: { occupants: [{ kind: 'cwd' }] } })
  t.match(refused.message, `sleep[${child.pid}] cwd ${home.data}`)
  await home.mount({ force: true })
  await home.unmount()
})

t.test('mount: refuses a tree with a mount inside', async (t) => {
  const home = new Home(t)
  const inside = join(home.data, 'with blank')
  mkdirSync(inside)
  execFileSync('mount', ['-t', 'tmpfs', 'holdfast-test', inside])
  const refused = await home.refusal()
  t.match(refused, { exitCode: 4, code: 'NESTED_MOUNT', message: /with blank/ })
  execFileSync('umount', [inside])
})

t.test('mount: refuses a ring that is too large, too small or not on tmpfs', async (t) => {
  const home = new Home(t)
  const large = await home.refusal({ options: { ringBytes: 2 ** 50 } })
  t.match(large, { exitCode: 4, code: 'RING_SPACE', hint: /--ring-size/ })
  const small = await home.refusal({ options: { ringBytes: 1 << 20 } })
  t.match(small, { exitCode: 2, code: 'USAGE' })
  const ring = await home.refusal({ options: { ringDirectory: '/var/tmp' } })
  t.match(ring, { exitCode: 4, code: 'RING_NOT_TMPFS' })
  t.notOk(home.isMounted())
})

t.test('mount: says what to do without privilege, and without /dev/fuse', async (t) => {
  const home = new Home(t)
  const drop = ['--bounding-set', '-sys_admin', '--inh-caps', '-sys_admin', process.execPath, CLI]
  const { code, stderr } = await execute('setpriv', [...drop, 'mount', home.data])
  t.equal(code, 4)
  t.match(stderr, /CAP_SYS_ADMIN \[NO_PRIVILEGE\]\n {2}Run as root/)
  const hide = `mount --bind /dev/null /dev/fuse && exec "$@"`
  const run = ['-m', 'bash', '-c', hide, 'hide', process.execPath, CLI, 'mount', home.data]
  const without = await execute('unshare', run)
  t.equal(without.code, 4)
  t.match(without.stderr, /NO_FUSE\]\n {2}Load the module: modprobe fuse/)
})

t.test('replay: refuses the volume itself, its state and what is no directory', async (t) => {
  const home = new Home(t)
  const volume = await home.mount()
  for (const onto of [home.data, home.path, join(home.stateRoot, 'data')]) {
    await t.rejects(volume.replay({ onto }), { exitCode: 4, code: 'TARGET_REFUSED' }, onto)
  }
  await t.rejects(volume.replay({ onto: '/no/where' }), { code: 'NOT_A_DIRECTORY' })
  await home.unmount()
})
