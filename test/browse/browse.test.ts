/**
 * The browse tree on a real mount, looked at with ls, find, cp, cat, dd and tail; what it shows of the
 * past is compared with copies that were taken at those moments.
 */
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { ControlClient } from '../../src/daemon/client.js'
import { createSnapshot, mount } from '../../src/index.js'
import { isWithin, readMounts } from '../../src/lib/mountinfo.js'
import { HOLDFAST } from '../harness/files.js'
import { makeImage } from '../harness/image.js'
import { attempt, bash, run, start } from '../harness/run.js'
import { openSandbox } from '../harness/sandbox.js'
import { mountVolume } from '../harness/volume.js'

/** Longest wait for something that comes by itself on a busy machine. */
const SOON_MS = 60_000

t.setTimeout(600_000)
const sandbox = await openSandbox(t)
const image = await makeImage(sandbox, { fs: 'xfs' })
const kept = await mountVolume(sandbox, image, {
  name: 'kept',
  fill: (dir) => bash('mkdir d; echo base >d/file; echo other >other', { cwd: dir }),
  options: { history: 'continuous' },
})
const points = await mountVolume(sandbox, image, { name: 'points' })
const tree = join(sandbox.root, 'tree')

const browse = (...args: string[]) => attempt(process.execPath, [HOLDFAST, 'browse', ...args])
const at = (path: string) => join(tree, path)
const ours = () => readMounts().filter(({ mountpoint }) => isWithin(mountpoint, sandbox.root))
const mounts = () => ours().filter(({ type }) => type === 'fuse.holdfast-browse')
const views = () => ours().filter(({ source }) => source.startsWith('holdfast-view:'))
const seqOf = async (name: string) => (await new ControlClient(name).status()).captured.seq

async function until(is: () => boolean, what: string): Promise<void> {
  for (const end = Date.now() + SOON_MS; !is(); await sleep(50)) {
    if (Date.now() > end) throw new Error(`${what}: not within ${SOON_MS} ms`)
  }
}

/** What the journal has, the tree has a moment later. */
const listed = (name: string) =>
  until(() => readdirSync(at('kept/versions')).includes(name), `${name} is listed`)

async function pidOf(): Promise<number> {
  const { code, stdout, stderr } = await browse(tree, '--json')
  if (code !== 0) throw new Error(stderr)
  return JSON.parse(stdout).pid as number
}

t.test('browse: refuses what cannot be, and says why', async (t) => {
  mkdirSync(join(sandbox.root, 'full/x'), { recursive: true })
  const cases: [string[], number, RegExp][] = [
    [[join(kept.dir, 'in/it')], 2, /is inside the volume kept/],
    [[join(sandbox.root, 'full')], 4, /is no empty directory/],
    [[kept.dir], 2, /is inside the volume kept/],
    [['--stop', tree], 3, /there is no browse tree/],
  ]
  for (const [args, code, text] of cases) {
    const result = await browse(...args)
    t.equal(result.code, code, `${args.join(' ')}: ${result.stderr}`)
    t.match(result.stderr, text)
  }
  const stranger = await attempt('setpriv', [
    '--reuid=65534',
    '--clear-groups',
    process.execPath,
    HOLDFAST,
    'browse',
    tree,
  ])
  t.equal(stranger.code, 4)
  t.match(stranger.stderr, /NO_PRIVILEGE/)
  t.notOk(existsSync(tree), 'nothing is left of a refusal')
})

t.test('browse: shows volumes, status and the journal', async (t) => {
  const { code, stderr, stdout } = await browse(tree)
  t.equal(code, 0, stderr)
  t.match(stdout, /README/)
  t.same(readdirSync(tree).sort(), ['README', 'kept', 'points'])
  t.match(await run('cat', [at('README')]), /versions\/PATH/)
  t.match(await run('cat', [at('kept/status')]), /state +protected/)
  t.notMatch(readFileSync(at('kept/status'), 'utf8'), '\u001b', 'no colours')
  const status = JSON.parse(await run('cat', [at('kept/status.json')]))
  t.match(status, { name: 'kept', state: 'protected' })
  t.equal((await browse(tree)).code, 4, 'once is enough')
  const refused = await attempt('touch', [at('kept/new')])
  t.match(refused.stderr, /Read-only file system/)
  t.match((await attempt('mkdir', [at('x')])).stderr, /Read-only file system/)
  const stranger = await attempt('ls', [tree], { user: { uid: 65534, gid: 65534 } })
  t.match(stranger.stderr, /Permission denied/)
})

