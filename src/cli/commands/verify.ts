/** `holdfast verify`, `holdfast resync` */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Command } from 'commander'
import { ControlClient } from '../../daemon/client.js'
import { findVolume } from '../../daemon/registry.js'
import type { ReplicaStatus } from '../../daemon/replica-status.js'
import type { VerifiedReplica, VerifyProgress } from '../../daemon/verification.js'
import { ExitCode, HoldfastError } from '../../lib/errors.js'
import { formatBytes, formatCount, formatDuration } from '../../lib/format.js'
import { printable } from '../../lib/printable.js'
import { sizeArgument } from '../arguments.js'
import { interruptSignal, out, print, printJson } from '../output.js'

const POLL_MS = 100
/** Differences printed one by one; --json has all that are told. */
const SHOWN_MAX = 50

interface VerifyFlags {
  repair?: boolean
  peer?: string
  rate?: number
  json?: boolean
}

export function addVerifyCommands(program: Command): void {
  program
    .command('verify')
    .summary('compare a volume with its replicas')
    .description(
      'Compares everything (names, metadata, xattrs, data, holes) with the replicas, while ' +
        'applications go on, and names what differs. A replica that differs is Inconsistent until ' +
        'it is repaired.',
    )
    .argument('<volume>', 'name, mountpoint or directory of the volume')
    .option('--repair', 'bring over what differs')
    .option('--peer <peer>', 'only this replica')
    .option('--rate <size>', 'read at most so much in a second', sizeArgument)
    .option('--json', 'as JSON')
    .addHelpText(
      'after',
      `
Exit codes: 0 all are equal, or were repaired; 1 a replica could not be compared, 3 not replicated,
5 a replica differs.

Examples:
  holdfast verify data
  holdfast verify data --repair --rate 100M`,
    )
    .action(async (which: string, flags: VerifyFlags) => {
      const client = new ControlClient(findVolume(which).config.name)
      const { peer, repair = false, rate: bytesPerS = 0 } = flags
      const peers = peer === undefined ? undefined : [peer]
      const signal = interruptSignal()
      let progress = await client.verify({ peers, repair, bytesPerS })
      while (progress.state !== 'done' && progress.state !== 'failed') {
        if (signal.aborted) throw stillRunning('verify', client.name)
        line(progressText(progress))
        await sleep(POLL_MS, undefined, { signal }).catch(() => {})
        progress = (await client.verified()) ?? progress
      }
      line('')
      process.exitCode = exitCodeOf(progress)
      if (flags.json === true) return printJson(progress)
      if (progress.error !== null) throw HoldfastError.from(progress.error)
      const { objects, bytes, seconds } = progress
      for (const replica of progress.replicas) print(replicaText(replica))
      const took = formatDuration(seconds * 1e9)
      print(out.dim(`${formatCount(objects)} objects, ${formatBytes(bytes)} read in ${took}`))
    })

  program
    .command('resync')
    .summary('bring a replica back to its volume')
    .description(
      'The replica starts over from the tree it has: segments are compared by their codes, and only ' +
        'what differs is sent. holdfast does so by itself for a replica that the journal does not ' +
        'reach any more.',
    )
    .argument('<volume>', 'name, mountpoint or directory of the volume')
    .option('--peer <peer>', 'only this replica')
    .option('--no-wait', 'return at once; follow it with holdfast status')
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExample:\n  holdfast resync data --peer replica1')
    .action(async (which: string, flags: { peer?: string; wait: boolean; json?: boolean }) => {
      const client = new ControlClient(findVolume(which).config.name)
      const signal = interruptSignal()
      const chosen = (all: ReplicaStatus[]) =>
        all.filter(({ peer }) => flags.peer === undefined || peer === flags.peer)
      const before = chosen((await client.status()).replicas)
      const begun = Date.now()
      await client.resync(flags.peer)
      let replicas = before
      // The daemon takes it up in its own time.
      let seen = false
      while (flags.wait) {
        if (signal.aborted) throw stillRunning('resync', client.name)
        await sleep(POLL_MS, undefined, { signal }).catch(() => {})
        replicas = chosen((await client.status()).replicas)
        const busy = replicas.some(({ copy }) => copy === 'Inconsistent')
        seen ||=
          busy || replicas.every((each, index) => each.resyncs > (before[index]?.resyncs ?? 0))
        line(replicas.map(resyncText).join('; '))
        if (seen && !busy) break
      }
      line('')
      if (flags.json === true) return printJson(replicas)
      if (!flags.wait) return print('the resync begins')
      for (const [index, { peer, bytesSent }] of replicas.entries()) {
        const sent = formatBytes(bytesSent - (before[index]?.bytesSent ?? 0))
        const took = formatDuration((Date.now() - begun) * 1e6)
        print(`${out.bold(peer)} is the volume again: ${sent} sent in ${took}`)
      }
    })
}

function stillRunning(op: string, name: string): HoldfastError {
  return new HoldfastError('ABORTED', `not waiting any longer; the ${op} goes on`, {
    op,
    hint: `Follow it: holdfast status ${name} --watch`,
  })
}

/** One line that is overwritten by the next, on a terminal; the empty one clears it. */
function line(text: string): void {
  if (process.stderr.isTTY === true) process.stderr.write(`\r\x1b[K${text}`)
}

function progressText({ state, objects, bytes, seconds }: VerifyProgress): string {
  const done = `${formatCount(objects)} objects, ${formatBytes(bytes)}`
  const rate = seconds > 0 ? `, ${formatBytes(bytes / seconds)}/s` : ''
  return `${state}: ${done}${rate}`
}

function resyncText({ peer, copy, needs, lag }: ReplicaStatus): string {
  const left = needs > 0 ? `, ${formatCount(needs)} objects to bring over` : ''
  return `${peer}: ${copy}${left}, ${formatCount(lag.applied)} records behind`
}

function exitCodeOf({ state, replicas }: VerifyProgress): number {
  if (replicas.some(({ result }) => result === 'different')) return ExitCode.damaged
  const bad = state === 'failed' || replicas.some(({ result }) => result === 'interrupted')
  return bad ? ExitCode.failed : ExitCode.ok
}

function replicaText({ peer, result, differences, list, problem }: VerifiedReplica): string {
  const name = out.bold(peer)
  if (result === 'equal') {
    const holes = new Set(list.map(({ path }) => path)).size
    const note = `, with zeros stored in holes of ${formatCount(holes)} files`
    return `${name}: ${out.green('equal')}${holes === 0 ? '' : out.dim(note)}`
  }
  if (result === 'interrupted') return `${name}: ${out.red('not compared')}: ${problem}`
  const count = `${formatCount(differences)} ${differences === 1 ? 'difference' : 'differences'}`
  const head =
    result === 'repaired' ? `${out.yellow('repaired')}, ${count}` : out.red(`differs, ${count}`)
  const lines = list.slice(0, SHOWN_MAX).map(({ path, what, from, to }) => {
    const where = to > from ? `, bytes ${from} to ${to}` : ''
    return `  ${printable(Buffer.from(path, 'base64'))}  ${out.dim(`${what}${where}`)}`
  })
  const more = differences - lines.length
  if (more > 0) lines.push(out.dim(`  and ${formatCount(more)} more`))
  return [`${name}: ${head}`, ...lines].join('\n')
}
