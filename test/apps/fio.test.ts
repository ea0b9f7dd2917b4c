/** fio with verification: every way to do I/O, each block read back and checked against its code. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { FILE_SYSTEMS, makeImage } from '../harness/image.js'
import { run } from '../harness/run.js'
import { openSandbox } from '../harness/sandbox.js'
import { onVolume } from '../harness/volume.js'

t.setTimeout(180_000)

const JOBS: Record<string, readonly string[]> = {
  psync: ['--ioengine=psync', '--rw=randwrite', '--bsrange=1k-64k', '--bs_unaligned', '--fsync=64'],
  overwrite: ['--ioengine=psync', '--rw=randrw', '--bs=4k', '--overwrite=1', '--norandommap'],
  mmap: ['--ioengine=mmap', '--rw=randwrite', '--bs=4k', '--fsync=128'],
  libaio: ['--ioengine=libaio', '--direct=1', '--iodepth=16', '--rw=randwrite', '--bs=4k'],
  io_uring: ['--ioengine=io_uring', '--iodepth=16', '--rw=randwrite', '--bs=16k'],
  'io_uring direct': ['--ioengine=io_uring', '--direct=1', '--iodepth=16', '--rw=write', '--bs=1m'],
  pvsync2: ['--ioengine=pvsync2', '--rw=write', '--bs=128k', '--fallocate=keep'],
  vsync: ['--ioengine=vsync', '--rw=randwrite', '--bs=8k', '--fallocate=none'],
  posixaio: ['--ioengine=posixaio', '--iodepth=8', '--rw=randwrite', '--bs=4k', '--sync=1'],
  splice: ['--ioengine=splice', '--rw=write', '--bs=64k'],
}
const COMMON = [
  ...['--numjobs=2', '--group_reporting', '--thread', '--randrepeat=1', '--minimal'],
  ...['--verify=crc32c', '--do_verify=1', '--verify_fatal=1', '--verify_backlog=512'],
]

const sandbox = await openSandbox(t)
for (const fs of FILE_SYSTEMS) {
  t.test(`fio: verified on ${fs}`, async (t) => {
    const image = await makeImage(sandbox, { fs })
    await onVolume(t, { sandbox, image, name: `fio-${fs}` }, async ({ dir }) => {
      for (const [name, options] of Object.entries(JOBS)) {
        const directory = join(dir, name)
        mkdirSync(directory)
        const size = name === 'posixaio' ? '1m' : '8m'
        const job = [`--name=${name}`, `--directory=${directory}`, `--size=${size}`]
        await run('fio', [...job, ...COMMON, ...options], { cwd: sandbox.root })
        t.pass(`${name}: every block has its code`)
      }
    })
  })
}
