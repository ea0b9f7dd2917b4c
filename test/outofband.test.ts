/**
 * A volume shown elsewhere, whose backing directory is changed behind the mount in every way, while
 * applications work through the mount: both sides come to the same tree, and so does the journal.
 *
 * HOLDFAST_SEED repeats a run.
 */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { mount } from '../src/index.js'
import { Chance, chooseSeed, fillBase, until } from './harness/faults.js'
import { FILE_SYSTEMS, makeImage } from './harness/image.js'
import { bash, run } from './harness/run.js'
import { openSandbox } from './harness/sandbox.js'
import { compareTrees } from './harness/volume.js'

const STEPS = 150

const seed = chooseSeed()
t.setTimeout(360_000)
t.comment(`seed ${seed}: HOLDFAST_SEED=${seed}`)
const sandbox = await openSandbox(t)

/** A script of random changes to the files of one directory; some of them fail. */
function randomChanges(chance: Chance, prefix: string): string {
  const name = () => `${prefix}${chance.between(1, 30)}`
  const kinds = [
    () => `echo ${chance.between(1, 1e6)} >${name()}`,
    () => `head -c ${chance.between(1, 300_000)} /dev/zero >>${name()}`,
    () => `truncate -s ${chance.between(0, 100_000)} ${name()}`,
    () => `rm -rf ${name()}`,
    () => `mkdir -p ${name()}/${name()}; echo x >${name()}/in`,
    () => `mv -T ${name()} ${name()}`,
    () => `mv ${name()} ${name()}/`,
    () => `ln ${name()} ${name()}`,
    () => `ln -sfn target${chance.between(1, 9)} ${name()}`,
    // Not one that a write would wait at.
    () => `mkfifo ${name()}.queue`,
    () => `chmod ${chance.pick(['600', '755', '4711', '000'])} ${name()}`,
    () => `chown ${chance.between(1, 9)}:${chance.between(1, 9)} ${name()}`,
    () => `setfattr -n user.a${chance.between(1, 3)} -v ${chance.between(1, 99)} ${name()}`,
    () => `touch -d @${chance.between(1, 1e9)}.5 ${name()}`,
  ]
  return Array.from({ length: STEPS }, () => `{ ${chance.pick(kinds)()}; } 2>/dev/null`).join('\n')
}

/** Changes behind the mount are noticed a moment later: what is wrong even then. */
async function differsUntil(compare: () => Promise<string>): Promise<string> {
  let differs = ''
  const same = async () => {
    differs = await compare()
    return differs === ''
  }
  await until(same, 'both sides to agree', 15_000).catch(() => {})
  return differs
}

for (const fs of FILE_SYSTEMS) {
  await t.test(`out of band: ${fs}, behind the mount and through it at once`, async (t) => {
    const image = await makeImage(sandbox, { fs })
    const at = (name: string) => join(image.dir, name)
    for (const name of ['data', 'at']) mkdirSync(at(name))
    await fillBase(at('data'))
    await run('cp', ['-a', '--reflink=never', '--sparse=always', at('data'), at('base')])
    const volume = await mount({
      dir: at('data'),
      at: at('at'),
      name: `oob-${fs}`,
      options: { ringDirectory: sandbox.rings, ringBytes: 64 << 20 },
    })
    const chance = new Chance(seed)
    for (const place of ['data', 'at']) mkdirSync(join(at('data'), `made-${place}`))
    for (let round = 0; round < 3; round += 1) {
      const behind = bash(`set +e\n${randomChanges(chance, 'b')}\ntrue`, {
        cwd: at('data/made-data'),
      })
      const through = bash(`set +e\n${randomChanges(chance, 't')}\ntrue`, { cwd: at('data/../at') })
      await Promise.all([behind, through])
      await bash('mv old/many old/lot 2>/dev/null || mv old/lot old/many', { cwd: at('data') })
      const shown = await differsUntil(() => compareTrees(at('data'), at('at')))
      const journaled = await differsUntil(async () => {
        await volume.flush()
        await volume.replay({ onto: at('base'), keepState: true })
        return compareTrees(at('data'), at('base'))
      })
      if (shown + journaled !== '') return void t.fail(`round ${round}`, { shown, journaled })
    }
    const { outOfBand } = await volume.status()
    t.ok(outOfBand.objects >= 30, `${outOfBand.objects} objects were captured`)
    await volume.unmount()
    t.equal((await volume.verify()).problemCount, 0)
  })
}
