// Runs in a process of its own, in a volume:
// `probe.mjs fsync DIR COUNT` writes 4 KiB and flushes, and prints how long each took, ms, as JSON;
// `probe.mjs paced DIR RATE` writes 4 KiB at that rate per second until it is ended.

import { closeSync, fsyncSync, openSync, unlinkSync, writeSync } from 'node:fs'
import path from 'node:path'

const BLOCK = Buffer.alloc(4096, 0x42)
const BLOCKS = 4096
const TURN_MS = 5

const [mode, dir = '.', number = '0'] = process.argv.slice(2)
const file = path.join(dir, `probe-${process.pid}`)
const fd = openSync(file, 'w')

function fsyncs(count) {
  const took = []
  for (let n = 0; n < count; n += 1) {
    const begun = performance.now()
    writeSync(fd, BLOCK, 0, BLOCK.length, (n % BLOCKS) * BLOCK.length)
    fsyncSync(fd)
    took.push(performance.now() - begun)
  }
  console.log(JSON.stringify(took))
  closeSync(fd)
  unlinkSync(file)
}

function paced(rate) {
  const begun = performance.now()
  let written = 0
  setInterval(() => {
    const due = ((performance.now() - begun) / 1000) * rate
    for (; written < due; written += 1) {
      writeSync(fd, BLOCK, 0, BLOCK.length, ((written * 7919) % BLOCKS) * BLOCK.length)
    }
  }, TURN_MS)
}

if (mode === 'fsync') fsyncs(Number(number))
else paced(Number(number))
