/** `holdfast peer token|add|list|remove` */
import type { Command } from 'commander'
import { callControl } from '../../daemon/call.js'
import { hostDirectory, replicaSocketPath } from '../../daemon/places.js'
import type { HostStatus } from '../../daemon/replica-host.js'
import { hostName } from '../../daemon/replicas.js'
import { HoldfastError } from '../../lib/errors.js'
import { out, print, printJson, remark, table } from '../output.js'

/** Loaded when needed: the certificate library takes longer than most commands run. */
async function identityAndPeers() {
  const { hostIdentity } = await import('../../replication/identity.js')
  const { Peers } = await import('../../replication/peers.js')
  const identity = await hostIdentity(hostDirectory())
  return { identity, peers: new Peers(hostDirectory()) }
}

export function addPeerCommands(program: Command): void {
  const peer = program
    .command('peer')
    .summary('the hosts that this host knows')
    .description(
      'Two hosts know each other after one token was made on the one that serves replicas and ' +
        'pasted on the other. Each has a key of its own; its fingerprint is pinned then.',
    )

  peer
    .command('token')
    .summary('a token that lets another host become a peer')
    .description(
      'Prints a token to paste on the other host. It is good once, for 15 minutes, and only while ' +
        '`holdfast replica serve` runs here.',
    )
    .requiredOption('--address <host:port>', 'where the other host reaches the server of this one')
    .option('--name <name>', "how the other host calls this one (default: this host's name)")
    .addHelpText('after', '\nExample:\n  holdfast peer token --address replica1.example:7420')
    .action(async ({ address, name = hostName() }: { address: string; name?: string }) => {
      const { parseAddress } = await import('../../replication/tls.js')
      parseAddress(address)
      const { identity, peers } = await identityAndPeers()
      print(peers.invite({ name, address, fingerprint: identity.fingerprint }))
      remark('paste it there: holdfast peer add TOKEN')
    })

  peer
    .command('add')
    .summary('become the peer of the host that made a token')
    .argument('<token>', 'what `holdfast peer token` printed there')
    .option('--name <name>', 'how to call that host here (default: as it calls itself)')
    .option('--as <name>', "how that host is to call this one (default: this host's name)")
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExample:\n  holdfast peer add holdfast-eyJ2IjoxLCJuYW1lIjoi…')
    .action(async (token: string, flags: { name?: string; as?: string; json?: boolean }) => {
      const { identity, peers } = await identityAndPeers()
      const { acceptInvitation } = await import('../../replication/introduce.js')
      const { name, as: self = hostName() } = flags
      const added = await acceptInvitation({ token, self, name, identity, peers })
      if (flags.json === true) return printJson(added)
      print(`${out.bold(added.name)} at ${added.address} is a peer now, and so is this host there`)
    })

  peer
    .command('list')
    .summary('all peers, and this host itself')
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExample:\n  holdfast peer list')
    .action(async ({ json = false }: { json?: boolean }) => {
      const { identity, peers } = await identityAndPeers()
      const list = peers.list()
      if (json)
        return printJson({ host: hostName(), fingerprint: identity.fingerprint, peers: list })
      const { formatFingerprint } = await import('../../replication/identity.js')
      print(`this host  ${out.bold(hostName())}  ${formatFingerprint(identity.fingerprint)}`)
      if (list.length === 0) return print('no peers; introduce one: holdfast peer token --help')
      const rows = list.map(({ name, address, fingerprint }) => [
        out.bold(name),
        address ?? out.dim('connects to us'),
        formatFingerprint(fingerprint),
      ])
      print(table([['PEER', 'ADDRESS', 'FINGERPRINT'].map((text) => out.dim(text)), ...rows]))
    })

  peer
    .command('remove')
    .summary('no longer know a host')
    .description('Its connections are cut within a second, and it is a stranger from then on.')
    .argument('<peer>', 'name of the peer')
    .addHelpText('after', '\nExample:\n  holdfast peer remove replica1')
    .action(async (name: string) => {
      const { peers } = await identityAndPeers()
      peers.remove(name)
      print(`${out.bold(name)} is no peer any more`)
    })
}

/** What the replica host of this machine says; VOLUME_NOT_RUNNING when none runs. */
export function replicaHostStatus(): Promise<HostStatus> {
  return callControl<HostStatus>({
    socket: replicaSocketPath(),
    method: 'GET',
    path: '/v1/replicas',
    body: undefined,
    options: {},
    daemon: 'the replica server',
    absent: () =>
      new HoldfastError('VOLUME_NOT_RUNNING', 'no replica server runs on this host', {
        op: 'replica.list',
        hint: 'Start it: holdfast replica serve --help',
      }),
  })
}
