/** Where a restored copy may lie, whatever somebody does on the way to it while it is asked for. */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { CopyTarget } from '../../src/daemon/copy-target.js'
import type { Volume } from '../../src/daemon/registry.js'
import { HoldfastError } from '../../src/index.js'

const root = mkdtempSync(join(tmpdir(), 'holdfast-copy-'))
t.teardown(() => rmSync(root, { recursive: true }))
const at = (...names: string[]) => join(root, ...names)
const volume = { config: { mountpoint: at('volume'), backing: at('volume') } } as Volume
const OF = { uuid: 'u', seq: '7', path: Buffer.alloc(0) }
for (const name of ['volume', 'secret']) mkdirSync(at(name))
writeFileSync(at('secret', 'passwd'), 'root')

const target = (name: string) => {
  return new CopyTarget({ output: at('restore', name), below: at('restore') }, volume, OF)
}
function codeOf(act: () => unknown): string | undefined {
  try {
    act()
    return undefined
  } catch (error) {
    return error instanceof HoldfastError ? error.code : String(error)
  }
}
const untouched = () => readdirSync(at('secret')).join() === 'passwd'

t.test('copy: it is written where it was asked for, and goes on there', async (t) => {
  const copy = target('deep/er/www')
  writeFileSync(join(copy.begin().toString(), 'half'), '')
  copy.close()
  t.same(readdirSync(at('restore/deep/er')), ['www', 'www.holdfast-restore'])
  const again = target('deep/er/www')
  writeFileSync(join(again.begin().toString(), 'whole'), '')
  again.end()
  again.close()
  t.same(readdirSync(at('restore/deep/er/www')), ['half', 'whole'])
  t.equal(
    codeOf(() => target('deep/er/www')),
    'NOT_EMPTY',
  )
})

t.test('copy: links that come between asking and writing lead nowhere', async (t) => {
  mkdirSync(at('restore/x'))
  const copy = target('x/www')
  symlinkSync(at('secret'), at('restore/x/www'))
  t.equal(
    codeOf(() => copy.begin()),
    'NOT_ALLOWED',
    'in its place',
  )
  copy.close()
  const below = target('y/z/www')
  symlinkSync(at('secret'), at('restore/y'))
  t.equal(
    codeOf(() => below.begin()),
    'NOT_ALLOWED',
    'on the way',
  )
  below.close()
  symlinkSync(at('secret/none'), at('restore/x/dangling'))
  const dangling = target('x/dangling')
  t.equal(
    codeOf(() => dangling.begin()),
    'NOT_ALLOWED',
    'one that leads nowhere yet',
  )
  dangling.close()
  symlinkSync(at('secret/passwd'), at('restore/x/www2.holdfast-restore.new'))
  const noted = target('x/www2')
  t.equal(codeOf(() => noted.begin())?.includes('ELOOP'), true, 'in the place of the note')
  noted.close()
  t.equal(readFileSync(at('secret/passwd'), 'utf8'), 'root')
  t.ok(untouched() && !existsSync(at('secret/none')))
})

t.test('copy: what was empty when it was asked for may not be any more', async (t) => {
  const copy = target('late')
  mkdirSync(at('restore/late'))
  writeFileSync(at('restore/late/mine'), '')
  t.equal(
    codeOf(() => copy.begin()),
    'NOT_EMPTY',
  )
  copy.close()
  t.same(readdirSync(at('restore/late')), ['mine'])
  t.equal(
    codeOf(() => new CopyTarget({ output: at('volume/in') }, volume, OF)),
    'USAGE',
  )
})
