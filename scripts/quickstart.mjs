// The main job, live and in under a minute: protect a directory, work in it, kill the daemon in the
// middle, recover, replay the journal onto a copy of the base, compare, ship it to a replica. Everything it makes is in
// one temporary directory and is removed at the end, also after a failure.
import { execFileSync, spawn } from 'node:child_process'
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const cli = join(root, 'dist/program/cli/main.js')
const treecmp = join(root, 'test/tools/target/release/treecmp')
const home = fs.mkdtempSync(join(tmpdir(), 'holdfast-quickstart-'))
const data = join(home, 'data')
const copy = join(home, 'copy')
const env = {
  ...process.env,
  HOLDFAST_STATE_ROOT: join(home, 'state'),
  HOLDFAST_RUN_DIR: join(home, 'run'),
}
/** A second host, as far as holdfast is concerned: state, run directory and identity of its own. */
const other = {
  ...process.env,
  HOLDFAST_STATE_ROOT: join(home, 'other', 'state'),
  HOLDFAST_RUN_DIR: join(home, 'other', 'run'),
}
const replicas = join(home, 'other', 'replicas')
let server
const colour = process.stdout.isTTY === true && !process.env.NO_COLOR
const bold = (text) => (colour ? `\u001b[1m${text}\u001b[22m` : text)
const dim = (text) => (colour ? `\u001b[2m${text}\u001b[22m` : text)
const begun = performance.now()

function step(text) {
  console.log(`\n${bold(text)}`)
}

/** Runs a command; its output is returned, and shown with `show`. */
function run(command, args, { show = false, input, on = env } = {}) {
  const options = { env: on, input, stdio: ['pipe', 'pipe', show ? 'inherit' : 'pipe'] }
  const output = execFileSync(command, args, options)
  const text = output.toString().trimEnd()
  if (show && text !== '') console.log(text.replace(/^/gm, '    '))
  return text
}

/** Runs holdfast, saying how to type it. */
function holdfast(args, { show = true, on = env } = {}) {
  const host = on === other ? 'replica ' : ''
  const typed = args
    .join(' ')
    .replaceAll(home, '…')
    .replace(/(holdfast-.{12})\S+/, '$1…')
  console.log(dim(`  ${host}$ holdfast ${typed}`))
  return run(process.execPath, [cli, ...args], { show, on })
}

