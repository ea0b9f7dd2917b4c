/** Journals for tests: frames of small WRITE records in one chain. */
import type { FrameBytes } from '../../src/journal/store.js'
import { encodeFrame, FrameView, JOURNAL_START, type JournalEnd } from '../../src/record/frame.js'
import { encodeRecord } from '../../src/record/record.js'

export const UUID = Buffer.from('0f1e2d3c4b5a69788796a5b4c3d2e1f0', 'hex')

export interface MakeOptions {
  count: number
  recordsPerFrame?: number
  payloadBytes?: number
  after?: JournalEnd
  uuid?: Buffer
  /** Clock of seq 0, ns. */
  clock?: bigint
  /** Clock distance of two records, ns. */
  step?: bigint
}

/** `count` frames that continue `after`. */
export function makeFrames(options: MakeOptions): (FrameBytes & { view: FrameView })[] {
  const { count, recordsPerFrame = 3, payloadBytes = 64, uuid = UUID } = options
  const { clock = 1_700_000_000_000_000_000n, step = 1_000_000n } = options
  let { lastSeq, chain } = options.after ?? JOURNAL_START
  return Array.from({ length: count }, () => {
    const records = Array.from({ length: recordsPerFrame }, (_, index) => {
      const seq = lastSeq + 1n + BigInt(index)
      const header = { seq, clock: clock + seq * step, oid: { ino: seq, gen: 1n } }
      return encodeRecord('WRITE', header, { offset: 0n }, Buffer.alloc(payloadBytes, Number(seq)))
    })
    const bytes = encodeFrame({ uuid, epoch: 1, records, previousChain: chain })
    const view = new FrameView(bytes)
    lastSeq = view.lastSeq
    chain = view.chain
    return { firstSeq: view.firstSeq, bytes, view }
  })
}
