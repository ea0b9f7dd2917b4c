/** Whether what the hosts of a cut report is one instant, told after the fact. */
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

/** From here to there, by the judge's clock, all were at rest whatever the clocks showed. */
export interface Instant {
  fromNs: bigint
  toNs: bigint
}

/** undefined: no instant is proven. `slackNs` of both tells by how much it was missed, when negative. */
export function judge(hosts: readonly Reported[]): { instant?: Instant; slackNs: bigint } {
  const surely = hosts.flatMap(({ offsetNs, errorNs, rests }) =>
    rests.map(({ restNs, releaseNs }) => ({
      fromNs: restNs - offsetNs + errorNs,
      toNs: releaseNs - offsetNs - errorNs,
    })),
  )
  const fromNs = surely.map((each) => each.fromNs).reduce(higher)
  const toNs = surely.map((each) => each.toNs).reduce(lower)
  const slackNs = toNs - fromNs
  return slackNs >= 0n ? { instant: { fromNs, toNs }, slackNs } : { slackNs }
}
