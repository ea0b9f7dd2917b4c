/** Prometheus metrics of a volume, and of a replica host. The one file that imports `prom-client`. */
import { Gauge, Registry } from 'prom-client'
import type { HostedReplica, HostStatus } from './replica-host.js'
import type { ReplicaStatus } from './replica-status.js'
import type { ScheduleStatus } from './scheduler.js'
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

const CONNECTIONS = ['connecting', 'connected', 'waiting', 'refused', 'stopped'] as const
const COPIES = ['UpToDate', 'Consistent', 'Inconsistent'] as const

/** A series for each replica. */
type Of<Replica> = Record<string, [help: string, value: (replica: Replica) => number]>

const SHIPPED: Of<ReplicaStatus> = {
  replica_sent_seq: ['Sequence number of the last change sent', ({ sent }) => sent],
  replica_logged_seq: ['Last change that is durable in its log', ({ logged }) => logged],
  replica_applied_seq: ['Last change that its tree shows', ({ applied }) => applied],
  replica_logged_lag_bytes: ['Captured bytes not in its log', ({ lag }) => lag.loggedBytes],
  replica_logged_lag_seconds: ['Age of the oldest of them', ({ lag }) => lag.loggedSeconds],
  replica_applied_lag_bytes: ['Captured bytes not in its tree', ({ lag }) => lag.appliedBytes],
  replica_applied_lag_seconds: ['Age of the oldest of them', ({ lag }) => lag.seconds],
  replica_sent_bytes_total: ['Bytes sent to it', ({ bytesSent }) => bytesSent],
  replica_connections_total: ['Connections made to it', ({ connections }) => connections],
  replica_waited_for: ['1 while fsync waits for it', ({ waitedFor }) => Number(waitedFor)],
  replica_held: ['1 while the journal keeps what it lacks', ({ held }) => Number(held)],
  replica_problem: ['1 while something keeps it back', ({ problem }) => Number(problem !== null)],
  replica_baseline_percent: [
    'How far a baseline under way is; 100 when none is',
    ({ baseline }) => (baseline === null ? 100 : (baseline.percent ?? 0)),
  ],
}

const HOSTED: Of<HostedReplica> = {
  hosted_end_seq: ["End of the primary's journal, as it was heard of last", ({ end }) => end],
  hosted_logged_seq: ['Last change that is durable in the log', ({ logged }) => logged],
  hosted_applied_seq: ['Last change that the tree shows', ({ applied }) => applied],
  hosted_lag_records: ['Changes the tree does not show', ({ lag }) => lag.records],
  hosted_lag_bytes: ['Their bytes', ({ lag }) => lag.bytes],
  hosted_lag_seconds: ['How long ago the oldest of them was heard of', ({ lag }) => lag.seconds],
  hosted_queued_bytes: ['Bytes received and not in the log', ({ queuedBytes }) => queuedBytes],
  hosted_connected: ['1 while its primary is connected', ({ connected }) => Number(connected)],
  hosted_baseline: ['1 while a baseline is under way', ({ baseline }) => Number(baseline)],
  hosted_failures_total: ['Times it could not go on', ({ failures }) => failures],
  hosted_problem: ['1 while something keeps it back', ({ problem }) => Number(problem !== null)],
}

const SCHEDULED: Of<ScheduleStatus> = {
  schedule_runs_total: ['Times that it has run', ({ runs }) => runs],
  schedule_failures_total: ['Runs that have failed', ({ failures }) => failures],
  schedule_problem: [
    '1 while there is no snapshot of the last time',
    ({ problem }) => Number(problem !== null),
  ],
  schedule_success_seconds: [
    'When it has taken its last snapshot, since the epoch; 0: never',
    ({ succeeded }) => (succeeded === null ? 0 : Date.parse(succeeded) / 1000),
  ],
}

/** The series of all replicas of one registry; those of a replica that is gone end. */
class ReplicaGauges<Replica extends { copy: string }> {
  readonly #gauges: [Gauge, (replica: Replica) => number][]
  readonly #copy: Gauge
  readonly #labels: (replica: Replica) => Record<string, string>

  constructor(
    series: Of<Replica>,
    options: {
      registry: Registry
      prefix: string
      labels(replica: Replica): Record<string, string>
      labelNames: string[]
    },
  ) {
    const { registry, prefix, labels, labelNames } = options
    const registers = [registry]
    this.#labels = labels
    this.#gauges = Object.entries(series).map(([name, [help, value]]) => [
      new Gauge({ name: `holdfast_${name}`, help, labelNames, registers }),
      value,
    ])
    this.#copy = new Gauge({
      name: `holdfast_${prefix}_copy`,
      help: 'How much of the tree can be relied on: 1 for the state it is in',
      labelNames: [...labelNames, 'state'],
      registers,
    })
  }

  set(replicas: readonly Replica[]): void {
    for (const gauge of [this.#copy, ...this.#gauges.map(([gauge]) => gauge)]) gauge.reset()
    for (const replica of replicas) {
      const labels = this.#labels(replica)
      for (const [gauge, value] of this.#gauges) gauge.set(labels, value(replica))
      for (const state of COPIES) {
        this.#copy.set({ ...labels, state }, Number(replica.copy === state))
      }
    }
  }
}

function isProtected({ state }: Status): number {
  return state === 'protected' ? 1 : 0
}

export class Metrics {
  readonly #registry = new Registry()
  readonly #gauges: [Gauge, Reader][] = []
  readonly #operations: Gauge
  readonly #connection: Gauge
  readonly #replicas: ReplicaGauges<ReplicaStatus>
  readonly #schedules: [Gauge, (schedule: ScheduleStatus) => number][]

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
    this.#connection = new Gauge({
      name: 'holdfast_replica_connection',
      help: 'Connection to the replica: 1 for the state it is in',
      labelNames: ['peer', 'state'],
      registers,
    })
    this.#replicas = new ReplicaGauges(SHIPPED, {
      registry: this.#registry,
      prefix: 'replica',
      labelNames: ['peer'],
      labels: ({ peer }) => ({ peer }),
    })
    const labelNames = ['schedule']
    this.#schedules = Object.entries(SCHEDULED).map(([name, [help, value]]) => [
      new Gauge({ name: `holdfast_${name}`, help, labelNames, registers }),
      value,
    ])
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
    this.#replicas.set(status.replicas)
    this.#connection.reset()
    for (const { peer, connection } of status.replicas) {
      for (const state of CONNECTIONS) {
        this.#connection.set({ peer, state }, Number(connection === state))
      }
    }
    for (const [gauge, value] of this.#schedules) {
      gauge.reset()
      for (const each of status.schedules) gauge.set({ schedule: each.name }, value(each))
    }
    return this.#registry.metrics()
  }
}

/** Of a replica host: series for each replica that it keeps. */
export class HostMetrics {
  readonly #registry = new Registry()
  readonly #replicas: ReplicaGauges<HostedReplica>

  constructor(host: string) {
    this.#registry.setDefaultLabels({ host })
    this.#replicas = new ReplicaGauges(HOSTED, {
      registry: this.#registry,
      prefix: 'hosted',
      labelNames: ['replica', 'primary', 'uuid'],
      labels: ({ name, primary, uuid }) => ({ replica: name, primary, uuid }),
    })
  }

  get contentType(): string {
    return this.#registry.contentType
  }

  async render(status: HostStatus): Promise<string> {
    this.#replicas.set(status.replicas)
    return this.#registry.metrics()
  }
}
