/**
 * Whether what the hosts of a cut report is one instant, told after the fact.
 *
 * Clocks drift apart: what is known of one holds for an instant, and proves nothing of another. So what is
 * common to all by the clocks as they were at one instant only tells where to look; proven is an instant at
 * which, by the clocks as they were just then, all were at rest.
 */
import { higher, lower } from '../lib/seqs.js'

/** Instants of one volume, by the clock of its host, ns. */
export interface Rest {
  restNs: bigint
  releaseNs: bigint
}

/** A host's clock minus the judge's is `offsetNs`, give or take `errorNs`. */
export interface Reported {
  offsetNs: bigint
  errorNs: bigint
  rests: readonly Rest[]
}

/** What the hosts report, with what is known of their clocks at this instant of the judge's. */
export type ReportedAt = (instantNs: bigint) => readonly Reported[]

/**
 * An instant of the judge's clock at which all were at rest, whatever the clocks showed; undefined: none is
 * proven. `slackNs` tells by how much it was missed, when negative. `aimNs`: where it was to be.
 */
export function judge(
  reportedAt: ReportedAt,
  aimNs: bigint,
): { instantNs?: bigint; slackNs: bigint } {
  const { fromNs, toNs } = common(reportedAt(aimNs))
  const isAimed = fromNs <= aimNs && aimNs <= toNs
  const instantNs = isAimed ? aimNs : (fromNs + toNs) / 2n
  const at = isAimed ? { fromNs, toNs } : common(reportedAt(instantNs))
  const [before, after] = [instantNs - at.fromNs, at.toNs - instantNs]
  const slackNs = lower(before, after)
  return slackNs >= 0n ? { instantNs, slackNs } : { slackNs }
}

/** From here to there all were at rest, if the clocks were all the time as they are given. */
function common(hosts: readonly Reported[]): { fromNs: bigint; toNs: bigint } {
  const surely = hosts.flatMap(({ offsetNs, errorNs, rests }) =>
    rests.map(({ restNs, releaseNs }) => ({
      fromNs: restNs - offsetNs + errorNs,
      toNs: releaseNs - offsetNs - errorNs,
    })),
  )
  const fromNs = surely.map((each) => each.fromNs).reduce(higher)
  const toNs = surely.map((each) => each.toNs).reduce(lower)
  return { fromNs, toNs }
}
