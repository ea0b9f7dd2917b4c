/** Which replicas of a volume a request is about. */
import { HoldfastError } from '../lib/errors.js'

/** Those of `peers`, or all where none is named. NOT_REPLICATED: there is none. */
export function chooseReplicas<T>(
  all: ReadonlyMap<string, T>,
  { peers, op }: { peers: readonly string[] | undefined; op: string },
): T[] {
  const chosen = [...all].filter(([peer]) => peers === undefined || peers.includes(peer))
  if (chosen.length > 0) return chosen.map(([, replica]) => replica)
  const to = peers === undefined ? '' : ` to ${peers.join(', ')}`
  throw new HoldfastError('NOT_REPLICATED', `the volume is not replicated${to}`, { op })
}