/** The replica host, as a service would run it; resolves when it listens. */
async function startReplicaHost(address) {
  const args = ['replica', 'serve', '--listen', address, '--root', replicas]
  console.log(dim(`  replica $ holdfast ${args.join(' ').replaceAll(home, '…')} &`))
  server = spawn(process.execPath, [cli, ...args], {
    env: other,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let said = ''
  await new Promise((resolve, reject) => {
    server.stderr.on('data', (piece) => {
      said += piece
      if (said.includes('"serving"')) resolve()
    })
    server.once('exit', () => reject(new Error(`the replica server ended: ${said}`)))
  })
  server.removeAllListeners('exit')
}

const status = () => JSON.parse(run(process.execPath, [cli, 'status', 'quickstart', '--json']))
const mib = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`
const sql = (statements) => run('sqlite3', [join(data, 'shop.db')], { input: statements })

function showJournal(what) {
  const { captured, journal, totals } = status()
  const { usedBytes, frames } = journal
  console.log(
    `    ${what}: ${captured.seq} changes captured, journal ${mib(usedBytes)} in ${frames} frames, ` +
      `${totals.requests} requests answered`,
  )
}

function makeBase() {
  fs.mkdirSync(join(data, 'etc'), { recursive: true })
  for (let index = 0; index < 50; index += 1) {
    fs.writeFileSync(join(data, 'etc', `conf-${index}`), `setting = ${index}\n`)
  }
  fs.writeFileSync(join(data, 'old.log'), 'from before\n'.repeat(1000))
}

function filesOfAllKinds() {
  const at = (name) => join(data, 'kinds', name)
  fs.mkdirSync(join(data, 'kinds'))
  fs.writeFileSync(at('plain'), Buffer.alloc(3 << 20, 'holdfast '))
  fs.linkSync(at('plain'), at('hard-link'))
  fs.symlinkSync('../etc/conf-1', at('symbolic-link'))
  fs.chmodSync(at('plain'), 0o640)
  fs.chownSync(at('plain'), 1000, 1000)
  fs.utimesSync(at('plain'), 1_000_000_000, 1_000_000_000.5)
  const sparse = fs.openSync(at('sparse'), 'w')
  fs.writeSync(sparse, 'start', 0)
  fs.writeSync(sparse, 'far away', 64 << 20)
  fs.closeSync(sparse)
  run('mkfifo', [at('queue')])
  run('mknod', [at('device'), 'c', '1', '3'])
  run('setfattr', ['-n', 'user.origin', '-v', 'quickstart', at('plain')])
  // A name is bytes, not text.
  fs.writeFileSync(Buffer.concat([Buffer.from(`${at('bytes-')}`), Buffer.of(0xff, 0x0a)]), 'x')
  fs.truncateSync(join(data, 'old.log'), 100)
}

function renameHeavyTree() {
  const tree = join(data, 'tree')
  for (let index = 0; index < 100; index += 1) {
    fs.mkdirSync(join(tree, `d${index % 10}`, `e${index}`), { recursive: true })
    fs.writeFileSync(join(tree, `d${index % 10}`, `e${index}`, 'file'), `${index}`)
  }
  for (let index = 0; index < 100; index += 1) {
    const from = join(tree, `d${index % 10}`, `e${index}`)
    const to = join(tree, `d${(index * 7) % 10}`, `moved${index}`)
    fs.renameSync(from, to)
    fs.renameSync(join(to, 'file'), join(tree, `file${index}`))
  }
  fs.rmSync(join(tree, 'd3'), { recursive: true })
}

/** Applications that do not know about any of this: they work until something fails. */
function startApplications() {
  const quiet = { stdio: ['pipe', 'ignore', 'ignore'] }
  const shop = spawn('sqlite3', ['-bail', join(data, 'shop.db')], quiet)
  shop.stdin.on('error', () => {})
  for (let index = 0; index < 100_000; index += 1) {
    shop.stdin.write(`insert into orders(note) values ('order ${index}');\n`)
  }
  const logger = spawn(
    'bash',
    ['-c', `while echo line; do :; done >>"$1"`, 'logger', join(data, 'app.log')],
    quiet,
  )
  return () => {
    shop.kill('SIGKILL')
    logger.kill('SIGKILL')
  }
}

function cleanUp() {
  server?.kill('SIGKILL')
  try {
    execFileSync(process.execPath, [cli, 'unmount', 'quickstart', '--force'], {
      env,
      stdio: 'ignore',
    })
  } catch {
    // Not mounted, or dead: the mount goes all the same.
  }
  // The volume, and what keeps others from the replica's tree.
  for (const line of fs.readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    const at = line.split(' ')[4]
    if (at?.startsWith(`${home}/`)) run('umount', ['-l', at])
  }
  fs.rmSync(home, { recursive: true, force: true })
}

async function main() {
  step('1. A directory that applications use, and a copy of it as it is now')
  makeBase()
  run('cp', ['-a', data, copy])
  console.log(`    ${data}`)

  step('2. Protect it in place')
  holdfast(['mount', data, '--name', 'quickstart', '--ring-size', '64M'])

  step('3. Work in it: files of all kinds, renames, SQLite transactions')
  filesOfAllKinds()
  showJournal('files of all kinds')
  renameHeavyTree()
  showJournal('rename-heavy tree ')
  sql('create table orders(id integer primary key, note text);')
  for (let index = 0; index < 50; index += 1) {
    sql(`begin; insert into orders(note) values ('first ${index}'); commit;`)
  }
  showJournal('SQLite            ')
  holdfast(['journal', 'tail', 'quickstart', '-n', '6'])

  step('4. Kill the daemon with SIGKILL while SQLite and a logger write')
  const { pid } = status()
  const stopApplications = startApplications()
  await sleep(1000)
  process.kill(pid, 'SIGKILL')
  await sleep(300)
  stopApplications()
  console.log(`    kill -9 ${pid}`)
  try {
    fs.writeFileSync(join(data, 'unprotected'), '')
    throw new Error('the unprotected directory is reachable')
  } catch (error) {
    if (!['ENOTCONN', 'ECANCELED', 'ECONNABORTED'].includes(error.code)) throw error
    console.log(`    fails closed: applications get ${error.code}, never the unprotected tree`)
  }

  step('5. Start it again: the capture ring survived, nothing acknowledged is lost')
  holdfast(['mount', 'quickstart'])
  const check = sql('pragma integrity_check; select count(*) from orders;').split('\n')
  console.log(`    SQLite integrity check: ${check[0]}; ${check[1]} orders`)
  if (check[0] !== 'ok') throw new Error('SQLite says the database is damaged')
  fs.appendFileSync(join(data, 'etc', 'conf-0'), 'and work goes on\n')

  step('6. Check the journal, and replay it onto the copy of the base')
  holdfast(['journal', 'verify', 'quickstart'])
  holdfast(['journal', 'replay', 'quickstart', '--onto', copy])

  step('7. Compare both trees: data, holes, modes, owners, times, xattrs, links, names')
  console.log(dim('  $ treecmp …/data …/copy'))
  console.log(run(treecmp, [data, copy]).replace(/^/gm, '    '))

  step('8. A replica on another host: introduce the two, ship, wait, compare')
  const address = `127.0.0.1:${20_000 + (process.pid % 20_000)}`
  await startReplicaHost(address)
  const token = holdfast(['peer', 'token', '--address', address, '--name', 'replica'], {
    show: false,
    on: other,
  })
  holdfast(['peer', 'add', token, '--as', 'primary'])
  holdfast(['replicate', 'quickstart', '--to', 'replica'])
  fs.appendFileSync(join(data, 'etc', 'conf-1'), 'while the baseline is under way\n')
  holdfast(['wait', 'quickstart', '--for', 'applied'])
  holdfast(['replica', 'list'], { on: other })
  console.log(dim('  $ treecmp …/data …/other/replicas/quickstart/tree'))
  console.log(run(treecmp, [data, join(replicas, 'quickstart', 'tree')]).replace(/^/gm, '    '))

  step('9. A snapshot, a disaster, and the way back')
  holdfast(['snapshot', 'create', 'quickstart', '--name', 'before'])
  console.log(dim('  $ rm -rf …/data/*'))
  for (const name of fs.readdirSync(data)) {
    fs.rmSync(join(data, name), { recursive: true, force: true })
  }
  console.log(`    ${fs.readdirSync(data).length} entries are left`)
  const view = join(dirname(data), 'before')
  holdfast(['snapshot', 'mount', 'before', view])
  holdfast(['restore', 'quickstart', '--to-snapshot', 'before', '--yes'])
  console.log(dim('  $ treecmp …/before …/data'))
  console.log(run(treecmp, [view, data]).replace(/^/gm, '    '))
  holdfast(['snapshot', 'unmount', 'before'])

  step('10. Stop protecting it')
  holdfast(['unmount', 'quickstart'])
  const seconds = ((performance.now() - begun) / 1000).toFixed(0)
  console.log(`
${bold(`Done in ${seconds} s: the replayed copy, the replica and what was restored equal the tree.`)} For real use, as root:

    node ${cli.replace(`${process.cwd()}/`, '')} …     or: npm link, then holdfast …

    holdfast doctor /srv/data                 is this machine ready?
    cp -a /srv/data /backup/data              a base to replay onto
    holdfast mount /srv/data                  protect it
    holdfast status data --watch              follow it
    holdfast journal tail data -f             who changes what
    holdfast journal replay data --onto /backup/data
    holdfast replicate data --to replica1     docs/REPLICATION.md
    holdfast unmount data`)
}

try {
  await main()
} catch (error) {
  console.error(`\nquickstart failed: ${error.message}`)
  process.exitCode = 1
} finally {
  cleanUp()
}
