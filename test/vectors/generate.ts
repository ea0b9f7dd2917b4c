/**
 * Writes test/vectors/frames.json: one frame for every operation, in one chain, and broken ones.
 * Both codecs read the file. Run: npm run vectors (the output is committed; a change of it is a
 * change of the format).
 */
import { writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { encodeVectors } from './frames.js'

const target = fileURLToPath(new URL('../../../test/vectors/frames.json', import.meta.url))
writeFileSync(target, `${JSON.stringify(encodeVectors(), null, 2)}\n`)
console.log(`wrote ${target}`)
