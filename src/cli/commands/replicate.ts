/** `holdfast replicate`, `holdfast wait` */
import { type Command, Option } from 'commander'
import { ControlClient } from '../../daemon/client.js'
import { findVolume } from '../../daemon/registry.js'
import type { ReplicaOptions } from '../../daemon/replicas.js'
import { formatCount } from '../../lib/format.js'
import { durationArgument, seqArgument, sizeArgument } from '../arguments.js'
import { interruptSignal, out, print, printJson, usageError } from '../output.js'

interface ReplicateFlags {
  to?: string
  stop?: string
  ack: ReplicaOptions['ack']
  onLoss: ReplicaOptions['onLoss']
  lossAfter?: number
  hold?: number
  scrubEvery?: number
  json?: boolean
}

interface WaitFlags {
  for: 'logged' | 'applied'
  seq?: bigint
  peer?: string
  timeout?: number
  json?: boolean
}

export function addReplicateCommands(program: Command): void {
  program
    .command('replicate')
    .summary("ship a volume's journal to a peer")
    .description(
      'From now on the peer keeps a replica of the volume. It begins with a baseline (the whole ' +
        'tree), taken while applications go on; after that every change follows. Again for the same ' +
        'peer: changes the options. The volume must be mounted.',
    )
    .argument('<volume>', 'name, mountpoint or directory of the volume')
    .option('--to <peer>', 'name of the peer (holdfast peer list)')
    .option('--stop <peer>', 'stop shipping to that peer; its replica stays as it is')
    .addOption(
      new Option('--ack <mode>', 'when fsync returns: at once, or when the replica has it')
        .choices(['async', 'sync-log', 'sync-apply'])
        .default('async'),
    )
    .addOption(
      new Option('--on-loss <policy>', 'what fsync does once a synchronous replica is lost')
        .choices(['continue', 'refuse'])
        .default('continue'),
    )
    .option(
      '--loss-after <time>',
      'how long fsync waits for it before (default: 10s)',
      durationArgument,
    )
    .option(
      '--hold <size>',
      'journal kept for a replica that is away (default: 128G)',
      sizeArgument,
    )
    .option(
      '--scrub-every <time>',
      'compare everything with it so often; 0s: never (default: 7d)',
      durationArgument,
    )
    .option('--json', 'as JSON')
    .addHelpText(
      'after',
      `
Examples:
  holdfast replicate data --to replica1
  holdfast replicate db --to replica1 --ack sync-log --on-loss refuse
  holdfast replicate data --stop replica1`,
    )
    .action(async (which: string, flags: ReplicateFlags) => {
      const { config } = findVolume(which)
      const client = new ControlClient(config.name)
      const { to, stop, ack, onLoss, lossAfter: lossMs, hold: holdBytes } = flags
      const { scrubEvery: scrubMs } = flags
      if ((to === undefined) === (stop === undefined)) {
        throw usageError('give either --to PEER or --stop PEER', 'See: holdfast replicate --help')
      }
      const replicas =
        to === undefined
          ? await client.stopReplicating(stop ?? '')
          : await client.replicate({ peer: to, ack, onLoss, lossMs, holdBytes, scrubMs })
      if (flags.json === true) return printJson(replicas)
      if (to === undefined)
        return print(`${out.bold(config.name)} is not shipped to ${stop} any more`)
      print(`${out.bold(config.name)} is shipped to ${out.bold(to)}, ${ack}`)
      print(out.dim(`  follow it: holdfast status ${config.name} --watch`))
    })

  program
    .command('wait')
    .summary('wait until replicas have what was written')
    .description(
      'Returns when every replica has logged, or applied, all that was captured when the command ' +
        'began; or --seq.',
    )
    .argument('<volume>', 'name, mountpoint or directory of the volume')
    .addOption(
      new Option('--for <what>', 'durable in its log, or visible in its tree')
        .choices(['logged', 'applied'])
        .default('applied'),
    )
    .option('--seq <seq>', 'up to this sequence number', seqArgument)
    .option('--peer <peer>', 'only this replica')
    .option('--timeout <time>', 'give up after this time (default: 30s)', durationArgument)
    .option('--json', 'as JSON')
    .addHelpText(
      'after',
      `
Exit codes: 0 they have it, 1 not in time, 3 the volume is not replicated.

Example:
  holdfast wait data --for applied --timeout 5m`,
    )
    .action(async (which: string, flags: WaitFlags) => {
      const client = new ControlClient(findVolume(which).config.name)
      const { seq, peer, timeout: waitMs } = flags
      const reply = await client.wait(
        {
          for: flags.for,
          peer,
          ...(seq === undefined ? {} : { seq: Number(seq) }),
          ...(waitMs === undefined ? {} : { waitMs }),
        },
        { signal: interruptSignal() },
      )
      if (flags.json === true) return printJson(reply)
      print(`${flags.for} up to seq ${formatCount(reply.seq)}`)
    })
}
