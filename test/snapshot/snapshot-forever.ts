/** Takes snapshots of the volumes that are named, one after the other; cut.test.ts kills it. */
import { writeSync } from 'node:fs'
import { createSnapshot } from '../../src/index.js'

const [prefix = '', ...volumes] = process.argv.slice(2)
for (let n = 0; ; n += 1) {
  const { name } = await createSnapshot({ volumes, name: `${prefix}-${n}`, maxHoldMs: 300 })
  writeSync(1, `${name}\n`)
}
