/**
 * docs/examples/three-hosts.md, command by command: three hosts, PostgreSQL on one of them, orders that come in
 * all the while. Whatever is restored, by restic or from a snapshot, every file has its order in the database.
 */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { Postgres } from '../harness/databases.js'
import { HOLDFAST, projectFile } from '../harness/files.js'
import { type Host, makeSwitched } from '../harness/hosts.js'
import { makeImage } from '../harness/image.js'
import { run } from '../harness/run.js'
import { openSandbox } from '../harness/sandbox.js'

const PAUSE_MS = 5
/** Orders of which the last ones come in while the snapshot is taken. */
const ORDERS_MIN = 100

t.setTimeout(400_000)
const sandbox = await openSandbox(t)
const image = await makeImage(sandbox, { fs: 'xfs', mib: 3072 })
const hosts = await makeSwitched(sandbox, ['db', 'files1', 'files2'])
const [db, files1, files2] = hosts as [Host, Host, Host]
const RESTORE = join(sandbox.root, 'restore')
const VOLUMES = new Map([
  [db, 'db'],
  [files1, 'uploads'],
  [files2, 'invoices'],
])
const volumeOf = (host: Host) => VOLUMES.get(host) ?? ''

interface Step {
  heading: string
  /** Where the page says that it is run. */
  on: Host[]
  text: string
}

/** What the page has done, in its order. */
const page = readFileSync(projectFile('docs/examples/three-hosts.md'), 'utf8')
const steps: Step[] = []
for (const [, title, where = '', text = ''] of page.matchAll(
  /^## (.*)$|^On ([a-z0-9 ]+):\n\n```sh\n([\s\S]*?)^```$/gm,
)) {
  const heading = title ?? steps.at(-1)?.heading ?? ''
  const on = hosts.filter(({ name }) => where === name || where === 'every host')
  steps.push({ heading, on, text })
}
const stepsOf = (heading: RegExp) =>
  steps.filter((each) => each.text !== '' && heading.test(each.heading))
const [, program = ''] = /^```bash\n([\s\S]*?)^```$/m.exec(page) ?? []

