/** What becomes of snapshots by a policy, for people. */
import type { ErrorReport } from '../lib/errors.js'
import { out, table } from './output.js'

interface Pruned {
  name: string
  created: string
  /** Undefined: of a group. */
  volumes?: readonly string[]
  keep: boolean
  reasons: readonly string[]
  error: ErrorReport | null
}

export function prunedTable(results: readonly Pruned[], dryRun: boolean): string {
  const cells = (volumes: readonly string[] | undefined) =>
    volumes === undefined ? [] : [volumes.join(',')]
  const rows = results.map(({ name, created, volumes, keep, reasons, error }) => [
    keep ? out.green('keep') : error === null ? (dryRun ? 'would go' : 'gone') : out.red('failed'),
    name,
    created,
    ...cells(volumes),
    error?.message ?? reasons.join(', '),
  ])
  const of = results[0]?.volumes === undefined ? [] : ['VOLUMES']
  return table([['', 'NAME', 'TAKEN', ...of, 'WHY'], ...rows])
}
