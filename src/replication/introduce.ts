/** Making two hosts peers with one pasted token. */
import { HoldfastError } from '../lib/errors.js'
import { Channel } from './channel.js'
import type { Identity } from './identity.js'
import type { Message } from './message.js'
import { type Peer, type Peers, parseToken } from './peers.js'
import { connectTls } from './tls.js'

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
}): Promise<Peer> {
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
