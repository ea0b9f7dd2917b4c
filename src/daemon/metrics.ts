/** Prometheus metrics of one volume. The one file that imports `prom-client`. */
import { Gauge, Registry } from 'prom-client'
import type { Status } from './status.js'

type Reader = (status: Status) => number

/** name (without prefix) → [help, kind, value] */
const METRICS: Record<string, [help: string, value: Reader]> = {
  protected: ['1 when every acknowledged change is or will be in the journal', isProtected],
  captured_seq: ['Sequence number of the last captured change', ({ captured }) => captured.seq],
  journaled_seq: ['Sequence number of the last journaled change', ({ journaled }) => journaled.seq],
  lag_bytes: ['Captured bytes that are not journaled yet', ({ lag }) => lag.bytes],
  lag_seconds: ['Age of the oldest change that is not journaled yet', ({ lag }) => lag.seconds],
  requests_total: ['File system requests answered', ({ totals }) => totals.requests],
  mutations_total: ['Changes captured', ({ totals }) => totals.mutations],
  failures_total: ['Requests that failed', ({ totals }) => totals.failures],
  captured_bytes_total: ['Bytes of records captured', ({ totals }) => totals.capturedBytes],
  ring_bytes: ['Size of the capture ring', ({ ring }) => ring.bytes],
  ring_used_bytes: ['Used bytes of the capture ring', ({ ring }) => ring.usedBytes],
  ring_waits_total: ['Writers that waited for ring space', ({ ring }) => ring.waits],
  ring_refusals_total: ['Writers refused for want of ring space', ({ ring }) => ring.refusals],
  journal_used_bytes: ['Bytes of journaled frames', ({ journal }) => journal.usedBytes],
  journal_file_bytes: ['Size of the journal file', ({ journal }) => journal.fileBytes],
  journal_blocked: [
    '1 while the journal takes no frames',
    ({ journal }) => (journal.failure === null ? 0 : 1),
  ],
  journal_commit_seconds: [
    'Duration of the last commit',
    ({ journal }) => journal.lastCommitNs / 1e9,
  ],
  last_fsync_seconds: ['Duration of the last fsync', ({ lastFsyncNs }) => lastFsyncNs / 1e9],
  checkpoint_seq: [
    'Sequence number of the last checkpoint',
    ({ checkpoint }) => checkpoint?.seq ?? 0,
  ],
  recapture_running: ['1 while a re-capture runs', ({ recapture }) => (recapture.running ? 1 : 0)],
  recapture_objects_total: ['Objects a re-capture looked at', ({ recapture }) => recapture.objects],
  out_of_band_objects_total: [
    'Objects changed behind the mount',
    ({ outOfBand }) => outOfBand.objects,
  ],
  held: ['1 while I/O is on hold', ({ held }) => (held ? 1 : 0)],
  inodes: ['Objects in the inode table', ({ inodes }) => inodes],
  descriptors: ['Open descriptors of the data plane', ({ descriptors }) => descriptors],
  panics_total: ['Panics contained in the data plane', ({ panics }) => panics],
}

function isProtected({ state }: Status): number {
  return state === 'protected' ? 1 : 0
}

export class Metrics {
  readonly #registry = new Registry()
  readonly #gauges: [Gauge, Reader][] = []
  readonly #operations: Gauge

  constructor(volume: string) {
    this.#registry.setDefaultLabels({ volume })
    const registers = [this.#registry]
    for (const [name, [help, value]] of Object.entries(METRICS)) {
      this.#gauges.push([new Gauge({ name: `holdfast_${name}`, help, registers }), value])
    }
    this.#operations = new Gauge({
      name: 'holdfast_operations_total',
      help: 'Requests by operation',
      labelNames: ['operation'],
      registers,
    })
  }

  get contentType(): string {
    return this.#registry.contentType
  }

  /** The text format, of `status`. */
  async render(status: Status): Promise<string> {
    for (const [gauge, value] of this.#gauges) gauge.set(value(status))
    for (const [operation, count] of Object.entries(status.operations)) {
      this.#operations.set({ operation }, count)
    }
    return this.#registry.metrics()
  }
}
