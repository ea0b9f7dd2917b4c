/** `holdfast replica serve|list|follow|feed|history` */
import { type Command, Option } from 'commander'
import {
  feedReplica,
  followVolume,
  ReplicaPastClient,
  replicaHostStatus,
  stopFeeding,
  stopFollowing,
} from '../../daemon/replica-client.js'
import type { HostedReplica, HostStatus } from '../../daemon/replica-host.js'
import { formatBytes, formatCount, formatDuration } from '../../lib/format.js'
import { hostName } from '../../lib/host-name.js'
import { durationOrNone, sizeArgument } from '../arguments.js'
import { interruptSignal, out, print, printJson, table, usageError } from '../output.js'
import { connectionText, copyText, lagText, replicaText } from '../render-replicas.js'

const LISTEN_DEFAULT = '0.0.0.0:7420'
const ROOT_DEFAULT = '/var/lib/holdfast-replicas'

export function addReplicaCommands(program: Command): void {
  const replica = program.command('replica').summary('replicas that this host keeps for others')
  addServe(replica)
  addList(replica)
  addFollow(replica)
  addFeed(replica)
  addHistory(replica)
}

function addServe(replica: Command): void {
  replica
    .command('serve')
    .summary('keep replicas for peers')
    .description(
      'Listens for peers and keeps the replicas of their volumes: each in a directory of its own ' +
        'below --root, its tree readable in `tree`. Runs in the foreground; logs to stderr.',
    )
    .option('--listen <host:port>', 'where peers connect', LISTEN_DEFAULT)
    .option('--no-listen', 'nobody connects: for replicas that follow, or come by ssh')
    .option('--root <dir>', `directory of the replicas (default: "${ROOT_DEFAULT}")`)
    .option('--stdio', 'serve one connection on the standard streams: what ssh runs here')
    .option('--as <name>', 'with --stdio: name of the host at the other end')
    .addHelpText(
      'after',
      `
Examples:
  holdfast replica serve --listen 192.0.2.7:7420 --root /srv/replicas
  holdfast peer token --address replica1.example:7420      then let a primary in

In authorized_keys, for a key that may do nothing else:
  restrict,command="holdfast replica serve --stdio --as primary1 --root /srv/replicas" ssh-ed25519 …`,
    )
    .action(async (flags: ServeFlags) => {
      if (flags.stdio === true) return serveOverSsh(flags)
      if (flags.as !== undefined) throw usageError('--as is for --stdio')
      const { listen, root = ROOT_DEFAULT } = flags
      const { serveReplicas } = await import('../../daemon/replica-host.js')
      const { makeLogger } = await import('../../lib/log.js')
      const log = makeLogger({ fd: 2, base: { role: 'replica' } })
      const signal = interruptSignal()
      const served = await serveReplicas({ listen: listen === false ? null : listen, root, log })
      log.info({ status: served.status }, 'serving')
      await new Promise<void>((resolve) => {
        signal.addEventListener('abort', () => resolve())
      })
      await served.close()
      log.info('stopped in order')
      process.exit(0)
    })
}

interface ServeFlags {
  /** false: --no-listen. */
  listen: string | false
  root?: string
  stdio?: boolean
  as?: string
}

async function serveOverSsh({ root, as: peer }: ServeFlags): Promise<void> {
  if (peer === undefined) throw usageError('--stdio needs --as NAME: who is at the other end')
  if (process.stdin.isTTY === true || process.stdout.isTTY === true) {
    throw usageError('--stdio is for ssh to run, not for a terminal', 'See: holdfast replica serve')
  }
  const { serveStdio } = await import('../../daemon/replica-stdio.js')
  const { makeLogger } = await import('../../lib/log.js')
  // Goes to the log of the host at the other end.
  const level = process.env.HOLDFAST_LOG_LEVEL ?? 'warn'
  const log = makeLogger({ fd: 2, level, base: { role: 'replica', host: hostName() } })
  await serveStdio({ root, rootDefault: ROOT_DEFAULT, peer, log })
  process.exit(0)
}

function addList(replica: Command): void {
  replica
    .command('list')
    .summary('the replicas of this host, and how far they are')
    .option('--json', 'as JSON')
    .addHelpText(
      'after',
      `
Exit codes: 0 all can be relied on, 3 no server runs, 5 a replica is Inconsistent.

Example:
  holdfast replica list`,
    )
    .action(async ({ json = false }: { json?: boolean }) => {
      const status = await replicaHostStatus()
      const broken = status.replicas.some(({ copy }) => copy === 'Inconsistent')
      if (broken) process.exitCode = 5
      if (json) return printJson(status)
      print(listText(status))
    })
}

function listText({ replicas, follows }: HostStatus): string {
  const head = ['REPLICA', 'PRIMARY', 'CONNECTION', 'COPY', 'LOGGED', 'APPLIED', 'LAG', 'TREE']
  const rows = replicas.map((each) => [
    out.bold(each.name),
    each.primary,
    each.connected ? out.green('connected') : out.yellow('not connected'),
    copyText(each.copy),
    formatCount(each.logged),
    formatCount(each.applied),
    lagText(each.lag.records, each.lag.bytes, each.lag.seconds),
    each.problem === null ? `${each.tree}${lateText(each)}` : out.red(each.problem.message),
  ])
  const fed = replicas.flatMap((each: HostedReplica) =>
    each.feeds.map((feed) => [out.dim(`${each.name} feeds`), replicaText(feed)]),
  )
  const followed = follows.map(({ peer, volume, address, connection, problem }) => [
    out.dim('follows'),
    `${out.bold(volume)} of ${peer}${address === null ? '' : ` at ${address}`}: ` +
      connectionText(connection) +
      (problem === null ? '' : `; ${out.red(problem.message)}`),
  ])
  return [
    rows.length === 0 ? 'no replicas yet' : table([head.map((text) => out.dim(text)), ...rows]),
    ...[fed, followed].filter((each) => each.length > 0).map(table),
  ].join('\n')
}

