// `cuts.mjs COUNT VOLUME...`: takes so many snapshots of the volumes, one after the other, and prints how
// long each held I/O and how long it took, ms, as JSON. Runs where the volumes are.

import { createSnapshot, destroySnapshot } from '../../dist/program/lib/index.js'
import { heldNs } from '../../dist/src/snapshot/certificate.js'

const [count = '1', ...volumes] = process.argv.slice(2)
const held = []
const took = []
for (let n = 0; n < Number(count); n += 1) {
  const begun = performance.now()
  const certificate = await createSnapshot({ volumes })
  took.push(performance.now() - begun)
  held.push(heldNs(certificate) / 1e6)
  await destroySnapshot(certificate.name)
}
console.log(JSON.stringify({ held, took }))
