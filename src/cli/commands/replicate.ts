/** `holdfast replicate`, `holdfast wait` */
import { type Command, InvalidArgumentError, Option } from 'commander'
import { ControlClient } from '../../daemon/client.js'
import { findVolume } from '../../daemon/registry.js'
import type { ReplicaRequest } from '../../daemon/replica-options.js'
import type { AcknowledgeStatus } from '../../daemon/replica-status.js'
import { formatCount } from '../../lib/format.js'
import {
  ACKS,
  type Ack,
  type Acknowledge,
  type AckPath,
  type AckPoint,
  parseAckAt,
  parseAckPath,
} from '../../replication/ack-options.js'
import {
  countArgument,
  durationArgument,
  type LagArgument,
  lagArgument,
  rateArgument,
  seqArgument,
  sizeArgument,
} from '../arguments.js'
import { followBaseline } from '../baseline.js'
import { interruptSignal, out, print, printJson, remark, usageError } from '../output.js'
import { acknowledgeText } from '../render-replicas.js'
import { addSsh, isSshUrl } from './peer.js'

interface ReplicateFlags {
  to?: string
  stop?: string
  ack?: Ack
  ackPath?: AckPath[]
  ackAt?: AckPoint[]
  quorum?: number | null
  onLoss?: 'continue' | 'refuse'
  lossAfter?: number
  hold?: number
  scrubEvery?: number
  rateLimit?: number | null
  maxLag?: LagArgument
  applyDelay?: number
  wait?: boolean
  listen?: string
  name?: string
  as?: string
  sshConfig?: string
  program?: string
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
        'peer: changes the options that are named. The volume must be mounted.',
    )
    .argument('<volume>', 'name, mountpoint or directory of the volume')
    .option(
      '--to <peer>',
      'name of the peer (holdfast peer list), or ssh://[user@]host[:port][/root]',
    )
    .option('--stop <peer>', 'stop shipping to that peer; its replica stays as it is')
    .addOption(
      new Option(
        '--ack <mode>',
        'when replies are held until this replica has it: never, durable in its log, or visible in ' +
          'its tree (default: async)',
      ).choices(ACKS),
    )
    .option(
      '--ack-path <path=mode>',
      'another mode below this path; the longest one wins. May be given several times, and then ' +
        'replaces all that there were; `none`: there are none (default: none)',
      collectAckPaths,
    )
    .option(
      '--ack-at <points>',
      'which replies: `durability` (fsync, fdatasync, writes of O_SYNC and O_DSYNC files), with ' +
        '`rename` and `close` if named as well; or `every-op`. For the whole volume (default: durability)',
      parseAckAt,
    )
    .option(
      '--quorum <n>',
      'how many of the synchronous replicas are enough, or `all`. For the whole volume (default: all)',
      quorumArgument,
    )
    .addOption(
      new Option(
        '--on-loss <policy>',
        'what becomes of replies once this replica is lost: they are not held any more, or fail ' +
          'with EIO (default: continue)',
      ).choices(['continue', 'refuse']),
    )
    .option(
      '--loss-after <time>',
      'how long a reply is held at most (default: 10s)',
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
    .option(
      '--rate-limit <size>',
      'bytes per second sent to this replica at most, the baseline included (default: none)',
      rateArgument,
    )
    .option(
      '--max-lag <size|time>',
      'changes are slowed down while the replica is further behind: 64M of changes, or 5s ' +
        '(default: none)',
      lagArgument,
    )
    .option(
      '--apply-delay <time>',
      "keep the replica's tree so far behind; its log is not delayed (default: 0s)",
      durationArgument,
    )
    .option('--wait', 'until the baseline is there, showing how far it is (default on a terminal)')
    .option('--no-wait', 'return at once; it goes on in the background')
    .option('--listen <host:port>', 'let the peer connect here, instead of connecting to it')
    .option('--name <name>', 'with ssh: how to call that host here (default: as it calls itself)')
    .option(
      '--as <name>',
      "with ssh: how that host is to call this one (default: this host's name)",
    )
    .option('--ssh-config <file>', 'with ssh: its configuration file, instead of the usual ones')
    .option('--program <command>', 'with ssh: what to run there (default: holdfast)')
    .option('--json', 'as JSON')
    .addHelpText(
      'after',
      `
Ctrl-C ends the waiting, not the baseline.

Examples:
  holdfast replicate data --to replica1
  holdfast replicate data --to ssh://root@replica2.example/srv/replicas
  holdfast replicate data --to replica3 --listen 0.0.0.0:7421      it runs: holdfast replica follow
  holdfast replicate db --to replica1 --ack sync-log --on-loss refuse
  holdfast replicate data --to replica1 --ack-path /ledger=sync-log --ack-path /cache=async
  holdfast replicate data --ack-at durability,rename --quorum 1
  holdfast replicate data --to undo --apply-delay 1h --rate-limit 20M
  holdfast replicate data --stop replica1`,
    )
    .action(replicate)

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

function collectAckPaths(text: string, before: AckPath[] = []): AckPath[] {
  return text === 'none' ? [] : [...before, parseAckPath(text)]
}

function quorumArgument(text: string): number | null {
  if (text === 'all') return null
  const count = countArgument(text)
  if (count > 0) return count
  throw new InvalidArgumentError('Give a number from 1 on, or all.')
}

async function replicate(which: string, flags: ReplicateFlags): Promise<void> {
  const { config } = findVolume(which)
  const client = new ControlClient(config.name)
  const { stop, json = false } = flags
  const own = optionsOf(flags)
  const common = commonOf(flags)
  const alone = Object.keys(common).length > 0 && Object.keys(own).length === 0
  if (flags.to !== undefined && stop !== undefined) {
    throw usageError('give either --to PEER or --stop PEER', 'See: holdfast replicate --help')
  }
  if (flags.to === undefined && stop === undefined && !alone) {
    throw usageError(
      'which replica? give --to PEER or --stop PEER',
      'Only --ack-at and --quorum are of the whole volume. See: holdfast replicate --help',
    )
  }
  if (stop !== undefined && (alone || Object.keys(own).length > 0)) {
    throw usageError('--stop takes no other options', 'See: holdfast replicate --help')
  }
  if (stop !== undefined) {
    const replicas = await client.stopReplicating(stop)
    if (json) return printJson(replicas)
    return print(`${out.bold(config.name)} is not shipped to ${stop} any more`)
  }
  const { to } = await peerFor(flags)
  if (to !== undefined) await client.replicate({ peer: to, ...own })
  if (Object.keys(common).length > 0) await client.setAcknowledge(common)
  const wait = flags.wait ?? (!json && process.stderr.isTTY === true)
  if (to !== undefined && wait) {
    await followBaseline(client, { peer: to, signal: interruptSignal() })
  }
  const status = await client.status()
  if (json) return printJson(to === undefined ? status.acknowledge : status.replicas)
  const ack = status.replicas.find(({ peer }) => peer === to)?.ack
  if (to !== undefined) {
    const [name, peer] = [out.bold(config.name), out.bold(to)]
    print(wait ? `${peer} has ${name}, ${ack}` : `${name} is shipped to ${peer}, ${ack}`)
  }
  if (Object.keys(common).length > 0) sayAcknowledge(status.acknowledge)
  print(out.dim(`  follow it: holdfast status ${config.name} --watch`))
}

function sayAcknowledge(acknowledge: AcknowledgeStatus): void {
  print(`replies wait at ${acknowledgeText(acknowledge)}`)
  if (!acknowledge.closeAtNextMount) return
  remark('close(2) waits from the next mount on: until then the kernel does not ask about it')
}

/** What is named of the replica's own options; the rest stays as it is. */
function optionsOf(flags: ReplicateFlags): Omit<ReplicaRequest, 'peer'> {
  const { ack, ackPath: ackPaths, onLoss, lossAfter: lossMs, hold: holdBytes } = flags
  const { rateLimit: rateBytes, applyDelay: applyDelayMs, maxLag, scrubEvery: scrubMs } = flags
  const { listen } = flags
  const own = { ack, ackPaths, onLoss, lossMs, holdBytes, scrubMs, rateBytes, applyDelayMs }
  return named({ ...own, listen, ...maxLag })
}

function commonOf({ ackAt: at, quorum }: ReplicateFlags): Partial<Acknowledge> {
  return named({ at, quorum })
}

function named<T extends object>(options: T): { [Name in keyof T]?: Exclude<T[Name], undefined> } {
  const entries = Object.entries(options).filter(([, value]) => value !== undefined)
  return Object.fromEntries(entries) as { [Name in keyof T]?: Exclude<T[Name], undefined> }
}

/** The name of the peer to ship to: one that ssh reaches is made a peer. */
async function peerFor({
  to,
  listen,
  ...ssh
}: ReplicateFlags): Promise<{ to: string | undefined }> {
  if (to !== undefined && isSshUrl(to)) {
    if (listen !== undefined) throw usageError('--listen is for peers that connect, not for ssh')
    return { to: (await addSsh(to, ssh)).name }
  }
  if (ssh.sshConfig !== undefined || ssh.program !== undefined) {
    throw usageError('--ssh-config and --program need --to ssh://…')
  }
  return { to }
}