function addFollow(replica: Command): void {
  replica
    .command('follow')
    .summary('connect to a peer for one of its volumes')
    .description(
      'For a host that cannot be reached from outside: it connects to the peer, now and after every ' +
        'break, and keeps a replica of the volume. The peer has to expect it: ' +
        '`holdfast replicate VOLUME --to THIS-HOST --listen HOST:PORT`. Needs `holdfast replica serve`.',
    )
    .argument('<peer>', 'name of the peer (holdfast peer list)')
    .argument('<volume>', 'name of the volume there')
    .option('--at <host:port>', 'where it listens (default: the address of its token)')
    .option('--stop', 'no longer; the replica stays as it is')
    .option('--json', 'as JSON')
    .addHelpText(
      'after',
      `
Examples:
  holdfast replica follow primary1 data --at primary1.example:7421
  holdfast replica follow primary1 data --stop`,
    )
    .action(
      async (
        peer: string,
        volume: string,
        flags: { at?: string; stop?: boolean; json?: boolean },
      ) => {
        const { at: address, stop = false, json = false } = flags
        const follows = await (stop ? stopFollowing : followVolume)({ peer, volume, address })
        if (json) return printJson(follows)
        if (stop) return print(`${out.bold(volume)} of ${peer} is not followed any more`)
        print(`${out.bold(volume)} of ${out.bold(peer)} is followed`)
        print(out.dim('  see how far it is: holdfast replica list'))
      },
    )
}

interface FeedFlags {
  to?: string
  stop?: string
  listen?: string
  hold?: number
  json?: boolean
}

function addFeed(replica: Command): void {
  replica
    .command('feed')
    .summary('ship a replica of this host to a further peer')
    .description(
      "The peer keeps a replica of this host's replica: it gets the same records from this host's log, " +
        'and applies what this host may apply. What this log does not have any more, a baseline, comes ' +
        'from the primary, through this host.',
    )
    .argument('<replica>', 'name of the replica (holdfast replica list)')
    .option('--to <peer>', 'name of the peer (holdfast peer list)')
    .option('--stop <peer>', 'no longer; its replica stays as it is')
    .option('--listen <host:port>', 'let the peer connect here, instead of connecting to it')
    .option('--hold <size>', 'log kept for it while it is away (default: 16G)', sizeArgument)
    .option('--json', 'as JSON')
    .addHelpText(
      'after',
      `
Examples:
  holdfast replica feed data --to replica3
  holdfast replica feed data --stop replica3`,
    )
    .action(async (name: string, { to, stop, listen, hold, json = false }: FeedFlags) => {
      if ((to === undefined) === (stop === undefined)) {
        throw usageError(
          'give either --to PEER or --stop PEER',
          'See: holdfast replica feed --help',
        )
      }
      const feeds =
        to === undefined
          ? await stopFeeding(name, stop ?? '')
          : await feedReplica(name, { peer: to, listen, holdBytes: hold })
      if (json) return printJson(feeds)
      print(
        to === undefined
          ? `${out.bold(name)} does not feed ${stop} any more`
          : `${out.bold(name)} feeds ${out.bold(to)}`,
      )
    })
}

interface HistoryFlags {
  mode?: 'none' | 'continuous'
  historySize?: number
  historyAge?: number | null
  json?: boolean
}

function addHistory(replica: Command): void {
  replica
    .command('history')
    .summary('what is kept of the past of a replica')
    .description(
      'With `continuous` the replay keeps what every change replaces, so that the tree of the primary ' +
        'can be seen as it was at any moment from then on: holdfast history mount. It costs this host ' +
        'alone. Without options: says what is kept.',
    )
    .argument('<replica>', 'name of the replica (holdfast replica list)')
    .addOption(
      new Option(
        '--mode <mode>',
        'every change, or nothing; nothing forgets what was kept',
      ).choices(['none', 'continuous']),
    )
    .option('--history-size <size>', 'how much of it (default: 64G)', sizeArgument)
    .option('--history-age <age>', 'how old its moments get, or none', durationOrNone)
    .option('--json', 'as JSON')
    .addHelpText(
      'after',
      `
Examples:
  holdfast replica history data --mode continuous --history-size 200G
  holdfast history mount data /mnt/before --to-time 10m --replica`,
    )
    .action(async (name: string, flags: HistoryFlags) => {
      const { mode, historySize, historyAge, json = false } = flags
      const client = new ReplicaPastClient(name)
      const change = { bytesMax: historySize, ageMs: historyAge }
      if (mode === undefined && (historySize !== undefined || historyAge !== undefined)) {
        throw usageError('--history-size and --history-age go with --mode continuous')
      }
      const status =
        mode === undefined ? await client.history() : await client.change({ mode, ...change })
      if (json) return printJson(status)
      if (status.mode === 'none') return print(`${out.bold(name)} keeps nothing of its past`)
      print(
        `${out.bold(name)} keeps every change from seq ${formatCount(status.fromSeq ?? 0)} on: ` +
          `${formatBytes(status.bytes)} of at most ${formatBytes(status.bytesMax)}`,
      )
    })
}

function lateText({ applyDelayMs }: HostedReplica): string {
  return applyDelayMs === 0 ? '' : ` (${formatDuration(applyDelayMs * 1e6)} late on purpose)`
}