t.test('browse: versions of a file are what it was', async (t) => {
  const copies = join(sandbox.root, 'copies')
  mkdirSync(copies)
  const edits = [
    'echo one >d/file',
    'echo two >>d/file',
    'head -c 3000000 /dev/urandom >d/file',
    'printf middle | dd of=d/file bs=1 seek=1000000 conv=notrunc status=none',
    'truncate -s 5000000 d/file',
    'chmod 600 d/file; touch -d 2001-02-03T04:05:06.789Z d/file',
  ]
  const seqs: number[] = []
  for (const edit of edits) {
    await bash(edit, { cwd: kept.dir })
    seqs.push(await seqOf('kept'))
    await run('cp', ['-a', join(kept.dir, 'd/file'), join(copies, `${seqs.length}`)])
  }
  const versions = readdirSync(at('kept/versions/d/file'))
  t.ok(versions.length >= edits.length, versions.join('\n'))
  const name = /^\d{4}-\d\d-\d\dT[\d-]+\.\d{3}Z (seq-\d+ \w+ by \S+\[\d+\]|before seq-\d+)$/
  for (const version of versions) t.match(version, name)
  const out = join(sandbox.root, 'out')
  await run('cp', ['-a', at('kept/versions/d/file'), out])
  for (const [index, seq] of seqs.entries()) {
    const version = versions.find((each) => each.includes(` seq-${seq} `)) ?? 'none'
    const [shown, copied] = [at(`kept/versions/d/file/${version}`), join(copies, `${index + 1}`)]
    t.equal((await attempt('cmp', [shown, copied])).code, 0, `${version}: contents`)
    t.equal((await attempt('cmp', [join(out, version), copied])).code, 0, `${version}: of cp`)
    const [a, b] = [statSync(shown), statSync(copied)]
    t.same([a.size, a.mode], [b.size, b.mode], `${version}: size and mode`)
    t.equal(Math.floor(a.mtimeMs), Math.floor(b.mtimeMs), `${version}: time`)
  }
  const first = versions.find((each) => each.includes('before')) ?? 'none'
  t.equal(await run('cat', [at(`kept/versions/d/file/${first}`)]), 'base\n')
  const last = versions.find((each) => each.includes(` seq-${seqs[3]} `)) ?? 'none'
  const dd = ['bs=1', 'skip=1000000', 'count=6', 'status=none']
  t.equal(await run('dd', [`if=${at(`kept/versions/d/file/${last}`)}`, ...dd]), 'middle')
})

t.test('browse: names that were removed or renamed', async (t) => {
  await bash('echo a >gone; rm gone; mkdir -p old/sub; echo s >old/sub/f; rm -r old', {
    cwd: kept.dir,
  })
  await bash('echo first >was; mv was now; echo second >>now', { cwd: kept.dir })
  for (const name of ['gone', 'old', 'was', 'now', 'other', 'd']) await listed(name)
  const read = (path: string) => bash(`for f in *; do cat "$f"; done`, { cwd: at(path) })
  t.match(await read('kept/versions/gone'), /a\n/)
  t.match(await read('kept/versions/old/sub/f'), /s\n/, 'below a directory that is gone')
  t.match(await read('kept/versions/was'), /first\n/)
  t.equal(await read('kept/versions/now'), 'first\nfirst\nsecond\n', 'since it has this name')
  const none = await attempt('ls', [at('kept/versions/never-was')])
  t.match(none.stderr, /No such file/)
})

t.test('browse: a directory that was renamed, and a file that is saved by rename', async (t) => {
  await bash('mkdir a; echo in-a >a/f; mv a b; echo in-b >>b/f', { cwd: kept.dir })
  await bash('for i in 1 2 3; do echo $i >save.tmp; mv save.tmp save; done', { cwd: kept.dir })
  await bash('echo linked >l1; ln l1 l2; echo more >>l2', { cwd: kept.dir })
  const copied = join(sandbox.root, 'saved')
  mkdirSync(copied)
  for (const name of ['save', 'b', 'l1', 'l2']) {
    await run('cp', ['-r', at(`kept/versions/${name}`), copied])
  }
  const all = (name: string) => bash('cat *', { cwd: join(copied, name) })
  t.equal(await all('save'), '1\n2\n3\n')
  t.match(await all('b/f'), /in-a\nin-b\n$/)
  t.match(await all('l2'), /linked\nlinked\nmore\n$/)
  t.match(await all('l1'), /linked\nmore\n$/)
})

