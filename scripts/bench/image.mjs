// The XFS file system all targets live on: an image file on a loop device, with reflink.

import { chmod, mkdir, mkdtemp, readFile, rm, statfs } from 'node:fs/promises'
import path from 'node:path'
import { defer, run, sleep } from './proc.mjs'

/** Size of the image: room for the fixtures of all targets, their databases and the journal. */
const IMAGE_BYTES_MAX = 40 * 2 ** 30
/** Part of the free space that it may take. */
const IMAGE_SHARE = 0.6

/** Octal escapes (\040) are how the kernel writes blanks in mount paths. */
const unescapeMount = (field) =>
  field.replace(/\\([0-7]{3})/g, (_, digits) => String.fromCharCode(Number.parseInt(digits, 8)))

/** @param {string} dir */
export async function isMountpoint(dir) {
  const mounts = await readFile('/proc/self/mounts', 'utf8')
  return mounts.split('\n').some((line) => unescapeMount(line.split(' ')[1] ?? '') === dir)
}

/**
 * Unmounts what is mounted on `dir`, lazily when it is still in use after a second.
 * @param {string} dir
 */
export async function unmount(dir) {
  for (let attempt = 0; (await isMountpoint(dir)) && attempt < 6; attempt++) {
    const lazy = attempt === 5 ? ['-l'] : []
    await run('umount', [...lazy, dir], { undoing: true }).catch(() => sleep(200))
  }
  if (await isMountpoint(dir)) throw new Error(`${dir} is still mounted`)
}

/**
 * Makes the image under `parent`, mounts it, and returns the mounted directory.
 * @param {string} parent
 * @param {number} [bytesMax] the image's size, where there is room
 * @returns {Promise<{ root: string, work: string }>} `root`: the file system; `work`: a plain
 *   directory beside it for mountpoints
 */
export async function makeImage(parent, bytesMax = IMAGE_BYTES_MAX) {
  const work = await mkdtemp(path.join(parent, 'holdfast-bench-'))
  defer('remove the work directory', () =>
    rm(work, { recursive: true, force: true, maxRetries: 3 }),
  )
  // Databases run as another user and have to get through.
  await chmod(work, 0o755)
  const file = path.join(work, 'image')
  // With its blocks, so that no target pays for their allocation below; not everywhere possible.
  const { bavail, bsize } = await statfs(work)
  const size = String(Math.floor(Math.min(bytesMax, bavail * bsize * IMAGE_SHARE)))
  await run('fallocate', ['-l', size, file]).catch(() => run('truncate', ['-s', size, file]))
  await run('mkfs.xfs', ['-q', '-m', 'reflink=1', file])

  // Direct I/O below, so that the image's pages are not cached twice; not everywhere possible.
  const attach = (extra) => run('losetup', ['--find', '--show', ...extra, file])
  const device = (await attach(['--direct-io=on']).catch(() => attach([]))).trim()
  defer(`detach ${device}`, async () => {
    await run('losetup', ['--detach', device], { undoing: true })
  })
  const root = path.join(work, 'xfs')
  await mkdir(root)
  defer('unmount the image', () => unmount(root))
  await run('mount', ['-t', 'xfs', '-o', 'noatime', device, root])
  return { root, work }
}
