/** Hooks for people: those there are, and how they have ended. */
import { formatDuration } from '../lib/format.js'
import { printable } from '../lib/printable.js'
import { describeRun, type HookRun } from '../snapshot/hook-run.js'
import type { Hook } from '../snapshot/hooks.js'
import { err, out, table } from './output.js'

export function hookList(hooks: readonly Hook[]): string {
  const rows = hooks.map(({ name, phases, timeoutMs, onFailure, program }) => {
    return [name, phases.join(','), formatDuration(timeoutMs * 1e6), onFailure, program]
  })
  return table([['HOOK', 'PHASES', 'TIMEOUT', 'ON FAILURE', 'PROGRAM'], ...rows])
}

/** A line for each, and what those said that have failed. */
export function hookRuns(runs: readonly HookRun[]): string[] {
  return runs.flatMap((run) => {
    const end = run.result === 'ok' ? out.green('ok') : out.red(describeRun(run))
    const said = run.result === 'ok' ? [] : lines(run.stderr).map((line) => out.dim(`    ${line}`))
    return [`hook ${run.hook}, ${run.phase}: ${end}, ${formatDuration(run.ms * 1e6)}`, ...said]
  })
}

/** What somebody should know who has a snapshot all the same. */
export function failedHooks(runs: readonly HookRun[]): string[] {
  return runs
    .filter(({ result }) => result !== 'ok')
    .flatMap((run) => [
      `${err.yellow('warning')}: hook ${run.hook} failed in ${run.phase}: ${describeRun(run)}`,
      ...lines(run.stderr).map((line) => err.dim(`  ${line}`)),
    ])
}

function lines(text: string): string[] {
  if (text === '') return []
  return text.split('\n').map((line) => printable(Buffer.from(line)))
}