t.test('browse: names in any bytes', async (t) => {
  const odd = [`$'b-\\377-\\\\name'`, `$'line\\nbreak'`, `'ümlaut ☃'`]
  await bash(odd.map((name) => `echo odd >${name}`).join('; '), { cwd: kept.dir })
  await bash(`n=$(printf '\\377%.0s' $(seq 255)); echo long >"$n"`, { cwd: kept.dir })
  const shown = ['b-\\377-\\\\name', 'line\\nbreak', 'ümlaut ☃', '\\377'.repeat(255)]
  for (const name of shown) {
    await listed(name)
    const dir = at(`kept/versions/${name}`)
    const versions = readdirSync(dir)
    const written = versions.find((each) => / seq-\d+ write by /.test(each)) ?? 'none'
    t.match(readFileSync(join(dir, written), 'utf8'), /^(odd|long)\n$/, versions.join(', '))
  }
  const seq = await seqOf('kept')
  const bytes = readdirSync(at(`kept/at/${seq}`), { encoding: 'buffer' })
  t.ok(
    bytes.some((name) => name.equals(Buffer.from('b-\xff-\\name', 'latin1'))),
    'as it is',
  )
})

t.test('browse: snapshots and moments', async (t) => {
  await bash('echo then >f; ln -s f link', { cwd: points.dir })
  const { members } = await createSnapshot({ volumes: ['points'], name: 'monday' })
  await bash('echo later >>f; echo new >g', { cwd: points.dir })
  t.same(readdirSync(at('points/snapshots')).sort(), ['monday', 'monday.json'])
  t.match(JSON.parse(readFileSync(at('points/snapshots/monday.json'), 'utf8')), { members })
  t.equal(await run('cat', [at('points/snapshots/monday/f')]), 'then\n')
  t.same(readdirSync(at('points/snapshots/monday')).sort(), ['f', 'link'])
  t.same(readdirSync(at('points/versions')).sort(), ['f', 'link'])
  t.equal(await bash('cat *', { cwd: at('points/versions/f') }), 'then\n')
  t.equal(await bash('readlink *', { cwd: at('points/versions/link') }), 'f\n')
  t.equal(await run('cat', [at(`points/at/${members[0]?.seq}/f`)]), 'then\n')
  t.notOk(existsSync(at('points/at/1')), 'no moment of a history of snapshots')

  const before = await seqOf('kept')
  const time = new Date().toISOString()
  await sleep(50)
  await bash('echo after >d/after', { cwd: kept.dir })
  t.notOk(existsSync(at(`kept/at/${before}/d/after`)))
  t.notOk(existsSync(at(`kept/at/${time}/d/after`)))
  t.ok(existsSync(at(`kept/at/seq-${before + 2}/d/after`)))
  t.ok(existsSync(at(`kept/at/${time.replaceAll(':', '-')}/d/file`)))
  for (const name of ['999999999', 'tomorrow', '2999-01-01', '1999-01-01T00:00:00Z']) {
    t.notOk(existsSync(at(`kept/at/${name}`)), name)
  }
})

t.test("browse: the journal's tail grows while it is read", async (t) => {
  const tail = start('tail', ['-n', '1', '-s', '0.2', '-f', at('kept/journal.tail')])
  let seen = ''
  tail.stdout?.setEncoding('utf8').on('data', (text: string) => {
    seen += text
  })
  await until(() => seen.includes('\n'), 'the first line')
  for (const n of [1, 2, 3]) {
    await bash(`mkdir grow-${n}`, { cwd: kept.dir })
    await until(() => seen.includes(`mkdir        grow-${n}`), `line ${n}\n${seen}`)
  }
  const ended = once(tail, 'close')
  tail.kill('SIGTERM')
  await ended
  const text = readFileSync(at('kept/journal.tail'), 'utf8')
  const lines = readFileSync(at('kept/journal.jsonl'), 'utf8').trimEnd().split('\n')
  t.equal(text.trimEnd().split('\n').length, lines.length)
  t.match(
    lines.map((line) => JSON.parse(line).path),
    { [lines.length - 1]: 'grow-3' },
  )
})

