/**
 * The recipes that are configuration: units are verified and their command is run, the line of the
 * crontab is run, borgmatic reads its configurations and backs up by them, and the scripts of a Bareos
 * job are run in order around a reader of its file set.
 */
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { listSnapshots } from '../../src/index.js'
import { makeImage } from '../harness/image.js'
import { broken, Ledgers } from '../harness/ledgers.js'
import { blocksOf, Machine } from '../harness/recipes.js'
import { attempt, run } from '../harness/run.js'
import { openSandbox } from '../harness/sandbox.js'
import { mountVolume, unmountVolume } from '../harness/volume.js'

t.setTimeout(600_000)
const sandbox = await openSandbox(t)
const image = await makeImage(sandbox, { fs: 'ext4', mib: 4096 })
const fill = (dir: string) => ['left', 'right'].map((name) => mkdirSync(join(dir, name)))
const data = await mountVolume(sandbox, image, { name: 'data', fill })
const machine = new Machine(sandbox, data.dir)
const places = (tree: string) => ({ left: join(tree, 'left'), right: join(tree, 'right') })
const ledgers = new Ledgers(join(sandbox.root, 'ack'))
await ledgers.start(places(data.dir))
for (const page of ['restic', 'borg']) await machine.run(machine.script(page, 'Once'), { page })

/** Snapshots of restic's repository. */
async function resticBackups(): Promise<number> {
  const script = 'restic snapshots --json 2>/dev/null'
  return (JSON.parse(await machine.run(script, { page: 'restic' })) as unknown[]).length
}

async function borgArchives(): Promise<string[]> {
  const said = await machine.run("borg list --format '{archive}{NL}'", { page: 'borg' })
  return said.split('\n').filter((line) => line !== '')
}

/** What the last archive has is what one instant can have shown. */
async function checkBorg(t: Tap, source: string): Promise<void> {
  const [last = ''] = (await borgArchives()).slice(-1)
  const target = `/restore/${last}`
  const script = `mkdir -p ${target}; cd ${target}; borg extract '::${last}'`
  await machine.run(script, { page: 'borg' })
  t.same(broken(places(machine.path(`${target}${source}`))), [], `${last}: nothing is broken`)
}
type Tap = Pick<typeof t, 'same'>

await t.test('recipes: systemd', async (t) => {
  const [service, timer] = blocksOf('systemd').map(({ text }) => text)
  const units = join(sandbox.root, 'units')
  mkdirSync(units)
  const paths = ['service', 'timer'].map((type) => join(units, `holdfast-backup.${type}`))
  for (const [k, text] of [service, timer].entries())
    writeFileSync(paths[k] ?? '', machine.path(text ?? ''))
  const verdict = await attempt('systemd-analyze', ['verify', '--man=no', ...paths])
  const ours = verdict.stderr.split('\n').filter((line) => line.includes('holdfast-backup'))
  t.same([verdict.code, ours], [0, []], 'the units are right')
  const [, when = ''] = /OnCalendar=(.*)/.exec(timer ?? '') ?? []
  await run('systemd-analyze', ['calendar', when])
  const [, command = ''] = /ExecStart=(.*)/.exec(service ?? '') ?? []
  const env = [...(service ?? '').matchAll(/^Environment=(.*)$/gm)].map(([, each]) => each)
  await machine.run(`env ${env.join(' ')} ${command}`, { page: 'systemd' })
  t.equal(await resticBackups(), 1, 'its command backs up')
})

await t.test('recipes: cron', async (t) => {
  const [{ text = '' } = {}] = blocksOf('cron')
  const [, command = ''] = /^[\d* ]+ root (.*)$/m.exec(text) ?? []
  const env = text.split('\n').filter((line) => /^RESTIC\w+=/.test(line))
  const said = await machine.run(`env ${env.join(' ')} ${command}`, { page: 'cron' })
  t.equal(said, '', 'nothing is said')
  t.equal(await resticBackups(), 2)
})

await t.test('recipes: borgmatic', async (t) => {
  const [around, hooks, commands] = blocksOf('borgmatic')
  const path = '/etc/holdfast/borgmatic.yaml'
  const configure = (text = '') => writeFileSync(machine.path(path), machine.path(text))
  const page = 'borgmatic'
  configure(hooks?.text)
  await machine.run(`validate-borgmatic-config --config ${path}`, { page })
  await machine.run(`borgmatic --config ${path} create`, { page })
  t.equal((await borgArchives()).length, 1, 'its hooks')
  await checkBorg(t, '/run/holdfast/borgmatic')
  t.same(listSnapshots(), [], 'nothing is left')
  // A borg that fails: the hook for errors clears up.
  configure(hooks?.text.replace('/backup/borg', '/backup/none'))
  t.not((await machine.attempt(`borgmatic --config ${path} create`, { page })).code, 0)
  t.same(listSnapshots(), [], 'nor of a failure')
  const plain = hooks?.text.replace(/^hooks:[\s\S]*/m, '').replace('borgmatic', 'exec/data')
  configure(plain)
  await machine.run(around?.text ?? '', { page })
  await checkBorg(t, '/run/holdfast/exec/data')
  // The newer form: the same commands as the older one.
  const lines = (text = '') =>
    [...text.matchAll(/- (holdfast .*?)(?: \|\| true)?$/gm)].map(([, each]) => each)
  t.same(lines(commands?.text), lines(hooks?.text).slice(0, 4))
})

await t.test('recipes: Bareos', async (t) => {
  const [{ text = '' } = {}] = blocksOf('bareos')
  const page = 'bareos'
  const scripts = [...text.matchAll(/RunScript \{([\s\S]*?)\}/g)].map(([, body = '']) => ({
    after: /RunsWhen = After/.test(body),
    mustSucceed: /FailJobOnError = yes/.test(body),
    commands: [...body.matchAll(/Command = "(.*)"/g)].map(([, command = '']) => command),
  }))
  const [, source = ''] = /File = "(.*)"/.exec(text) ?? []
  const runAll = async (after: boolean) => {
    for (const script of scripts.filter((each) => each.after === after)) {
      for (const command of script.commands) {
        const { code, stderr } = await machine.attempt(command, { page })
        if (script.mustSucceed || after) t.equal(code, 0, `${command} ${stderr}`)
      }
    }
  }
  // The second time as after a job that was cut off.
  await runAll(false)
  await runAll(false)
  await run('cp', ['-a', machine.path(source), join(sandbox.root, 'read')])
  t.same(broken(places(join(sandbox.root, 'read'))), [], 'what its file set has is one instant')
  await runAll(true)
  t.same(listSnapshots(), [], 'nothing is left')
  t.notOk(readdirSync(machine.path('/run/holdfast')).includes('bareos'), 'nor the place')
})

await ledgers.stop()
await unmountVolume(data)
