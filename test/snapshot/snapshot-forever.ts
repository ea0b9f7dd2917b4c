/** Takes snapshots of the volumes that are named, one after the other; tests kill it. */
import { writeSync } from 'node:fs'
import { createSnapshot } from '../../src/index.js'

const maxHoldMs = Number(process.env.MAX_HOLD_MS ?? 300)
const [prefix = '', ...volumes] = process.argv.slice(2)
for (let n = 0; ; n += 1) {
  const { name } = await createSnapshot({ volumes, name: `${prefix}-${n}`, maxHoldMs })
  writeSync(1, `${name}\n`)
}
