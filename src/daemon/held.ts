/**
 * A cut that stays at rest while something is done: hooks run, or other hosts come to rest. The volumes
 * gather and come to rest as for any other, and go on when that has ended, or by their own deadlines.
 * That it was done inside the hold is proven afterwards by the instants of both, as the cut itself is.
 */
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import type { Member } from '../snapshot/certificate.js'
import { failMeeting, releaseMeeting, untilAtRest } from '../snapshot/meeting.js'

/** `over`: nothing is certain to be held any more. */
export type WhileHeld = (over: AbortSignal) => Promise<void>

export interface HeldOptions {
  meeting: string
  members: number
  whileHeld: WhileHeld
  /** One of the members has ended its part: nothing is certain to be held any more. */
  over: AbortSignal
}

/** CLOCK_MONOTONIC, ns: it was done from here to there. Or why it was not. */
export type Held = { from: bigint; to: bigint } | { error: HoldfastError } | null

/** Has it done once all are at rest. null: they never were, and say so themselves. Never rejects. */
export async function runHeld(options: HeldOptions): Promise<Held> {
  const { meeting, members, whileHeld, over } = options
  try {
    if (!(await untilAtRest(meeting, { members, over }))) return null
    const from = process.hrtime.bigint()
    await whileHeld(over)
    const to = process.hrtime.bigint()
    releaseMeeting(meeting)
    return { from, to }
  } catch (error) {
    failMeeting(meeting)
    return { error: toHoldfastError(error, 'snapshot.held') }
  }
}

/** SNAPSHOT_FAILED: the hooks have failed, or did not run while everything was at rest. */
export function requireHeld(held: Held, members: readonly Member[]): void {
  if (held === null) return
  if ('error' in held) throw held.error
  const inside = members.every(({ restNs, releaseNs }) => {
    return BigInt(restNs) <= held.from && held.to <= BigInt(releaseNs)
  })
  if (inside) return
  throw new HoldfastError('SNAPSHOT_FAILED', 'what was to be done while I/O was on hold was not', {
    op: 'snapshot.held',
    details: { members },
  })
}
