/** Making two hosts peers: with one pasted token, or by an address of ssh. */
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import { FIRST_MESSAGE_MS_MAX, INVITATION_MS } from '../lib/limits.js'
import type { Logger } from '../lib/log.js'
import { Channel } from './channel.js'
import { Doorway } from './doorway.js'
import type { Identity } from './identity.js'
import type { HeaderOf, Message } from './message.js'
import { type Peers, parseToken, type SshPeer, type TlsPeer } from './peers.js'
import { connectSsh, type SshTarget } from './ssh.js'
import { connectTls, listenTls } from './tls.js'

/**
 * Connects to the host that made the token, proves by its secret to be invited, and remembers it.
 * `self` is the name by which the other host will know this one. TOKEN, CONNECTION, PEER_UNKNOWN.
 */
export async function acceptInvitation(options: {
  token: string
  self: string
  /** What to call the other host; default: as it calls itself. */
  name?: string | undefined
  identity: Identity
  peers: Peers
}): Promise<TlsPeer> {
  const { identity, peers, self } = options
  const { address, fingerprint, secret, ...token } = parseToken(options.token)
  if (fingerprint === identity.fingerprint) {
    throw new HoldfastError('TOKEN', 'that token is of this host itself', {
      op: 'peer.add',
      hint: 'Paste it on the other host.',
    })
  }
  const socket = await connectTls({ address, identity, fingerprint })
  const answer = await new Promise<Message>((resolve, reject) => {
    const channel = new Channel(socket, {
      onMessage: (message) => {
        resolve(message)
        channel.close(new HoldfastError('CONNECTION', 'introduced', { op: 'peer.add' }))
      },
      onClose: reject,
    })
    channel.send({ type: 'introduce', secret, name: self })
  })
  if (answer.header.type === 'introduced') {
    return peers.add({ name: options.name ?? token.name, fingerprint, address })
  }
  const why = answer.header.type === 'refuse' ? answer.header.message : answer.header.type
  throw new HoldfastError('TOKEN', `${address} refuses: ${why}`, {
    op: 'peer.add',
    hint: 'Make a new token there: holdfast peer token',
  })
}

/** The other side of it: whoever knows the secret is a peer from now on. TOKEN, PEER_EXISTS. */
export function admit(options: {
  request: HeaderOf<'introduce'>
  fingerprint: string
  peers: Peers
  log: Logger
}): TlsPeer {
  const { request, fingerprint, peers, log } = options
  if (!peers.redeem(request.secret)) {
    throw new HoldfastError('TOKEN', 'the token was used already, or is too old', {
      op: 'replication.introduce',
    })
  }
  const peer = peers.add({ name: request.name, fingerprint, address: null })
  log.info({ peer: peer.name, fingerprint }, 'a new peer')
  return peer
}

/**
 * Connects by ssh, to see that holdfast answers there, and remembers how. `name`: default: as that
 * host calls itself. CONNECTION, PROTOCOL_VERSION, PEER_EXISTS, USAGE.
 */
export async function addSshPeer(options: {
  target: SshTarget
  name?: string | undefined
  peers: Peers
  log: Logger
}): Promise<SshPeer> {
  const { target, peers, log } = options
  let found = ''
  const stream = await connectSsh({
    ...target,
    log,
    onGreeting: ({ host }) => {
      found = host
    },
  })
  stream.on('error', () => {})
  stream.destroy()
  const known = peers.byUrl(target.url)
  return peers.addSsh(options.name ?? known?.name ?? found, target)
}

/**
 * Listens for a host that has a token of this one, where nothing else does. The function given back
 * resolves when one has come. CONNECTION; then ABORTED, TIMEOUT.
 */
export async function awaitPeer(options: {
  /** HOST:PORT. */
  address: string
  /** How this host calls itself. */
  self: string
  identity: Identity
  peers: Peers
  log: Logger
}): Promise<(signal: AbortSignal) => Promise<TlsPeer>> {
  const { address, self, identity, peers, log } = options
  let arrived: (peer: TlsPeer) => void = () => {}
  const arrival = new Promise<TlsPeer>((resolve) => {
    arrived = resolve
  })
  const server = await listenTls({
    address,
    identity,
    doorway: new Doorway(log),
    onConnection: (socket, fingerprint) => {
      const channel = new Channel(socket, {
        onMessage: ({ header }) => {
          try {
            if (header.type !== 'introduce') throw notIntroduced(header.type)
            const peer = admit({ request: header, fingerprint, peers, log })
            channel.send({ type: 'introduced', name: self })
            arrived(peer)
          } catch (error) {
            const known = toHoldfastError(error, 'peer.token')
            log.warn({ error: known, fingerprint }, 'refused')
            channel.refuse(known)
          }
        },
        onClose: () => clearTimeout(timer),
      })
      const timer = setTimeout(() => channel.refuse(notIntroduced('nothing')), FIRST_MESSAGE_MS_MAX)
    },
  })
  return async (signal) => {
    try {
      return await Promise.race([arrival, interrupted(signal)])
    } finally {
      await server.close()
    }
  }
}

function interrupted(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    const fail = (code: 'ABORTED' | 'TIMEOUT', message: string) =>
      reject(new HoldfastError(code, message, { op: 'peer.token' }))
    signal.addEventListener('abort', () => fail('ABORTED', 'nobody has come'))
    setTimeout(
      () => fail('TIMEOUT', 'nobody has come: the token is too old'),
      INVITATION_MS,
    ).unref()
  })
}

function notIntroduced(what: string): HoldfastError {
  return new HoldfastError('PROTOCOL', `an introduction was expected, not ${what}`, {
    op: 'peer.token',
  })
}
