/** stress-ng's file system stressors, all at once on one volume, each verifying what it does. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { FILE_SYSTEMS, makeImage } from '../harness/image.js'
import { attempt } from '../harness/run.js'
import { openSandbox } from '../harness/sandbox.js'
import { onVolume } from '../harness/volume.js'

t.setTimeout(180_000)

const SECONDS = 10
/**
 * The class "filesystem" of stress-ng 0.15 without what touches no file below --temp-path, and
 * without fiemap and verity, which a FUSE mount does not have (docs/SEMANTICS.md), and without io, which
 * opens and syncs every mounted file system of the machine, those of other tests too.
 */
const STRESSORS = `access chattr chdir chmod chown copy-file dentry dir dirdeep dirmany dnotify dup
  fallocate fcntl file-ioctl filename flock fpunch fsize fstat getdent handle hdd inode-flags inotify
  iomix lease link locka lockf lockofd mknod open rename symlink sync-file touch utime xattr`
  .split(/\s+/)
  .flatMap((name) => [`--${name}`, '1'])
/** Smaller than the defaults, so that all of them fit the image. */
const SIZES = ['hdd', 'fallocate', 'copy-file', 'iomix', 'sync-file'].flatMap((name) => [
  `--${name}-bytes`,
  '128m',
])

const sandbox = await openSandbox(t)
for (const fs of FILE_SYSTEMS) {
  t.test(`stress-ng: on ${fs}`, async (t) => {
    const image = await makeImage(sandbox, { fs })
    await onVolume(t, { sandbox, image, name: `stress-${fs}` }, async ({ dir }) => {
      const place = join(dir, 'temporary')
      mkdirSync(place)
      const options = ['--verify', '--temp-path', place, '-t', String(SECONDS), '--oomable']
      const { code, stdout, stderr } = await attempt(
        'stress-ng',
        [...STRESSORS, ...SIZES, ...options],
        { cwd: sandbox.root },
      )
      const said = `${stdout}${stderr}`
      t.equal(code, 0, 'every stressor verified what it did', { said })
      t.notMatch(said, /skipp|fail:/i, 'and none was left out')
    })
  })
}
