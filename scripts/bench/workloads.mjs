// The workloads, what each is compared with, and the target of DESIGN section 10.

/**
 * @typedef {object} Workload
 * @property {string} name
 * @property {string} unit what the rate counts
 * @property {'fsbench' | 'sqlite' | 'pgbench'} tool
 * @property {string[]} args the tool's arguments
 * @property {'peer' | 'native'} against reference: the fastest peer, or native
 * @property {number} goal the ratio to the reference that is wanted
 * @property {boolean} [fixture] needs the prepared tree
 */

/**
 * @param {string} name
 * @param {'peer' | 'native'} against
 * @param {number} goal
 * @param {{ args?: string[], fixture?: boolean, unit?: string }} [more]
 * @returns {Workload}
 */
function fsbench(name, against, goal, more = {}) {
  const args = more.args ?? [name]
  return {
    name,
    unit: more.unit ?? 'op/s',
    tool: 'fsbench',
    args,
    against,
    goal,
    fixture: more.fixture,
  }
}

const smallWrites = ['seqwrite4k', 'randwrite4k'].flatMap((pattern) =>
  ['wronly', 'rdwr'].flatMap((mode) =>
    ['existing', 'new'].map((file) => fsbench(`${pattern}-${mode}-${file}`, 'peer', 1.3)),
  ),
)

const warm = { fixture: true }
const threads = (name, count) => ({ args: [name, '--threads', String(count)] })

/** @type {Workload[]} */
export const WORKLOADS = [
  ...smallWrites,
  fsbench('randwrite4k-2threads', 'peer', 1.3, threads('randwrite4k-wronly-existing', 2)),
  fsbench('randwrite4k-4threads', 'peer', 1.3, threads('randwrite4k-wronly-existing', 4)),
  fsbench('seqwrite1m', 'peer', 0.8, { unit: 'MiB/s' }),
  fsbench('create-write4k-close', 'peer', 1.3),
  fsbench('create-2threads', 'peer', 1.3, threads('create-write4k-close', 2)),
  fsbench('create-4threads', 'peer', 1.3, threads('create-write4k-close', 4)),
  fsbench('rename', 'peer', 1.3),
  fsbench('unlink', 'peer', 1.3),
  fsbench('chmod', 'peer', 1.3),
  fsbench('mkdir', 'peer', 1.3),
  fsbench('stat', 'native', 0.9, warm),
  fsbench('readdir', 'native', 0.9, { ...warm, unit: 'entries/s' }),
  fsbench('read4k', 'native', 0.9, warm),
  fsbench('read1m', 'native', 0.9, { ...warm, unit: 'MiB/s' }),
  fsbench('openread', 'peer', 3, warm),
  fsbench('cold-seq1m', 'peer', 1, { ...warm, unit: 'MiB/s' }),
  fsbench('cold-rand4k', 'peer', 1, warm),
  fsbench('cold-small', 'peer', 1, warm),
  fsbench('fsync4k', 'native', 0.7),
  ...['wal', 'delete'].map((mode) => ({
    name: `sqlite-${mode}`,
    unit: 'tx/s',
    tool: /** @type {const} */ ('sqlite'),
    args: [mode],
    against: /** @type {const} */ ('native'),
    goal: 0.8,
  })),
  ...['simple-update', 'tpcb-like'].map((script) => ({
    name: `pgbench-${script}`,
    unit: 'tx/s',
    tool: /** @type {const} */ ('pgbench'),
    args: [script],
    against: /** @type {const} */ ('native'),
    goal: 0.8,
  })),
]
