/** Version control and compilers on a volume: many small files, renames, mapped packs, timestamps. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { projectFile } from '../harness/files.js'
import { makeImage } from '../harness/image.js'
import { bash, run } from '../harness/run.js'
import { openSandbox } from '../harness/sandbox.js'
import { onVolume } from '../harness/volume.js'

t.setTimeout(120_000)

const COMMITS = 40
const UNITS = 24

const sandbox = await openSandbox(t)
/** Nothing of the machine's or the user's configuration. */
const env = {
  HOME: sandbox.root,
  GIT_CONFIG_NOSYSTEM: '1',
  GIT_AUTHOR_NAME: 'a',
  GIT_AUTHOR_EMAIL: 'a@example.org',
  GIT_COMMITTER_NAME: 'c',
  GIT_COMMITTER_EMAIL: 'c@example.org',
}

/** A history of `COMMITS` commits as a stream for git fast-import. */
function history(): string {
  const lines: string[] = []
  for (let n = 0; n < COMMITS; n += 1) {
    lines.push('commit refs/heads/main', `committer c <c@example.org> ${1_700_000_000 + n} +0000`)
    lines.push(`data ${`change ${n}`.length}`, `change ${n}`)
    for (let file = 0; file < 25; file += 1) {
      const text = `file ${file} of commit ${n}\n`.repeat(20 + file)
      lines.push(`M 100644 inline dir-${file % 7}/file-${file}-${n % 10}`)
      lines.push(`data ${text.length}`, text)
    }
  }
  return `${lines.join('\n')}\n`
}

t.test('git: clone, commits, worktree, gc, fsck', async (t) => {
  const image = await makeImage(sandbox, { fs: 'ext4' })
  const origin = join(sandbox.root, 'origin.git')
  await run('git', ['init', '-q', '--bare', '-b', 'main', origin], { env })
  await run('git', ['-C', origin, 'fast-import', '--quiet'], { env, input: history() })
  await onVolume(t, { sandbox, image, name: 'git' }, async ({ dir }) => {
    const options = { cwd: dir, env }
    await run('git', ['clone', '-q', '--no-local', origin, 'work'], options)
    await bash(
      `cd work
      for i in $(seq 1 ${COMMITS}); do
        echo "line $i" >>log; git mv dir-1/file-1-$((i % 10)) dir-2/moved-$i 2>/dev/null || :
        git add -A; git commit -q -m "commit $i"
      done
      git worktree add -q ../tree -b side HEAD~10
      cd ../tree; echo side >side; git add side; git commit -q -m side
      cd ../work; git merge -q -m merged side; git tag -a v1 -m v1
      git fsck --full --strict
      git gc -q --aggressive --prune=now
      git fsck --full --strict
      git worktree remove ../tree
      git reset -q --hard HEAD~5; git reset -q --hard v1
      git repack -q -a -d -f --depth=10; git fsck --full`,
      options,
    )
    const status = await run('git', ['-C', 'work', 'status', '--porcelain'], options)
    t.equal(status, '', 'the working tree is clean')
    const back = join(sandbox.root, 'back')
    await run('git', ['clone', '-q', '--no-local', join(dir, 'work'), back], { env })
    const tree = (at: string) => run('git', ['-C', at, 'rev-parse', 'HEAD^{tree}'], { env })
    t.equal(await tree(back), await tree(join(dir, 'work')), 'a clone of it is the same')
    const log = await run('git', ['-C', back, 'rev-list', '--count', 'HEAD'], { env })
    t.equal(Number(log), 2 * COMMITS + 2, 'every commit is there')
  })
})

function writeSources(dir: string): void {
  mkdirSync(join(dir, 'c'))
  mkdirSync(join(dir, 'ts'))
  const calls = Array.from({ length: UNITS }, (_, n) => `unit_${n}(${n})`)
  const declare = calls.map((_, n) => `int unit_${n}(int);`).join('\n')
  writeFileSync(join(dir, 'c/all.h'), `#pragma once\n#include "last.h"\n${declare}\n`)
  writeFileSync(join(dir, 'c/last.h'), '#pragma once\n#define STEP 1\n')
  for (let n = 0; n < UNITS; n += 1) {
    const header = n === 0 ? 'all.h' : 'stdio.h'
    const step = n === 0 ? 'STEP' : '1'
    const text = `#include "${header}"\nint unit_${n}(int x) { return x + ${step}; }\n`
    writeFileSync(join(dir, `c/unit_${n}.c`), text)
    writeFileSync(join(dir, `ts/unit_${n}.ts`), `export const unit${n} = (x: number) => x + ${n}\n`)
  }
  const main = `#include <stdio.h>\n#include "all.h"\nint main(void) { printf("%d\\n", ${calls.join(' + ')}); return 0; }\n`
  writeFileSync(join(dir, 'c/main.c'), main)
  const makefile = `CFLAGS = -O1 -g -MMD
objects = $(patsubst %.c,%.o,$(wildcard unit_*.c))
program: main.o libunits.a
\t$(CC) -o $@ $^
libunits.a: $(objects)
\t$(AR) rcs $@ $^
-include *.d
`
  writeFileSync(join(dir, 'c/Makefile'), makefile)
  const compilerOptions = {
    ...{ target: 'es2022', module: 'nodenext', strict: true, incremental: true },
    ...{ outDir: 'out', rootDir: '.', declaration: true, sourceMap: true, types: [] },
  }
  writeFileSync(join(dir, 'ts/tsconfig.json'), JSON.stringify({ compilerOptions }))
  writeFileSync(join(dir, 'ts/package.json'), JSON.stringify({ type: 'module' }))
  const imports = calls.map((_, n) => `import { unit${n} } from './unit_${n}.js'`).join('\n')
  const sum = calls.map((_, n) => `unit${n}(1)`).join(' + ')
  writeFileSync(
    join(dir, 'ts/main.ts'),
    `${imports}\nconsole.log(${sum})\n`.replace('console', 'globalThis.console'),
  )
}

t.test('make, cc and tsc: build, run, rebuild what changed', async (t) => {
  const image = await makeImage(sandbox, { fs: 'xfs' })
  await onVolume(t, { sandbox, image, name: 'build', fill: writeSources }, async ({ dir }) => {
    const c = { cwd: join(dir, 'c') }
    await run('make', ['-s', '-j2'], c)
    const sum = (UNITS * (UNITS - 1)) / 2 + UNITS
    t.equal(await run('./program', [], c), `${sum}\n`, 'the program runs from the volume')
    await run('make', ['-q'], c)
    await bash("sleep 0.02; sed -i 's/STEP 1/STEP 1000/' last.h", c)
    const again = await run('make', ['-j2'], c)
    t.match(again, /-o unit_0\.o/, 'what includes the changed header is compiled')
    t.notMatch(again, /-o unit_1\.o/, 'and nothing else')
    t.equal(await run('./program', [], c), `${sum + 999}\n`, 'the new program runs')

    const ts = { cwd: join(dir, 'ts') }
    const tsc = projectFile('node_modules/.bin/tsc')
    await run(tsc, ['-p', '.'], ts)
    const output = `${(UNITS * (UNITS - 1)) / 2 + UNITS}\n`
    t.equal(await run(process.execPath, ['out/main.js'], ts), output, 'what tsc made runs')
    await bash('rm -r out; cp -r ../c/*.o .; mkdir out', ts)
    await run(tsc, ['-p', '.', '--incremental', 'false'], ts)
    t.equal(await run(process.execPath, ['out/main.js'], ts), output, 'and again')
  })
})
