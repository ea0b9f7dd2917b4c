/**
 * What a hook is told: plain environment variables for shell scripts, all of it as JSON on standard
 * input. Hooks written for zrepl and sanoid find the variables that they know; docs/HOOKS.md lists them.
 */
import type { ErrorReport } from '../lib/errors.js'
import { HOOK_VARIABLE_CHARS_MAX } from '../lib/limits.js'
import type { Hook, Phase } from './hooks.js'

export interface HookVolume {
  name: string
  uuid: string
  mountpoint: string
  backing: string
  /** Of the snapshot's marker, once there is one. */
  seq?: number
}

/** What a snapshot is, or is to be. */
export interface HookSubject {
  snapshot: string
  volumes: readonly HookVolume[]
  labels: Readonly<Record<string, string>>
  maxHoldMs: number
  /** Nothing is taken or destroyed. */
  dryRun: boolean
  /** It is one of a group: all its members, on whatever hosts. */
  group?: HookGroup
}

export interface HookGroup {
  name: string
  coordinator: string
  /** `host` is as the coordinator knows it; '': the coordinator's own. */
  members: readonly { host: string; volume: string; uuid: string }[]
}

/** In what state a hook finds it. */
export interface HookOccasion extends HookSubject {
  phase: Phase
  /** Of `post-snapshot` and `failure`. */
  result?: 'taken' | 'failed'
  error?: ErrorReport
  /** Of `post-snapshot`: its own part before had failed, or had not ended in time. */
  preFailed: boolean
}

const VERSION = 1

/** One line of JSON; fields may be added, `version` changes when one goes or means something else. */
export function inputFor({ phase, ...rest }: HookOccasion): string {
  return `${JSON.stringify({ version: VERSION, phase, ...rest })}\n`
}

export function argumentsFor({ freeze }: Hook, { phase }: HookOccasion): string[] {
  if (!freeze) return [phase]
  return [phase === 'pre-snapshot' ? 'freeze' : 'thaw']
}

/** Empty where there is nothing to say, so that `set -u` does no harm. */
export function environmentFor(occasion: HookOccasion, timeoutMs: number): Record<string, string> {
  const told = Object.entries(variablesFor(occasion, timeoutMs))
  return Object.fromEntries(told.map(([name, value]) => [name, fitting(value)]))
}

/**
 * What others have said (an error quotes the last words of a program) may have bytes in it, or a length,
 * with which no program can be started: then nothing would be undone. The JSON has it as it is.
 */
function fitting(value: string): string {
  return value.replaceAll('\0', '').slice(0, HOOK_VARIABLE_CHARS_MAX)
}

function variablesFor(occasion: HookOccasion, timeoutMs: number): Record<string, string> {
  const { phase, snapshot, volumes, labels, dryRun, result, error, maxHoldMs } = occasion
  const [first] = volumes
  const each = (of: (volume: HookVolume) => string | number, by: string) => volumes.map(of).join(by)
  return {
    HOLDFAST_PHASE: phase,
    HOLDFAST_SNAPSHOT: snapshot,
    HOLDFAST_VOLUME: first?.name ?? '',
    HOLDFAST_VOLUMES: each(({ name }) => name, ' '),
    HOLDFAST_MOUNTPOINT: first?.mountpoint ?? '',
    HOLDFAST_MOUNTPOINTS: each(({ mountpoint }) => mountpoint, '\n'),
    HOLDFAST_SEQ: `${first?.seq ?? ''}`,
    HOLDFAST_SEQS: first?.seq === undefined ? '' : each(({ seq }) => seq ?? 0, ' '),
    HOLDFAST_GROUP: occasion.group?.name ?? '',
    HOLDFAST_GROUP_MEMBERS: (occasion.group?.members ?? [])
      .map(({ host, volume }) => `${host === '' ? occasion.group?.coordinator : host}/${volume}`)
      .join(' '),
    HOLDFAST_DRY_RUN: dryRun ? '1' : '',
    HOLDFAST_RESULT: result ?? '',
    HOLDFAST_ERROR: error?.message ?? '',
    HOLDFAST_ERROR_CODE: error?.code ?? '',
    HOLDFAST_PRE_FAILED: occasion.preFailed ? '1' : '',
    HOLDFAST_TIMEOUT_MS: `${timeoutMs}`,
    HOLDFAST_MAX_HOLD_MS: `${maxHoldMs}`,
    ...labelVariables(labels),
    ...zrepl(occasion, timeoutMs),
    ...sanoid(occasion),
  }
}

/** `ticket` → `HOLDFAST_LABEL_ticket`; what a variable cannot be called has `_` instead. */
function labelVariables(labels: HookSubject['labels']): Record<string, string> {
  const named = Object.entries(labels).map(([key, value]) => {
    return [`HOLDFAST_LABEL_${key.replaceAll(/[^A-Za-z0-9_]/g, '_')}`, value] as const
  })
  return Object.fromEntries(named)
}

function zrepl(occasion: HookOccasion, timeoutMs: number): Record<string, string> {
  const { phase, snapshot, volumes, dryRun } = occasion
  return {
    ZREPL_HOOKTYPE: phase.replaceAll('-', '_'),
    ZREPL_DRYRUN: dryRun ? 'true' : '',
    ZREPL_FS: volumes[0]?.name ?? '',
    ZREPL_SNAPNAME: snapshot,
    ZREPL_TIMEOUT: `${Math.floor(timeoutMs / 1000)}`,
  }
}

const SANOID_SCRIPT: Record<Phase, string> = {
  'pre-snapshot': 'pre',
  held: 'held',
  'post-snapshot': 'post',
  'pre-destroy': 'pre-destroy',
  failure: 'failure',
}

function sanoid({ phase, snapshot, volumes, labels, result, preFailed }: HookOccasion) {
  const names = volumes.map(({ name }) => name).join(',')
  return {
    SANOID_SCRIPT: SANOID_SCRIPT[phase],
    SANOID_TARGET: volumes[0]?.name ?? '',
    SANOID_TARGETS: names,
    SANOID_SNAPNAME: snapshot,
    SANOID_SNAPNAMES: snapshot,
    SANOID_TYPES: labels.schedule ?? '',
    SANOID_PRE_FAILURE: result === 'failed' || preFailed ? '1' : '0',
  }
}
