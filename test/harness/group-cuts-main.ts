/** Takes snapshots of a group, one after the other, and says of each, as a line of JSON, what came of it. */
import { createGroupSnapshot, destroyGroupSnapshot, HoldfastError } from '../../src/index.js'
import type { CutTold } from './group.js'

const { group, count, ...order } = JSON.parse(process.argv[2] ?? '{}')

for (let n = 0; n < count; n += 1) {
  const begun = performance.now()
  let told: CutTold
  try {
    const taken = await createGroupSnapshot({ group, ...order })
    told = { taken, ms: performance.now() - begun }
    await destroyGroupSnapshot(group, taken.name)
  } catch (error) {
    if (!(error instanceof HoldfastError)) throw error
    told = { failed: error.message, code: error.code }
  }
  process.stdout.write(`${JSON.stringify(told)}\n`)
}
