import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { CLI, execute, Home } from '../fixture.js'

const COMMANDS = [
  ['mount'],
  ['unmount'],
  ['status'],
  ['list'],
  ['journal'],
  ['journal', 'tail'],
  ['journal', 'show'],
  ['journal', 'stat'],
  ['journal', 'verify'],
  ['journal', 'prune'],
  ['journal', 'replay'],
  ['recapture'],
  ['snapshot'],
  ['snapshot', 'create'],
  ['snapshot', 'list'],
  ['snapshot', 'show'],
  ['snapshot', 'destroy'],
  ['snapshot', 'hooks'],
  ['snapshot', 'prune'],
  ['snapshot', 'schedule'],
  ['snapshot', 'schedule', 'set'],
  ['snapshot', 'schedule', 'list'],
  ['snapshot', 'schedule', 'remove'],
  ['browse'],
  ['doctor'],
]
const run = (...args: string[]) => execute(process.execPath, [CLI, ...args])

t.test('cli: every command has help, with an example', async (t) => {
  const helps = await Promise.all([[], ...COMMANDS].map((command) => run(...command, '--help')))
  for (const { code, stdout } of helps) {
    t.equal(code, 0)
    t.match(stdout, /Examples?:\n {2}holdfast /, stdout)
    t.ok(stdout.split('\n').every((line) => line.length <= 110))
  }
})

t.test('cli: exit codes and errors in at most three lines', async (t) => {
  const home = new Home(t)
  const cases: [number, RegExp, string[]][] = [
    [2, /unknown command/, ['mont']],
    [2, /missing required argument/, ['mount']],
    [2, /unknown option/, ['status', '--nonsense']],
    [2, /Give a size/, ['mount', home.data, '--ring-size', 'big']],
    [2, /nothing to prune by/, ['journal', 'prune', 'data']],
    [3, /no volume data .*\n {2}See what there is: holdfast list/, ['status', 'data']],
    [3, /no volume is mounted/, ['status']],
    [3, /no volume/, ['journal', 'tail', '/no/such/path']],
  ]
  for (const [expected, text, args] of cases) {
    const { code, stderr, stdout } = await run(...args)
    t.equal(code, expected, args.join(' '))
    t.match(stderr, text)
    t.ok(stderr.trimEnd().split('\n').length <= 4, stderr)
    t.notMatch(stderr, /\n\s+at /, 'no stack')
    t.equal(stdout, '')
  }
  const debug = await execute(process.execPath, [CLI, 'status', 'data'], { HOLDFAST_DEBUG: '1' })
  t.match(debug.stderr, /\n\s+at /)
})

t.test('cli: version and doctor', async (t) => {
  new Home(t)
  t.match((await run('--version')).stdout, /^\d+\.\d+\.\d+\n$/)
  t.match(JSON.parse((await run('version', '--json')).stdout), { holdfast: /^\d/ })
  const { code, stdout } = await run('doctor', '/', '--json')
  const checks = JSON.parse(stdout)
  t.equal(code, checks.some(({ level }: { level: string }) => level === 'fail') ? 4 : 0)
  t.match((await run('doctor')).stdout, /^ok {4}holdfast: /)
})

t.test('cli: journal tail, show, stat, verify and prune', async (t) => {
  const home = new Home(t)
  await home.ok('mount', home.data)
  writeFileSync(join(home.data, 'a file'), 'hello')
  writeFileSync(Buffer.concat([Buffer.from(join(home.data, 'b')), Buffer.of(0xfe)]), '')
  const text = await home.ok('journal', 'tail', 'data')
  t.match(text, /root .*\[\d+\] +create +a file +mode 0644\n/)
  t.match(text, /write +a file +0\+5\n/)
  t.match(text, /create +b\\376 /)
  const lines = (await home.ok('journal', 'tail', 'data', '--json')).trim().split('\n')
  const changes = lines.map((line) => JSON.parse(line))
  t.match(changes, [
    { verb: 'create', path: 'a file', uid: 0 },
    { verb: 'write', offset: 0, length: 5 },
    { verb: 'create', path: 'b\\376', pathBase64: 'Yv4=' },
  ])
  t.equal((await home.ok('journal', 'tail', 'data', '-n', '1')).trim().split('\n').length, 1)
  t.equal(await home.ok('journal', 'tail', 'data', '--since', '2100-01-01'), '')
  const { seq } = changes[1]
  const shown = JSON.parse(await home.ok('journal', 'show', 'data', `${seq}`, '--json'))
  t.match(shown, { seq, op: 'WRITE', path: 'a file', text: 'hello', fields: { offset: 0 } })
  t.equal(await home.ok('journal', 'show', 'data', `${seq}`, '--payload'), 'hello')
  t.match(await home.ok('journal', 'show', 'data', `${seq}`, '--frame'), /WRITE/)
  t.equal((await home.holdfast('journal', 'show', 'data', '99999')).code, 3)
  t.match(JSON.parse(await home.ok('journal', 'stat', 'data', '--json')), { complete: true })
  t.match(JSON.parse(await home.ok('journal', 'verify', 'data', '--json')), { problemCount: 0 })
  t.match(await home.ok('journal', 'prune', 'data', '--max-age', '1h'), /pruned 0 frames/)
  t.match(await home.ok('recapture', 'data'), /captured \d+ of \d+ objects/)
  await home.ok('unmount', 'data')
  t.match(await home.ok('journal', 'prune', 'data', '--to-seq', '1'), /pruned/)
})
