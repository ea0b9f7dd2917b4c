/** The numbers that counting processes wrote into files of a volume, by seq, from its journal. */
import { statSync } from 'node:fs'
import { join } from 'node:path'
import { Journal } from '../../src/journal/store.js'

interface Written {
  seq: bigint
  value: bigint
}

export class Counts {
  readonly #written: readonly (readonly Written[])[]

  /** Of files below `dir`, whose journal lies in a state directory; everything was flushed before. */
  constructor(stateDirectory: string, dir: string, files: readonly string[]) {
    const inodes = files.map((file) => BigInt(statSync(join(dir, file)).ino))
    const found = inodes.map(() => [] as Written[])
    const journal = Journal.open({ path: join(stateDirectory, 'journal'), readOnly: true })
    for (const frame of journal.frames()) {
      for (const record of frame.records()) {
        const at = record.op === 'WRITE' ? inodes.indexOf(record.oid.ino) : -1
        if (at < 0) continue
        found[at]?.push({ seq: record.seq, value: record.payload.readBigUInt64LE() })
      }
    }
    void journal.close()
    this.#written = found
  }

  /** What a file holds at a seq, by binary search. */
  at(file: number, seq: bigint): bigint {
    const entries = this.#written[file] ?? []
    let [low, high] = [0, entries.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if ((entries[middle]?.seq ?? 0n) <= seq) low = middle + 1
      else high = middle
    }
    return entries[low - 1]?.value ?? 0n
  }
}

/** The value below which a share of the sorted numbers lies. */
export function quantile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0
}
