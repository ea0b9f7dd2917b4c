/** `holdfast peer token|add|list|remove` */
import { resolve } from 'node:path'
import type { Command } from 'commander'
import { groupExecDirectory, hostDirectory } from '../../daemon/places.js'
import { hostName } from '../../lib/host-name.js'
import { makeLogger, silentLogger } from '../../lib/log.js'
import type { SshPeer } from '../../replication/peers.js'
import { fineDurationArgument } from '../arguments.js'
import { interruptSignal, out, print, printJson, remark, table, usageError } from '../output.js'

/** Loaded when needed: the certificate library takes longer than most commands run. */
async function identityAndPeers() {
  const { hostIdentity } = await import('../../replication/identity.js')
  const { Peers } = await import('../../replication/peers.js')
  const identity = await hostIdentity(hostDirectory())
  return { identity, peers: new Peers(hostDirectory()) }
}

interface AddFlags {
  name?: string
  as?: string
  sshConfig?: string
  program?: string
  json?: boolean
}

export function isSshUrl(text: string): boolean {
  return text.startsWith('ssh://')
}

/** Becomes the peer of a host that ssh reaches. */
export async function addSsh(
  url: string,
  { name, as: self = hostName(), sshConfig, program = 'holdfast' }: AddFlags,
): Promise<SshPeer> {
  const { peers } = await identityAndPeers()
  const { addSshPeer } = await import('../../replication/introduce.js')
  const config = sshConfig === undefined ? null : resolve(sshConfig)
  // What ssh says is in the error, if there is one.
  return addSshPeer({ target: { url, config, program, self }, name, peers, log: silentLogger() })
}

