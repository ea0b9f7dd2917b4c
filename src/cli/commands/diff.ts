/** `holdfast diff` */
import { once } from 'node:events'
import { type Command, Option } from 'commander'
import { findVolume, listVolumes } from '../../daemon/registry.js'
import type { Diff } from '../../daemon/restore.js'
import { ExitCode } from '../../lib/errors.js'
import type { TreeChange } from '../../lib/tree.js'
import { rawArgument } from '../arguments.js'
import { interruptSignal, out, print, printJson, remark, usageError } from '../output.js'
import {
  changeNul,
  changeText,
  isQuiet,
  ResticFiles,
  Tally,
  treeChangeJson,
} from '../render-tree.js'

const FORMATS = ['text', 'json', 'nul', 'restic-files'] as const
type Format = (typeof FORMATS)[number]

interface DiffFlags {
  path?: string
  format?: Format
  json?: boolean
  ranges?: boolean
  summary?: boolean
  thorough?: boolean
  prefix?: string
  exitCode?: boolean
}

export function addDiffCommand(program: Command): void {
  program
    .command('diff')
    .summary('what differs between two moments')
    .description(
      'Compares the tree of moment A with that of moment B, or with what is there now: what was ' +
        'created, deleted, changed, renamed, and whose metadata differ. A moment is "10 minutes ago", ' +
        '"yesterday 14:00", ISO 8601, seq:1234, now, or the name of a snapshot.',
    )
    .argument('<what...>', '[VOLUME] A [B]; the volume may be left out when there is one only')
    .option('--path <path>', 'only this file or directory')
    .option('--json', 'one object per line')
    .addOption(new Option('--format <format>', 'text, json, nul, restic-files').choices(FORMATS))
    .option('--ranges', 'which bytes differ, in blocks of 4 KiB')
    .option('--summary', 'only how many there are of each')
    .option('--thorough', 'read everything, whatever inode numbers and times say')
    .option('--prefix <dir>', 'restic-files: where B is, for restic (default: its mountpoint)')
    .option('--exit-code', 'end with 5 when there are differences')
    .addHelpText(
      'after',
      `
Formats: nul is a path after the other, relative to the root, each with a NUL behind it (of what was
renamed, the old path first). restic-files is for restic backup --files-from-raw: absolute paths of what
was created, changed or renamed; what was deleted is not in such a list. In text, directories of which
only the time differs are left out.

Exit codes: 0 compared, 2 wrong usage, 3 not kept or not mounted; with --exit-code 5: they differ.

Examples:
  holdfast diff data "10 minutes ago"
  holdfast diff data before-upgrade now --path etc --ranges
  holdfast diff data monday --format restic-files | restic backup --files-from-raw /dev/stdin`,
    )
    .action(async (words: string[], flags: DiffFlags) => {
      const { diffMoments } = await import('../../daemon/restore.js')
      const { volume, from, to } = chooseMoments(words)
      const { path, ranges = false, thorough = false } = flags
      const signal = interruptSignal()
      const scope = path === undefined ? undefined : rawArgument(path)
      const options = { volume, from, to, path: scope, ranges, thorough, signal }
      const tally = await diffMoments(options, (diff) => tell(diff, flags))
      if (flags.exitCode === true && tally.total > 0) process.exitCode = ExitCode.damaged
    })
}

/** `[VOLUME] A [B]` */
function chooseMoments(words: string[]): { volume: string; from: string; to: string | undefined } {
  const [first = '', second, third, ...more] = words
  if (more.length > 0) throw usageError('too many arguments', 'Quote a moment of several words.')
  if (third !== undefined) return { volume: first, from: second ?? '', to: third }
  if (second !== undefined && isVolume(first)) return { volume: first, from: second, to: undefined }
  const [only, ...others] = listVolumes()
  if (only === undefined || others.length > 0) {
    throw usageError('which volume?', 'holdfast diff VOLUME A [B]; see: holdfast list')
  }
  return { volume: only.config.name, from: first, to: second }
}

function isVolume(word: string): boolean {
  try {
    findVolume(word)
    return true
  } catch {
    return false
  }
}

async function tell(diff: Diff, flags: DiffFlags): Promise<Tally> {
  const format = flags.json === true ? 'json' : (flags.format ?? 'text')
  const { from, to, changes } = diff
  const tally = new Tally()
  if (format === 'text') remark(out.dim(`A = ${from.text}\nB = ${to.text}`))
  const root = flags.prefix === undefined ? diff.root : Buffer.from(flags.prefix)
  const write = flags.summary === true ? undefined : writer(format, root)
  for await (const change of changes) {
    tally.add(change)
    const piece = write?.(change)
    if (piece !== undefined && !process.stdout.write(piece)) await once(process.stdout, 'drain')
  }
  if (flags.summary === true && format === 'json') {
    printJson({ from: from.text, to: to.text, ...tally.toJSON() })
  } else if (flags.summary === true) print(tally.text())
  else if (format === 'text') remark(out.dim(tally.text()))
  return tally
}

function writer(format: Format, root: Buffer): (change: TreeChange) => string | Buffer | undefined {
  if (format === 'text') {
    return (change) => (isQuiet(change) ? undefined : `${changeText(change)}\n`)
  }
  if (format === 'json') return (change) => `${jsonLine(change)}\n`
  if (format === 'nul') return changeNul
  const list = new ResticFiles(root)
  return (change) => list.list(change)
}

export function jsonLine(change: TreeChange): string {
  return JSON.stringify(treeChangeJson(change), (_key, value) =>
    typeof value !== 'bigint'
      ? value
      : Number.isSafeInteger(Number(value))
        ? Number(value)
        : `${value}`,
  )
}
