/**
 * A whole group brought back to one cut: all hosts or none begin; who is not allowed changes nothing; what was
 * done can be undone; a host that is lost in the middle is told, and the same command ends it.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { HostRestored } from '../../src/daemon/group-restore.js'
import { until } from '../harness/faults.js'
import { HOLDFAST } from '../harness/files.js'
import { brokenInTrees, endChains, endMembers, makeMembers, startChains } from '../harness/group.js'
import { type Host, makeSwitched } from '../harness/hosts.js'
import { makeImage } from '../harness/image.js'
import { openSandbox } from '../harness/sandbox.js'

const CHAINS = 3
const MANY = 4_000

t.setTimeout(400_000)
const sandbox = await openSandbox(t)
const image = await makeImage(sandbox, { fs: 'xfs', mib: 2048 })
const hosts = await makeSwitched(sandbox, ['hub', 'one', 'two'])
const [hub, one, two] = hosts as [Host, Host, Host]
const members = await makeMembers(sandbox, image, { hosts })
t.teardown(() => endMembers(members))
await hub.holdfast('group', 'create', 'shop', 'v0', 'one/v1', 'two/v2')
const dirs = members.map(({ dir }) => dir)
const snapshot = (name: string) =>
  hub.holdfast('group', 'snapshot', 'create', 'shop', '--name', name)
const restore = (to: string, ...flags: string[]) =>
  hub.tryHoldfast('group', 'restore', 'shop', '--to-snapshot', to, ...flags)
const write = (text: string) => {
  for (const dir of dirs) writeFileSync(join(dir, 'file'), text)
}
const files = () => dirs.map((dir) => readFileSync(join(dir, 'file'), 'utf8'))
const all = (text: string) => dirs.map(() => text)
const allow = (host: Host, ...flags: string[]) =>
  host.holdfast('peer', 'allow', 'hub', '--all', ...flags)

write('good')
const chains = await startChains(members, CHAINS)
await snapshot('good')
await endChains(chains)

await t.test('group restore: who may', async (t) => {
  write('bad')
  const refused = await restore('good')
  t.match(refused, {
    code: 4,
    stderr: /(one|two): hub may not restore v\d on .*nothing was changed/,
  })
  t.match(refused.stderr, /peer allow hub v\d --restore/)
  await allow(one, '--restore')
  t.match(await restore('good'), { code: 4, stderr: /two: hub may not restore v2/ })
  t.same(files(), all('bad'), 'nothing was changed anywhere')
  await allow(two, '--restore')
  t.match(await restore('none'), { code: 3, stderr: /shop has no snapshot none/ })
})

await t.test('group restore: in place, and undone', async (t) => {
  const planned = await restore('good', '--dry-run')
  t.match(planned, { code: 0, stdout: /one: v1 would be: \d+ changed/ })
  t.same(files(), all('bad'))
  const { code, stdout, stderr } = await restore('good', '--snapshot-first', 'before')
  t.equal(code, 0, stderr)
  t.match(stdout, /one: v1 restored in \S+v1: \d+ objects.*\ntwo: v2 restored/)
  t.match(stderr, /undo it: holdfast group restore shop --to-snapshot before/)
  t.same(files(), all('good'))
  t.equal(brokenInTrees(dirs, CHAINS), 0, 'the trees are one cut')
  t.match(await restore('before'), { code: 0 })
  t.same(files(), all('bad'), 'as it was before')
  const told = await restore('good', '--json')
  const { hosts: done } = JSON.parse(told.stdout) as { hosts: HostRestored[] }
  t.same(
    done.map(({ volumes, error }) => [volumes[0]?.volume, volumes[0]?.undone, error]),
    [
      ['v0', 0, null],
      ['v1', 0, null],
      ['v2', 0, null],
    ],
  )
})

await t.test('group restore: as copies', async (t) => {
  const output = join(image.dir, 'restored')
  const refused = await restore('good', '--output', output)
  t.match(refused, { code: 4, stderr: /may not make copies in .*--restore-to/s })
  await allow(one, '--restore-to', output)
  await allow(two, '--restore-to', image.dir)
  write('now')
  t.match(await restore('good', '--output', join(output, '..', 'other')), {
    code: 4,
    stderr: /one: hub may not make copies/,
  })
  t.match(await restore('good', '--output', 'relative'), { code: 2 })
  t.notOk(existsSync(output))
  t.match(await restore('good', '--output', output), { code: 0 })
  const copies = ['v0', 'v1', 'v2'].map((name) => join(output, name))
  t.same(readdirSync(output).sort(), ['v0', 'v1', 'v2'])
  t.same(
    copies.map((copy) => readFileSync(join(copy, 'file'), 'utf8')),
    all('good'),
  )
  t.equal(brokenInTrees(copies, CHAINS), 0)
  t.same(files(), all('now'), 'the volumes are as they were')
  for (const copy of copies.slice(1)) rmSync(copy, { recursive: true })
  const full = await restore('good', '--output', output)
  t.match(full, { code: 4, stderr: /v0 is not empty; nothing was changed on any host/ })
  t.same(readdirSync(output), ['v0'])
  t.match(
    await restore('good'),
    { code: 4, stderr: /one: hub may not restore/ },
    'but not in place',
  )
})

await t.test('group restore: a host that cannot, and one that is lost', async (t) => {
  for (const host of [one, two]) await allow(host, '--restore')
  const many = join(dirs[1] ?? '', 'many')
  mkdirSync(many)
  for (let n = 0; n < MANY; n += 1) writeFileSync(join(many, `${n}`), `${n}`)
  write('whole')
  await snapshot('whole')
  rmSync(many, { recursive: true })
  write('bad')
  await two.stopServing()
  t.match(await restore('whole'), { code: 1, stderr: /two: cannot connect/ })
  await two.startAgain()
  t.same(files(), all('bad'), 'nothing was changed')
  const child = hub.start(process.execPath, [
    ...[HOLDFAST, 'group', 'restore', 'shop', '--to-snapshot', 'whole'],
  ])
  let stderr = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr += text
  })
  const ended = new Promise((resolve) => child.once('close', resolve))
  await until(() => existsSync(many) && readdirSync(many).length > 10, 'it to begin', 60_000)
  await one.stopServing('SIGKILL')
  t.equal(await ended, 1)
  t.match(stderr, /error: one: .*\n.*not all was restored on one; .*two are done.*RESTORE_FAILED/)
  t.ok(readdirSync(many).length < MANY, `${readdirSync(many).length} of ${MANY} were restored`)
  t.equal(files()[2], 'whole')
  await one.startAgain()
  t.match(await restore('whole'), { code: 0 }, 'the same command again')
  t.same(files(), all('whole'))
  t.equal(readdirSync(many).length, MANY)
  await two.holdfast('snapshot', 'destroy', 'whole')
  write('bad')
  const lacking = await restore('whole')
  t.match(lacking, { code: 3, stderr: /two: .* has no such snapshot of v2; nothing was changed/ })
  t.same(files(), all('bad'))
})
