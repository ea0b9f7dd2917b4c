/** What is told of a shipper, and what it is told. */
import type { Logger } from '../lib/log.js'
import type { ReplicaPositions } from './sender.js'
import type { ShippedVolume } from './shipped-volume.js'
import type { Transport } from './transport.js'
import type { Verdict } from './verdict.js'

export type Connection =
  | 'connecting'
  | 'listening'
  | 'connected'
  | 'waiting'
  | 'refused'
  | 'stopped'

export interface ShipperState extends ReplicaPositions {
  connection: Connection
  /** What ended the last connection, or keeps the replica from applying; null when all is well. */
  problem: { code: string; message: string } | null
  baseline: boolean
  bytesSent: number
  bytesUnderWay: number
  connections: number
  /** Baselines begun by this process. */
  resyncs: number
  /** Objects of which its tree lacks something, and what comparisons have said. */
  needs: number
  verdict: Verdict
  /** Bytes of files sent past the journal, while a baseline is brought to its end so; null: it is not. */
  filledBytes: number | null
  /** The farthest that it may ever have been told to apply. */
  authorised: bigint
}

/** What may change while it ships. */
export interface ShipSettings {
  /** Bytes per second at most; null: no limit. */
  rateBytes: number | null
  /** How late the replica is to apply. */
  applyDelayMs: number
}

export interface ShipperOptions {
  volume: ShippedVolume
  /** The replica's host, for messages. */
  peer: string
  transport: Transport
  settings: ShipSettings
  /** Positions, or the state of the connection, have changed. */
  onChange(state: ShipperState): void
  log: Logger
}

/** Its baseline is not all there; what a comparison has found is another matter. */
export function isResyncing(state: Pick<ShipperState, 'baseline' | 'needs' | 'verdict'>): boolean {
  const { baseline, needs, verdict } = state
  const found = (verdict.verified?.differences ?? 0) > 0
  return baseline || (needs > 0 && !found)
}