export function addPeerCommands(program: Command): void {
  const peer = program
    .command('peer')
    .summary('the hosts that this host knows')
    .description(
      'Two hosts know each other after one token was made on the one that can be reached and pasted ' +
        'on the other. Each has a key of its own; its fingerprint is pinned then. A host that ssh ' +
        'reaches needs no token: ssh knows who is who.',
    )

  peer
    .command('token')
    .summary('a token that lets another host become a peer')
    .description(
      'Prints a token to paste on the other host. It is good once, for 15 minutes. Something here must ' +
        'listen at the address meanwhile: `holdfast replica serve`, a volume that is replicated with ' +
        '--listen, or this command with --listen.',
    )
    .requiredOption('--address <host:port>', 'where the other host reaches the server of this one')
    .option('--name <name>', "how the other host calls this one (default: this host's name)")
    .option('--listen <host:port>', 'listen there until the other host has come')
    .addHelpText(
      'after',
      `
Examples:
  holdfast peer token --address replica1.example:7420
  holdfast peer token --address primary.example:7421 --listen 0.0.0.0:7421   nothing else listens yet`,
    )
    .action(async (flags: { address: string; name?: string; listen?: string }) => {
      const { address, name = hostName(), listen } = flags
      const { parseAddress } = await import('../../replication/tls.js')
      parseAddress(address)
      const { identity, peers } = await identityAndPeers()
      const { awaitPeer } = await import('../../replication/introduce.js')
      const log = makeLogger({ fd: 2, level: process.env.HOLDFAST_LOG_LEVEL ?? 'warn' })
      const arrival =
        listen === undefined
          ? undefined
          : await awaitPeer({ address: listen, self: name, identity, peers, log })
      print(peers.invite({ name, address, fingerprint: identity.fingerprint }))
      remark('paste it there: holdfast peer add TOKEN')
      if (arrival === undefined) return
      const peer = await arrival(interruptSignal())
      remark(`${peer.name} is a peer now`)
    })

  peer
    .command('add')
    .summary('become the peer of a host that made a token, or that ssh reaches')
    .argument(
      '<token>',
      'what `holdfast peer token` printed there, or ssh://[user@]host[:port][/root]',
    )
    .option('--name <name>', 'how to call that host here (default: as it calls itself)')
    .option('--as <name>', "how that host is to call this one (default: this host's name)")
    .option('--ssh-config <file>', 'configuration file for ssh, instead of the usual ones')
    .option('--program <command>', 'what ssh runs there (default: holdfast)')
    .option('--json', 'as JSON')
    .addHelpText(
      'after',
      `
Examples:
  holdfast peer add holdfast-eyJ2IjoxLCJuYW1lIjoi…
  holdfast peer add ssh://root@replica2.example/srv/replicas --name replica2`,
    )
    .action(async (token: string, flags: AddFlags) => {
      if (isSshUrl(token)) {
        const added = await addSsh(token, flags)
        if (flags.json === true) return printJson(added)
        return print(`${out.bold(added.name)} at ${added.ssh.url} answers, and is a peer now`)
      }
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
      const rows = list.map((each) => {
        const far = each.oneWayMs ? `at least ${each.oneWayMs} ms away` : ''
        return 'ssh' in each
          ? [out.bold(each.name), each.ssh.url, out.dim('known to ssh'), far]
          : [
              out.bold(each.name),
              each.address ?? out.dim('connects to us'),
              formatFingerprint(each.fingerprint),
              far,
            ]
      })
      print(table([['PEER', 'ADDRESS', 'FINGERPRINT'].map((text) => out.dim(text)), ...rows]))
    })

  addAllow(peer)

  peer
    .command('distance')
    .summary('how far away a host is at least')
    .description(
      'What a message takes at least, each way: light needs 1 ms for 200 km of fibre. A snapshot of a group ' +
        'by schedule holds I/O for as long as the clock of a host is uncertain, which is half of the round ' +
        'trip; what is known here is no part of it. Too much would break its proof: say less rather than more.',
    )
    .argument('<peer>', 'name of the peer')
    .requiredOption(
      '--at-least <time>',
      'one way, as 19ms; 0ms takes it back',
      fineDurationArgument,
    )
    .addHelpText(
      'after',
      '\nExample:\n  holdfast peer distance files2 --at-least 9.5ms   1,900 km of fibre',
    )
    .action(async (name: string, { atLeast }: { atLeast: number }) => {
      const { peers } = await identityAndPeers()
      peers.setDistance(name, atLeast)
      print(`${out.bold(name)} is at least ${atLeast} ms away`)
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

interface AllowFlags {
  all?: boolean
  exec?: string[]
  restore?: boolean
  restoreTo?: string
}

function addAllow(peer: Command): void {
  peer
    .command('allow')
    .summary('let a host coordinate groups with volumes of this host')
    .description(
      'The peer may hold I/O of these volumes for a moment, and have snapshots of them taken, shown and ' +
        'forgotten. To run programs here, and to bring moments back, has to be allowed beyond that. ' +
        'Replaces what it was allowed before; without volumes it may nothing any more.',
    )
    .argument('<peer>', 'name of the peer')
    .argument('[volume...]', 'names of volumes')
    .option('--all', 'all volumes, also those to come')
    .option(
      '--exec <program>',
      `it may run this one of ${groupExecDirectory()} on its snapshots; again for more`,
      (text: string, before: string[] = []) => [...before, text],
    )
    .option('--restore', 'it may bring moments of these volumes back, in place')
    .option('--restore-to <dir>', 'it may make copies of moments of these volumes below there')
    .addHelpText(
      'after',
      `
Examples:
  holdfast peer allow backup1 db mail
  holdfast peer allow backup1 db --exec backup --restore-to /restore`,
    )
    .action(async (name: string, volumes: string[], flags: AllowFlags) => {
      const { findVolume } = await import('../../daemon/registry.js')
      const { peers } = await identityAndPeers()
      const { all = false, exec: mayRun, restore, restoreTo } = flags
      const mayCut = all ? ['*'] : volumes.map((each) => findVolume(each).config.name)
      const copiesBelow = restoreTo === undefined ? undefined : resolve(restoreTo)
      const further = { mayRun, mayRestore: restore, copiesBelow }
      const given = Object.entries(further).filter(([, value]) => value !== undefined)
      if (mayCut.length === 0 && given.length > 0) {
        throw usageError('of which volumes?', 'Name them, or: --all')
      }
      peers.allow(name, { mayCut, ...Object.fromEntries(given) })
      const what = all ? 'all volumes' : mayCut.join(', ') || 'nothing'
      print(`${out.bold(name)} may hold and snapshot ${what}`)
      if (mayRun !== undefined) print(`  and run ${mayRun.join(', ')} on snapshots`)
      if (restore === true) print('  and bring moments back in place')
      if (copiesBelow !== undefined) print(`  and make copies of moments below ${copiesBelow}`)
    })
}