/** A host's own /etc/holdfast, /backup and so on are in the sandbox; one /restore serves all. */
function placed(host: Host, text: string): string {
  const at = (path: string) => join(sandbox.root, host.name, path)
  return text
    .replaceAll(/files([12])\.example/g, (_, n) => (n === '1' ? files1 : files2).address)
    .replaceAll('/run/holdfast', host.env.HOLDFAST_RUN_DIR ?? '')
    .replaceAll(/\/backup(?=[/\s"'])/g, at('backup'))
    .replaceAll(/\/restore(?=[/\s"'])/g, RESTORE)
    .replaceAll('/etc/holdfast', at('etc'))
    .replaceAll('/var/cache', at('cache'))
    .replaceAll(/\/srv\/(db|uploads|invoices)\b/g, join(image.dir, '$1'))
    .replaceAll('holdfast mount ', `holdfast mount --ring ${sandbox.rings} --ring-size 64M `)
}

/** Runs what stands there on a host, as root there; what it said on stdout. */
async function onHost(host: Host, text: string): Promise<string> {
  const holdfast = `holdfast() { ${process.execPath} ${HOLDFAST} "$@"; }`
  return host.run('bash', ['-euo', 'pipefail', '-c', `${holdfast}\n${placed(host, text)}`])
}

async function perform(found: readonly Step[], change = (text: string) => text): Promise<string> {
  let said = ''
  for (const { on, text } of found) for (const host of on) said = await onHost(host, change(text))
  return said
}

for (const host of hosts) {
  const etc = join(sandbox.root, host.name, 'etc')
  mkdirSync(join(etc, 'group-exec.d'), { recursive: true })
  writeFileSync(join(etc, 'restic.password'), 'correct horse battery staple')
  writeFileSync(join(etc, 'group-exec.d', 'backup'), placed(host, program), { mode: 0o755 })
  host.env.HOLDFAST_GROUP_EXEC_DIR = join(etc, 'group-exec.d')
  mkdirSync(join(image.dir, volumeOf(host)))
}
const sockets = join(sandbox.root, 'sockets')
const live = new Postgres({ data: join(image.dir, 'db', 'main'), sockets })
const restored: string[] = []
t.teardown(async () => {
  await live.stop().catch(() => {})
  await live.halt('fast').catch(() => {})
  for (const data of restored) await endServer(data)
  for (const host of hosts) {
    await host.tryHoldfast('unmount', '--force', volumeOf(host))
    await host.stopServing()
  }
})

async function endServer(data: string): Promise<void> {
  const ctl = '/usr/lib/postgresql/15/bin/pg_ctl'
  const args = ['-D', data, '-w', '-s', '-m', 'fast', 'stop']
  await run('runuser', ['-u', 'postgres', '--', ctl, ...args], { cwd: '/' }).catch(() => {})
}

/** The files of an order are written when it is committed, the invoice last. */
function takeOrders(): { stop(): Promise<number> } {
  let going = true
  const follow = async () => {
    for (let done = 0; going || done < live.acknowledged; await sleep(PAUSE_MS / 2)) {
      for (; done < live.acknowledged; done += 1) {
        for (const place of ['uploads', 'invoices']) {
          writeFileSync(join(image.dir, place, `${done + 1}`), `order ${done + 1}\n`)
        }
      }
    }
  }
  live.start(PAUSE_MS)
  const ended = follow()
  return {
    stop: async () => {
      await live.stop()
      going = false
      await ended
      return live.acknowledged
    },
  }
}

const ordersAre = async (count: number) => {
  while (live.acknowledged < count) await sleep(20)
}

/** Files without an order, and invoices without an upload; of how many. */
function violations(rows: string, places: { uploads: string; invoices: string }) {
  const orders = new Set(rows.trim().split('\n'))
  const uploads = readdirSync(places.uploads)
  const invoices = readdirSync(places.invoices)
  const wrong = [
    ...uploads.filter((id) => !orders.has(id)),
    ...invoices.filter((id) => !uploads.includes(id)),
  ]
  return { wrong, orders: orders.size, uploads: uploads.length, invoices: invoices.length }
}

const places = (...below: string[]) => ({
  uploads: join(RESTORE, ...below, 'uploads'),
  invoices: join(RESTORE, ...below, 'invoices'),
})

await t.test('example: protected, and a group', async (t) => {
  await live.make()
  await live.halt('fast')
  await run('chown', ['postgres:postgres', join(image.dir, 'db')])
  await perform(stepsOf(/protect/))
  await live.boot()
  await live.sql('CREATE VIEW orders AS SELECT id FROM ledger')
  for (const host of [files1, files2]) await host.serve(join(image.dir, `${host.name}-replicas`))
  const tokens = new Map<string, string>()
  for (const { on, text } of stepsOf(/the group/)) {
    const [host] = on as [Host]
    const known = text.replaceAll(/TOKEN-OF-(\w+)/g, (_, name) => tokens.get(name) ?? '')
    tokens.set(host.name.toUpperCase(), (await onHost(host, known)).trim())
  }
  t.match(await db.holdfast('group', 'show', 'shop'), /files2\/invoices +protected/)
})

await t.test('example: backed up each night, and restored elsewhere', async (t) => {
  const orders = takeOrders()
  await ordersAre(ORDERS_MIN)
  await perform(stepsOf(/Every night/))
  await ordersAre(live.acknowledged + ORDERS_MIN)
  await sleep(1_000)
  await perform(stepsOf(/Every night/))
  await ordersAre(live.acknowledged + ORDERS_MIN)
  const all = await orders.stop()
  const [list, ...rest] = stepsOf(/Restore/)
  if (list === undefined) throw new Error('the page does not say which instants there are')
  const json = `${list.text.trim()} --json`
  const tags: string[][] = []
  for (const host of hosts) {
    const found = JSON.parse(await onHost(host, json)) as { tags: string[] }[]
    tags.push(found.map((each) => each.tags.find((tag) => tag !== 'shop') ?? ''))
  }
  t.equal(tags[0]?.length, 2)
  t.same(tags[1], tags[0], 'all hosts have the same instants')
  t.same(tags[2], tags[0])
  const repository = list.text.replace(/^restic.*$/m, '')
  const cut = `${repository}\nCUT=${tags[0]?.[0]}\n`
  restored.push(join(RESTORE, 'db', 'main'))
  const rows = await perform(rest, (text) => cut + text)
  const found = violations(rows, places())
  t.same(found.wrong, [], JSON.stringify({ all, ...found, wrong: [] }))
  t.ok(found.invoices >= ORDERS_MIN / 2 && found.orders < all, 'of the midst of it')
})

/** The orders in another copy of the cluster: PostgreSQL is started as the page starts it. */
async function rowsIn(copy: string): Promise<string> {
  const boot = stepsOf(/Restore/).slice(-1)
  for (const data of restored) await endServer(data)
  restored.push(join(RESTORE, copy, 'db', 'main'))
  return perform(boot, (text) => text.replaceAll('/restore/db', `/restore/${copy}/db`))
}

await t.test('example: from a snapshot', async (t) => {
  const [take, bring] = stepsOf(/From a snapshot/) as [Step, Step]
  const before = live.acknowledged
  const orders = takeOrders()
  await ordersAre(before + ORDERS_MIN)
  await perform([take])
  await ordersAre(live.acknowledged + ORDERS_MIN)
  for (const host of hosts) {
    await host.holdfast('snapshot', 'create', volumeOf(host), '--name', 'apart')
  }
  const all = await orders.stop()
  await perform([bring])
  const found = violations(await rowsIn('evening'), places('evening'))
  t.same(found.wrong, [], JSON.stringify({ all, ...found, wrong: [] }))
  t.ok(found.orders < all && found.invoices > ORDERS_MIN)
  for (const host of hosts) {
    const output = join(RESTORE, 'apart', volumeOf(host))
    await host.holdfast('restore', volumeOf(host), '--to-snapshot', 'apart', '--output', output)
  }
  const apart = violations(await rowsIn('apart'), places('apart'))
  t.ok(apart.wrong.length > 0, `${apart.wrong.length} wrong where each host has its own instant`)
})
