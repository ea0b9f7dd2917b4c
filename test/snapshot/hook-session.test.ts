/**
 * Hooks without a volume: what was begun is undone whatever goes wrong around it, a log without room, an
 * error whose text no program can be told, one that cannot be started.
 */
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import type { HookEnd } from '../../src/snapshot/hook-run.js'
import { aroundSnapshot, HookSession } from '../../src/snapshot/hook-session.js'
import { findHooks } from '../../src/snapshot/hooks.js'

const root = mkdtempSync(join(tmpdir(), 'holdfast-hooks-'))
t.teardown(() => rmSync(root, { recursive: true, force: true }))
const directory = join(root, 'hooks.d')
const told = join(root, 'told')
const toldLines = () => readFileSync(told, 'utf8').trimEnd().split('\n')

interface Wanted {
  scripts: Record<string, string>
  onEnd?(end: HookEnd): void
  labels?: Record<string, string>
}

/** A snapshot of nothing, between these hooks; how it has ended. */
async function around(
  { scripts, onEnd, labels = {} }: Wanted,
  take: () => Promise<string>,
): Promise<{ session: HookSession; taken: unknown }> {
  rmSync(directory, { recursive: true, force: true })
  writeFileSync(told, '')
  mkdirSync(directory)
  for (const [name, script] of Object.entries(scripts)) {
    writeFileSync(join(directory, name), `#!/bin/bash\n${script}\n`)
    chmodSync(join(directory, name), 0o755)
  }
  const session = new HookSession({
    hooks: findHooks([{ directory, optional: false }], []),
    subject: { snapshot: 's', volumes: [], labels, maxHoldMs: 500, dryRun: false },
    ...(onEnd === undefined ? {} : { onEnd }),
  })
  const taken = await aroundSnapshot(session, { check: async () => {}, take }).catch(
    (error: unknown) => error,
  )
  return { session, taken }
}

const tells = (name: string) => `echo "${name} $1 $HOLDFAST_RESULT" >>${told}`

await t.test('hooks: a log without room keeps nothing from being undone', async (t) => {
  const noRoom = () => {
    throw Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' })
  }
  const scripts = { '10-first': tells('first'), '20-second': tells('second') }
  const { taken } = await around({ scripts, onEnd: noRoom }, async () => 'taken')
  t.equal(taken, 'taken', 'nor from being taken')
  const pre = ['first pre-snapshot ', 'second pre-snapshot ']
  t.strictSame(toldLines(), [...pre, 'second post-snapshot taken', 'first post-snapshot taken'])
  const failed = await around({ scripts, onEnd: noRoom }, async () => {
    throw new Error('there is none')
  })
  t.match(failed.taken, { message: 'there is none' })
  t.strictSame(toldLines(), [
    ...pre,
    'second post-snapshot failed',
    'first post-snapshot failed',
    'first failure failed',
    'second failure failed',
  ])
})

await t.test('hooks: whatever the error says, hooks are told of it', async (t) => {
  const scripts = {
    '10-first': `echo "$1 \${#HOLDFAST_ERROR} \${HOLDFAST_ERROR:0:40}" >>${told}`,
    '20-fails': `[ "$1" = pre-snapshot ] || exit 0; printf 'a\\0b\\n' >&2; exit 1`,
  }
  const { taken, session } = await around({ scripts }, async () => 'never')
  t.match(taken, { code: 'HOOK_FAILED', message: /exit code 1: a\0b$/ })
  t.match(toldLines()[1], /^post-snapshot \d+ hook 20-fails failed in pre-snapshot: ex/)
  t.same(
    session.runs.filter(({ result }) => result !== 'ok').map(({ hook, phase }) => [hook, phase]),
    [['20-fails', 'pre-snapshot']],
  )
  const long = { '10-first': scripts['10-first'] }
  await around({ scripts: long }, async () => {
    throw new Error('ä'.repeat(300_000))
  })
  t.match(toldLines()[1], /^post-snapshot 32768 ä/, 'more than one variable can have')
})

await t.test('hooks: one that cannot be started has failed, and is undone', async (t) => {
  // More than all variables together can have: spawn() throws.
  const labels = Object.fromEntries([...Array(400)].map((_, n) => [`l${n}`, 'x'.repeat(30_000)]))
  const scripts = { '10-first': tells('first'), '20-second': tells('second') }
  const { taken, session } = await around({ scripts, labels }, async () => 'never')
  t.match(taken, { code: 'HOOK_FAILED', message: /10-first failed in pre-snapshot: not started: / })
  t.match(
    session.runs.map(({ hook, phase, result }) => [hook, phase, result]),
    [
      ['10-first', 'pre-snapshot', 'failed'],
      ['10-first', 'post-snapshot', 'failed'],
      ['10-first', 'failure', 'failed'],
      ['20-second', 'failure', 'failed'],
    ],
    'all are tried',
  )
})
