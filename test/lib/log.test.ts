/** Logs: to log never fails, whatever becomes of the lines. */
import { closeSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { type Logger, makeLogger } from '../../src/lib/log.js'
import { projectFile } from '../harness/files.js'
import { bash, run } from '../harness/run.js'
import { openSandbox } from '../harness/sandbox.js'

const sandbox = await openSandbox(t)

interface Line {
  msg: string
}

await t.test('log: a full disk costs lines, and nothing else', async (t) => {
  const small = join(sandbox.root, 'small')
  await run('mkdir', [small])
  await run('mount', ['-t', 'tmpfs', '-o', 'size=16k', 'holdfast-test', small])
  const file = join(small, 'log')
  const fd = openSync(file, 'a')
  const log: Logger = makeLogger({ fd, level: 'info' })
  log.info('first')
  const ballast = join(small, 'ballast')
  await bash(`head -c 1M /dev/zero >${ballast} 2>/dev/null || true`)
  for (let n = 0; n < 200; n += 1) log.info({ n, filling: 'x'.repeat(100) }, 'into what is left')
  for (let n = 0; n < 200; n += 1) log.error({ error: new Error('ENOSPC') }, 'lost')
  t.equal(readFileSync(file).length % 4096, 0, 'it is full to the last byte')
  rmSync(ballast)
  log.info('there is room again')
  closeSync(fd)
  log.info('nobody reads this')
  const lines = readFileSync(file, 'utf8').trimEnd().split('\n')
  const [first, last] = [lines[0], lines.at(-1)].map((text) => JSON.parse(text ?? '') as Line)
  t.equal(first?.msg, 'first')
  t.equal(last?.msg, 'there is room again', 'a line of its own, after one that was torn')
  t.throws(() => JSON.parse(lines.at(-2) ?? ''), 'which is where the disk was full')
})

await t.test('log: a reader that is gone, or does not read', async (t) => {
  const script = join(sandbox.root, 'speaks.mjs')
  const logs = projectFile('dist/src/lib/log.js')
  writeFileSync(
    script,
    `import { writeFileSync } from 'node:fs'
import { makeLogger } from ${JSON.stringify(logs)}
// Makes what it writes to non-blocking, as soon as it is a pipe.
process.stderr.on('error', () => {})
const log = makeLogger({ fd: 2 })
const begun = performance.now()
for (let n = 0; n < 2000; n += 1) log.warn({ n, filling: 'x'.repeat(100) }, 'said')
writeFileSync(process.argv[2], String(performance.now() - begun))
process.exit(0)
`,
  )
  const told = join(sandbox.root, 'told')
  await bash(`node ${script} ${told} 2>&1 >/dev/null | true`)
  t.ok(Number(readFileSync(told, 'utf8')) > 0, 'gone')
  rmSync(told)
  await bash(
    `node ${script} ${told} 2>&1 >/dev/null | (while [ ! -s ${told} ]; do sleep 0.1; done)`,
  )
  const ms = Number(readFileSync(told, 'utf8'))
  t.ok(ms > 500 && ms < 20_000, `does not read: ${ms} ms, not for each line`)
})
