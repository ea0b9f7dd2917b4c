/** tar, rsync and LMDB on a volume: what goes in comes out, with everything that hangs on it. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { makeImage } from '../harness/image.js'
import { bash, run } from '../harness/run.js'
import { openSandbox } from '../harness/sandbox.js'
import { makeTree } from '../harness/tree.js'
import { compareTrees, onVolume } from '../harness/volume.js'

t.setTimeout(120_000)

const sandbox = await openSandbox(t)

t.test('tar: xattrs, ACLs, sparse files, links, nodes', async (t) => {
  const image = await makeImage(sandbox, { fs: 'xfs' })
  const plain = join(image.dir, 'plain')
  const back = join(image.dir, 'back')
  for (const dir of [plain, back]) mkdirSync(dir)
  await makeTree(plain)
  // tar leaves sockets out.
  await run('rm', [join(plain, 'socket')])
  const flags = "--xattrs --xattrs-include='*' --acls -S --numeric-owner -p"
  await onVolume(t, { sandbox, image, name: 'tar' }, async ({ dir }) => {
    const inside = join(dir, 'tree')
    mkdirSync(inside)
    await bash(`tar -C ${plain} ${flags} -cf - . | tar -C ${inside} ${flags} -xf -`)
    t.equal(await compareTrees(plain, inside), '', 'extracted on the volume')
    await bash(`tar -C ${inside} ${flags} -cf ${dir}/archive.tar . && sync ${dir}/archive.tar`)
    await bash(`tar -C ${inside} ${flags} -df ${dir}/archive.tar`)
    await bash(`tar -C ${back} ${flags} -xf ${dir}/archive.tar`)
    t.equal(await compareTrees(plain, back, '--holes'), '', 'archived from the volume')
    const blocks = await run('du', ['-s', '--block-size=1M', join(inside, 'sparse')])
    t.ok(Number.parseInt(blocks, 10) < 5, 'holes stay holes')
  })
})

t.test('rsync: both ways, and a second run finds nothing to do', async (t) => {
  const image = await makeImage(sandbox, { fs: 'ext4' })
  const plain = join(image.dir, 'plain')
  mkdirSync(plain)
  await makeTree(plain)
  // Without the window, rsync takes two times within one second for the same.
  const flags = ['-aHAX', '--checksum', '--modify-window=-1', '--itemize-changes', '--delete']
  const rsync = (from: string, to: string) => run('rsync', [...flags, `${from}/`, `${to}/`])
  await onVolume(t, { sandbox, image, name: 'rsync', fill: makeTree }, async ({ dir }) => {
    await bash('echo changed >many/file-10; rm many/file-11; chmod 600 many/file-12', { cwd: dir })
    t.not(await rsync(plain, dir), '', 'what differs is sent')
    t.equal(await rsync(plain, dir), '', 'onto the volume: nothing is left to send')
    t.equal(await compareTrees(plain, dir), '', 'the trees are the same')
    const back = join(image.dir, 'back')
    await rsync(dir, back)
    t.equal(await rsync(dir, back), '', 'from the volume: nothing is left to send')
    t.equal(await compareTrees(plain, back), '', 'what came back is the same')
  })
})

t.test('lmdb: write, die, reopen, verify', async (t) => {
  const image = await makeImage(sandbox, { fs: 'ext4', name: 'lmdb' })
  await onVolume(t, { sandbox, image, name: 'lmdb' }, async ({ dir }) => {
    const child = new URL('./lmdb-child.js', import.meta.url).pathname
    const lmdb = (...args: string[]) => run(process.execPath, [child, join(dir, 'db'), ...args])
    await lmdb('write', '0', '3000')
    t.equal(await lmdb('verify', '3000'), 'whole\n', 'what was written is there')
    await Promise.all([lmdb('write', '3000', '4500'), lmdb('write', '4500', '6000')])
    t.equal(await lmdb('verify', '6000'), 'whole\n', 'from two processes at once')
    await bash(`${process.execPath} ${child} ${join(dir, 'db')} die 6000 7000 || [ $? = 137 ]`)
    t.equal(await lmdb('verify', '7000'), 'whole\n', 'and after a SIGKILL, what was flushed')
  })
})
