import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { appendFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { CLI, exists, Home } from '../fixture.js'

t.test('replay: continues after SIGKILL, and later with what is new', async (t) => {
  const home = new Home(t)
  home.copyBase()
  const volume = await home.mount()
  for (let index = 0; index < 400; index += 1) {
    writeFileSync(join(home.data, `file${index % 40}`), Buffer.alloc(100_000, index))
  }
  const args = ['journal', 'replay', 'data', '--onto', home.base, '--keep-state']
  for (const ms of [700, 900]) {
    const child = spawn(process.execPath, [CLI, ...args], { stdio: 'ignore' })
    setTimeout(() => child.kill('SIGKILL'), ms)
    await once(child, 'exit')
  }
  await home.ok(...args)
  t.equal(home.differences(home.data, home.base), '')
  t.ok(exists(`${home.base}.holdfast-replay`))

  appendFileSync(join(home.data, 'file1'), 'new')
  const { records } = JSON.parse(await home.ok(...args, '--json'))
  t.ok(records < 100, `${records} records: only what is new`)
  t.equal(home.differences(home.data, home.base), '')
  await home.ok('journal', 'replay', 'data', '--onto', home.base)
  t.notOk(exists(`${home.base}.holdfast-replay`), 'the state goes at the end')
  await volume.unmount()
})

t.test('replay: up to a seq', async (t) => {
  const home = new Home(t)
  home.copyBase()
  const volume = await home.mount()
  writeFileSync(join(home.data, 'one'), '1')
  await volume.flush()
  const { seq } = (await home.status()).captured
  writeFileSync(join(home.data, 'two'), '2')
  const onto = ['journal', 'replay', 'data', '--onto', home.base]
  await home.ok(...onto, '--to-seq', `${seq}`)
  t.ok(exists(join(home.base, 'one')))
  t.notOk(exists(join(home.base, 'two')))
  await home.ok(...onto)
  t.ok(exists(join(home.base, 'two')))
  await volume.unmount()
})

t.test('replay: says when the journal does not reach back any more', async (t) => {
  const home = new Home(t)
  home.copyBase()
  const volume = await home.mount()
  for (let index = 0; index < 3; index += 1) {
    writeFileSync(join(home.data, `file${index}`), 'x')
    await volume.flush()
  }
  await home.ok('journal', 'prune', 'data', '--to-seq', '3')
  const { code, stderr } = await home.holdfast('journal', 'replay', 'data', '--onto', home.base)
  t.equal(code, 4)
  t.match(stderr, /journal begins after seq \d+, the target is at 0 \[PRUNED\]/)
  await volume.unmount()
})
