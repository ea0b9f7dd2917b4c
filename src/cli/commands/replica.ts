/** `holdfast replica serve|list` */
import type { Command } from 'commander'
import type { HostedReplica } from '../../daemon/replica-host.js'
import { formatCount, formatDuration } from '../../lib/format.js'
import { interruptSignal, out, print, printJson, table } from '../output.js'
import { copyText, lagText } from '../render-replicas.js'
import { replicaHostStatus } from './peer.js'

const LISTEN_DEFAULT = '0.0.0.0:7420'
const ROOT_DEFAULT = '/var/lib/holdfast-replicas'

export function addReplicaCommands(program: Command): void {
  const replica = program.command('replica').summary('replicas that this host keeps for others')

  replica
    .command('serve')
    .summary('keep replicas for peers')
    .description(
      'Listens for peers and keeps the replicas of their volumes: each in a directory of its own ' +
        'below --root, its tree readable in `tree`. Runs in the foreground; logs to stderr.',
    )
    .option('--listen <host:port>', 'where peers connect', LISTEN_DEFAULT)
    .option('--root <dir>', 'directory of the replicas', ROOT_DEFAULT)
    .addHelpText(
      'after',
      `
Examples:
  holdfast replica serve --listen 192.0.2.7:7420 --root /srv/replicas
  holdfast peer token --address replica1.example:7420      then let a primary in`,
    )
    .action(async ({ listen, root }: { listen: string; root: string }) => {
      const { serveReplicas } = await import('../../daemon/replica-host.js')
      const { makeLogger } = await import('../../lib/log.js')
      const log = makeLogger({ fd: 2, base: { role: 'replica' } })
      const signal = interruptSignal()
      const served = await serveReplicas({ listen, root, log })
      log.info({ status: served.status }, 'serving')
      await new Promise<void>((resolve) => {
        signal.addEventListener('abort', () => resolve())
      })
      await served.close()
      log.info('stopped in order')
      process.exit(0)
    })

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
      if (status.replicas.length === 0) return print('no replicas yet')
      const rows = status.replicas.map((each) => [
        out.bold(each.name),
        each.primary,
        each.connected ? out.green('connected') : out.yellow('not connected'),
        copyText(each.copy),
        formatCount(each.logged),
        formatCount(each.applied),
        lagText(each.lag.records, each.lag.bytes, each.lag.seconds),
        each.problem === null ? `${each.tree}${lateText(each)}` : out.red(each.problem.message),
      ])
      const head = ['REPLICA', 'PRIMARY', 'CONNECTION', 'COPY', 'LOGGED', 'APPLIED', 'LAG', 'TREE']
      print(table([head.map((text) => out.dim(text)), ...rows]))
    })
}

function lateText({ applyDelayMs }: HostedReplica): string {
  return applyDelayMs === 0 ? '' : ` (${formatDuration(applyDelayMs * 1e6)} late on purpose)`
}
