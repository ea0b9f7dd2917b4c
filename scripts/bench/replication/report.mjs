// How the rows of replication are shown: each has values of its own, and perhaps a ratio.

/**
 * @typedef {object} ReplicationResult
 * @property {string} workload
 * @property {string} text what was done
 * @property {string} unit
 * @property {Record<string, number>} values
 * @property {object} [rounds]
 * @property {string} [against] the value that holdfast's is compared with
 * @property {number} [ratio]
 * @property {number} [goal]
 * @property {string} [failed] why there are no values
 */

const number = (value) => (value >= 100 ? value.toFixed(0) : value.toPrecision(3))

/** @param {ReplicationResult} result */
export function replicationLine({ workload, text, unit, values, ratio, against, goal, failed }) {
  if (failed !== undefined) return `${workload}: failed: ${failed}`
  const all = Object.entries(values).map(([name, value]) => `${name} ${number(value)}`)
  const compared =
    ratio === undefined
      ? ''
      : `; ${ratio.toFixed(2)} × ${against} (aim ${goal}, ${ratio >= goal ? 'met' : 'missed'})`
  return `${workload} (${text}), ${unit}: ${all.join(', ')}${compared}`
}

/** @param {{ about: Record<string, any>, replication: ReplicationResult[] }} run */
export function replicationMarkdown({ about, replication }) {
  const head = ['row', 'what', 'unit', 'values', 'ratio', 'aim', 'met']
  const rows = replication.map(({ workload, text, unit, values, ratio, against, goal, failed }) => [
    workload,
    text,
    unit,
    failed === undefined
      ? Object.entries(values)
          .map(([name, value]) => `${name} ${number(value)}`)
          .join('; ')
      : `failed: ${failed.split('\n')[0]}`,
    ratio === undefined ? '–' : ratio.toFixed(2),
    goal === undefined ? '–' : `≥ ${goal} × ${against}`,
    ratio === undefined ? '–' : ratio >= goal ? 'yes' : 'no',
  ])
  const table = [head, head.map(() => '---'), ...rows].map((row) => `| ${row.join(' | ')} |`)
  const when =
    `${about.date}, commit ${about.commit}, Linux ${about.kernel}, ${about.cpus} CPUs for both hosts, ` +
    `${about.rounds} rounds, load ${about.loadBefore} before and ${about.loadAfter} after. Medians.`
  return [when, '', ...table].join('\n')
}
