/** What ends a connection: the other side's refusal, what it should not have sent, who it is. */
import { HoldfastError } from '../lib/errors.js'
import type { HeaderOf, Message } from './message.js'

/** What a message says that is no answer at this point. */
export function unexpected({ header }: Message): HoldfastError {
  const op = 'replication.ship'
  return header.type === 'refuse'
    ? refusal(header, { who: 'replica', op })
    : outOfTurn(header, { op })
}

export function refusal(
  { code, message }: HeaderOf<'refuse'>,
  { who, op }: { who: 'replica' | 'peer'; op: string },
): HoldfastError {
  return new HoldfastError('PEER_REFUSED', `the ${who} refuses: ${message}`, {
    op,
    details: { code },
  })
}

export function outOfTurn(
  { type }: { type: string },
  about: { op: string; hint?: string },
): HoldfastError {
  return new HoldfastError('PROTOCOL', `the peer sent ${type} out of turn`, about)
}

/** A stranger. */
export function unknownPeer(op: string): HoldfastError {
  return new HoldfastError('PEER_UNKNOWN', 'this host does not know you', {
    op,
    hint: 'Introduce the hosts: holdfast peer token, holdfast peer add.',
  })
}
