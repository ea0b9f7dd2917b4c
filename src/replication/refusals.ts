/** What ends a connection of the primary's: the replica's refusal, or what it should not have sent. */
import { HoldfastError } from '../lib/errors.js'
import type { HeaderOf, Message } from './message.js'

export function unexpected({ header }: Message): HoldfastError {
  if (header.type === 'refuse') return refusal(header)
  return new HoldfastError('PROTOCOL', `the peer sent ${header.type} out of turn`, {
    op: 'replication.ship',
  })
}

export function refusal({ code, message }: HeaderOf<'refuse'>): HoldfastError {
  return new HoldfastError('PEER_REFUSED', `the replica refuses: ${message}`, {
    op: 'replication.ship',
    details: { code },
  })
}
