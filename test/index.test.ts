import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { HoldfastError, list, mount, open, printable } from '../src/index.js'
import { Home } from './fixture.js'

t.test('library: mount, follow changes, verify, replay, unmount', async (t) => {
  const home = new Home(t)
  home.copyBase()
  const volume = await mount({ dir: home.data, options: { ringBytes: 64 << 20 } })
  t.equal(volume.start?.isNew, true)
  t.equal((await volume.status()).state, 'protected')

  const controller = new AbortController()
  const seen: string[] = []
  const following = (async () => {
    for await (const change of volume.changes({ follow: true, signal: controller.signal })) {
      seen.push(`${change.verb} ${printable(change.path)}`)
      if (change.verb === 'write') controller.abort()
    }
  })()
  writeFileSync(join(home.data, 'file'), 'x')
  await following
  t.same(seen, ['create file', 'write file'])

  const seq = await volume.marker('here')
  t.ok((await volume.flush()) >= seq)
  t.equal((await volume.verify()).problemCount, 0)
  const replayed = await volume.replay({ onto: home.base })
  t.ok(replayed.appliedSeq >= seq)
  t.equal(home.differences(home.data, home.base), '')

  t.equal(open(home.data).name, 'data')
  t.equal(list().length, 1)
  await volume.unmount()
  await t.rejects(volume.status(), HoldfastError)
  await t.rejects(mount({ dir: join(home.path, 'none') }), { code: 'NOT_A_DIRECTORY' })
})