t.test('browse: everything can be walked, also by several at once', async (t) => {
  const walks = ['find . -type f -size -100k -exec cat {} + | wc -c', 'ls -lR . | wc -l']
  const results = await Promise.all(
    [...walks, ...walks].map((walk) => bash(`${walk}; true`, { cwd: tree })),
  )
  t.equal(results[1], results[3])
  for (const result of results) t.ok(Number(result) > 10, result)
})

t.test('browse: views that rest are unmounted, those in use stay', async (t) => {
  const inside = start('sleep', ['600'], { cwd: at('points/snapshots/monday') })
  const isMonday = () =>
    views().every(({ source }) => /^holdfast-view:points:.*@monday$/.test(source))
  await until(isMonday, 'only that view is left')
  t.equal(views().length, 1)
  t.equal((await attempt(process.execPath, [HOLDFAST, 'snapshot', 'destroy', 'monday'])).code, 4)
  const ended = once(inside, 'close')
  inside.kill('SIGKILL')
  await ended
  await until(() => views().length === 0, 'the last view goes')
})

t.test('browse: goes on when a daemon is replaced', async (t) => {
  t.equal(await run('cat', [at('points/snapshots/monday/f')]), 'then\n')
  process.kill((await points.volume.status()).pid, 'SIGKILL')
  await until(() => /stopped/.test(readFileSync(at('points/status'), 'utf8')), 'stopped')
  t.match((await attempt('ls', [at('points/versions')])).code, 2)
  t.ok(existsSync(at('points/snapshots/monday.json')))
  await mount({ dir: points.dir, name: 'points' })
  await until(() => /protected/.test(readFileSync(at('points/status'), 'utf8')), 'protected')
  t.equal(await run('cat', [at('points/snapshots/monday/f')]), 'then\n')
})

t.test('browse: ends by --stop, by umount, and is replaced after a kill', async (t) => {
  readdirSync(at('points/snapshots/monday'))
  t.equal(views().length > 0, true)
  t.equal((await browse('--stop', tree)).code, 0)
  t.same([mounts(), views()], [[], []], 'no mounts, no views')
  t.notOk(existsSync(tree), 'the directory that it had made is gone')

  const pid = await pidOf()
  readdirSync(at('points/snapshots/monday'))
  await run('umount', ['-l', tree])
  await until(() => !existsSync(`/proc/${pid}`), 'the process ends')
  t.same([mounts(), views()], [[], []])

  const killed = await pidOf()
  readdirSync(at('points/snapshots/monday'))
  process.kill(killed, 'SIGKILL')
  await until(() => views().length === 0, 'the daemon ends the views')
  t.equal(mounts().length, 1, 'a dead mount is left')
  t.match((await attempt('ls', [tree])).stderr, /not connected/)
  await pidOf()
  t.equal(mounts().length, 1, 'it was replaced')
  t.ok(readdirSync(tree).includes('kept'))

  const last = await pidOf().catch((error: Error) => error.message)
  t.match(last, /already|another process/)
  process.kill(JSON.parse(readFileSync(at('kept/status.json'), 'utf8')).pid, 0)
  t.equal((await browse('--stop', tree)).code, 0)
  const foreground = start(process.execPath, [HOLDFAST, 'browse', '--foreground', tree])
  await until(() => mounts().length === 1, 'the foreground tree')
  const ended = once(foreground, 'close')
  process.kill(foreground.pid ?? 0, 'SIGINT')
  t.same(await ended, [0, null])

  await pidOf()
  const dead = JSON.parse((await browse('--stop', '--json', tree)).stdout)
  t.equal(dead.path, tree)
  t.same([mounts(), views()], [[], []])
})

t.test('browse: stops a tree whose process was killed', async (t) => {
  process.kill(await pidOf(), 'SIGKILL')
  await until(() => mounts().length === 1, 'the dead mount')
  t.equal((await browse('--stop', tree)).code, 0)
  t.same(mounts(), [])
})

t.test('browse: nothing is in the way of unmounting the volumes', async () => {
  await kept.volume.unmount()
  await points.volume.unmount()
})
