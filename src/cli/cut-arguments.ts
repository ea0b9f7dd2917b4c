/** How a snapshot of a group is taken, on the command line. */
import { type Command, Option } from 'commander'
import type { SaidOfCut } from '../daemon/group-cut.js'
import type { CutMethod } from '../group/definition.js'
import {
  CUT_ATTEMPTS_DEFAULT,
  CUT_HOLD_MS_DEFAULT,
  GROUP_TIMEOUT_MS_DEFAULT,
  GROUP_TIMEOUT_MS_MAX,
} from '../lib/limits.js'
import { countArgument, durationArgument } from './arguments.js'
import { labelArgument } from './keep-arguments.js'
import { usageError } from './output.js'

export interface CutFlags {
  method?: CutMethod | 'auto'
  maxHold?: number
  attempts?: number
  timeout?: number
  label?: Record<string, string>
  hooks: boolean
  checkLocks?: number
  whenFree?: number
}

export function methodOption(): Option {
  return new Option('--method <method>', 'how all are held at one instant (default: auto)').choices(
    ['auto', 'scheduled', 'barrier'],
  )
}

/** Those of groups only; `--max-hold` is everybody's. */
export function addCutOptions(command: Command): Command {
  return command
    .addOption(methodOption())
    .option(
      '--attempts <n>',
      `how often it is tried (default: ${CUT_ATTEMPTS_DEFAULT})`,
      countArgument,
    )
    .option(
      '--timeout <time>',
      `for how long members stay prepared (default: ${GROUP_TIMEOUT_MS_DEFAULT / 1000}s)`,
      durationArgument,
    )
    .option(
      '--check-locks <time>',
      'only if all applications release their write locks while writes wait for so long',
      durationArgument,
    )
    .option(
      '--when-free <window>',
      'at a moment when nobody holds a write lock, within this time',
      durationArgument,
    )
    .option('--label <key=value>', 'a note to it; again for more', labelArgument)
    .option('--no-hooks', 'run none, on no host')
}

export const MAX_HOLD = [
  '--max-hold <time>',
  `longest time that I/O may be held anywhere (default: ${CUT_HOLD_MS_DEFAULT}ms)`,
  durationArgument,
] as const

/** What was said. */
export function cutOrder(flags: CutFlags): SaidOfCut {
  const { method, maxHold: maxHoldMs, timeout: timeoutMs, label: labels, attempts, hooks } = flags
  const { checkLocks: checkLocksMs, whenFree: freeWithinMs } = flags
  if (timeoutMs !== undefined && timeoutMs > GROUP_TIMEOUT_MS_MAX) {
    throw usageError(`--timeout is at most ${GROUP_TIMEOUT_MS_MAX / 3_600_000}h`)
  }
  return { method, maxHoldMs, timeoutMs, labels, attempts, hooks, checkLocksMs, freeWithinMs }
}
