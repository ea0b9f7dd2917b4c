// Medians, ratios, the table, the Markdown section and the ledger line.

import { appendFile, mkdir, readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'

/**
 * @typedef {object} Result
 * @property {string} workload
 * @property {string} unit
 * @property {Record<string, number>} median by target
 * @property {Record<string, number[]>} rounds by target
 * @property {Record<string, string>} failed by target: why
 * @property {string} [reference] the target that the ratio is to
 * @property {number} [ratio] holdfast / reference
 * @property {number} goal
 * @property {string} goalText
 * @property {boolean} [met]
 */

/** @param {number[]} values */
export function median(values) {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1
    ? sorted[middle]
    : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2
}

/**
 * @param {import('./workloads.mjs').Workload} workload
 * @param {import('./targets.mjs').Target[]} targets
 * @param {Record<string, number[]>} rounds
 * @param {Record<string, string>} failed
 * @returns {Result}
 */
export function summarize(workload, targets, rounds, failed) {
  /** @type {Record<string, number>} */
  const medians = {}
  for (const [name, values] of Object.entries(rounds)) {
    if (values.length > 0) medians[name] = median(values)
  }
  const candidates = targets
    .filter((target) => target.role === workload.against && medians[target.name] !== undefined)
    .sort((a, b) => medians[b.name] - medians[a.name])
  const reference = candidates[0]?.name
  const subject = medians.holdfast
  const ratio =
    reference !== undefined && subject !== undefined ? subject / medians[reference] : undefined
  const than = workload.against === 'native' ? 'native' : 'fastest peer'
  return {
    workload: workload.name,
    unit: workload.unit,
    median: medians,
    rounds,
    failed,
    reference,
    ratio,
    goal: workload.goal,
    goalText: `≥ ${workload.goal} × ${than}`,
    met: ratio === undefined ? undefined : ratio >= workload.goal,
  }
}

/** @param {number | undefined} value three significant digits, thousands as k and M */
function short(value) {
  if (value === undefined) return '–'
  if (value >= 1e6) return `${(value / 1e6).toPrecision(3)} M`
  if (value >= 1e4) return `${(value / 1e3).toPrecision(3)} k`
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3)
}

/**
 * @param {Result[]} results
 * @param {string[]} names of targets, in order
 * @returns {string[][]} the head, then a row per workload
 */
function cells(results, names) {
  const head = ['workload', 'unit', ...names, 'reference', 'ratio', 'target', 'met']
  const rows = results.map((r) => [
    r.workload,
    r.unit,
    ...names.map((name) => (r.failed[name] === undefined ? short(r.median[name]) : 'failed')),
    r.reference ?? '–',
    r.ratio === undefined ? '–' : r.ratio.toFixed(2),
    r.goalText,
    r.met === undefined ? '–' : r.met ? 'yes' : 'no',
  ])
  return [head, ...rows]
}

/**
 * @param {Result[]} results
 * @param {string[]} names
 */
export function plainTable(results, names) {
  const rows = cells(results, names)
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)))
  return rows
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i]))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

/**
 * @param {Result[]} results
 * @param {string[]} names
 */
function markdownTable(results, names) {
  const [head, ...rows] = cells(results, names)
  const line = (row) => `| ${row.join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n')
}

/**
 * @param {object} run
 * @param {Record<string, any>} run.about date, commit, kernel, …
 * @param {import('./targets.mjs').Target[]} run.targets
 * @param {Result[]} run.results
 */
export function markdown({ about, targets, results }) {
  const names = targets.map((target) => target.name)
  const failures = results.flatMap((r) =>
    Object.entries(r.failed).map(([name, why]) => `- ${r.workload} on ${name}: ${why}`),
  )
  return [
    `${about.date}, commit ${about.commit}, Linux ${about.kernel}, ${about.cpus} CPUs, ` +
      `${about.rounds} rounds of ${about.seconds} s, CPUs ${about.awake ? 'kept awake' : 'free to halt'}, ` +
      `load ${about.loadBefore} before and ${about.loadAfter} after. Medians; ratio = holdfast / reference.`,
    '',
    markdownTable(results, names),
    '',
    ...targets.map((target) => `- **${target.name}**: ${target.note}`),
    ...(failures.length > 0 ? ['', 'Not measured:', '', ...failures] : []),
  ].join('\n')
}

/**
 * Replaces what is between the markers `<!-- NAME:begin -->` and `<!-- NAME:end -->` of `file`.
 * @param {string} file
 * @param {string} name
 * @param {string} body
 */
export async function writeMarkdown(file, name, body) {
  const text = await readFile(file, 'utf8')
  const first = `<!-- ${name}:begin -->`
  const begin = text.indexOf(first)
  const end = text.indexOf(`<!-- ${name}:end -->`)
  if (begin < 0 || end < begin) throw new Error(`${file}: the ${name} markers are missing`)
  await writeFile(file, `${text.slice(0, begin + first.length)}\n\n${body}\n\n${text.slice(end)}`)
}

/**
 * @param {string} file
 * @param {Parameters<typeof markdown>[0] & { replication: object[] }} run
 */
export async function appendLedger(file, run) {
  const targets = Object.fromEntries(run.targets.map((t) => [t.name, t.note]))
  await mkdir(path.dirname(file), { recursive: true })
  const { about, results, replication } = run
  await appendFile(file, `${JSON.stringify({ ...about, targets, results, replication })}\n`)
}
