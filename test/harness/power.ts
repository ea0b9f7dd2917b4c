/**
 * Power loss, emulated: the file systems are shut down without flushing their logs, the daemon dies,
 * the capture ring (tmpfs) is gone, and everything is mounted again from what had reached the disk.
 */
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { until } from './faults.js'
import type { Image } from './image.js'
import { attempt, run } from './run.js'
import type { Sandbox } from './sandbox.js'

/** XFS_IOC_GOINGDOWN, which is EXT4_IOC_SHUTDOWN too, with NOLOGFLUSH. */
const SHUTDOWN = `
import fcntl, os, struct, sys
for fd in [os.open(path, os.O_RDONLY) for path in sys.argv[1:]]:
    fcntl.ioctl(fd, 0x8004587d, struct.pack('I', 2))
`

/** From now on nothing reaches the disk any more. */
export async function shutDown(images: readonly Image[]): Promise<void> {
  await run('python3', ['-c', SHUTDOWN, ...images.map(({ dir }) => dir)])
}

/** Unmounts file systems that were shut down, and mounts them as after a boot. */
export async function mountAgain(images: readonly Image[]): Promise<void> {
  for (const { dir } of images) await attempt('umount', ['-l', dir])
  for (const { dir, file } of images) {
    // Only when the last user is gone the file system is, and its log can be recovered.
    await until(async () => (await run('losetup', ['-j', file])) === '', `${file} to be released`)
    await run('mount', ['-o', 'loop,noatime', file, dir])
  }
}

/** What tmpfs loses. */
export function loseRing(sandbox: Sandbox, uuid: string): void {
  rmSync(join(sandbox.rings, `holdfast-${uuid}.ring`))
}
