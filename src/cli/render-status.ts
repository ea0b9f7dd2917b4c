/** The status of a volume for people. */
import type { Status } from '../daemon/status.js'
import { formatBytes, formatCount, formatDuration } from '../lib/format.js'
import { out, table } from './output.js'
import { acknowledgeText, isSynchronous, replicaText } from './render-replicas.js'
import { scheduleText } from './render-schedules.js'

export function statusText(status: Status): string {
  const { captured, journaled, lag, rates, ring, journal, recapture, outOfBand } = status
  const place =
    status.backing === status.mountpoint
      ? status.mountpoint
      : `${status.mountpoint} (backing ${status.backing})`
  const rows: string[][] = [
    ['volume', `${out.bold(status.name)}  ${place}`],
    ['state', `${stateText(status)}${status.reason === null ? '' : `: ${status.reason}`}`],
    ['captured', `seq ${formatCount(captured.seq)}  ${captured.time ?? '-'}`],
    ['journaled', `seq ${formatCount(journaled.seq)}  ${journaled.time ?? '-'}`],
    ['lag', `${formatBytes(lag.bytes)}, ${lag.records} records, ${lag.seconds.toFixed(1)} s`],
    [
      'rates',
      `${formatCount(rates.mutations)} changes/s, ${formatBytes(rates.capturedBytes)}/s captured, ` +
        `${formatBytes(rates.journaledBytes)}/s journaled, ${formatCount(rates.requests)} requests/s`,
    ],
    ['ring', `${formatBytes(ring.usedBytes)} of ${formatBytes(ring.bytes)}${ringWaits(status)}`],
    [
      'journal',
      `${formatBytes(journal.usedBytes)} in ${formatCount(journal.frames)} frames, ` +
        `seq ${formatCount(journal.firstSeq)} to ${formatCount(journal.lastSeq)}, ` +
        `file ${formatBytes(journal.fileBytes)}, keeps ${retentionText(status)}`,
    ],
    ['last fsync', status.lastFsyncNs === 0 ? '-' : formatDuration(status.lastFsyncNs)],
    ['checkpoint', checkpointText(status)],
  ]
  if (recapture.needed || recapture.running) {
    const { objects, imaged, bytes } = recapture
    const done = `${formatCount(objects)} objects seen, ${formatCount(imaged)} captured anew`
    rows.push(['re-capture', `${done}, ${formatBytes(bytes)}`])
  }
  if (outOfBand.watching) {
    const { events, objects } = outOfBand
    rows.push([
      'out of band',
      `${formatCount(objects)} objects changed, ${formatCount(events)} events`,
    ])
  }
  for (const replica of status.replicas) rows.push(['replica', replicaText(replica)])
  if (status.replicas.some(isSynchronous)) {
    rows.push(['replies wait', acknowledgeText(status.acknowledge)])
  }
  if (status.horizon !== null) rows.push(['horizon', horizonText(status.horizon)])
  for (const schedule of status.schedules) rows.push(['schedule', scheduleText(schedule)])
  if (status.held) rows.push(['hold', out.yellow('I/O is on hold')])
  if (status.panics > 0)
    rows.push(['panics', out.red(`${status.panics} in the data plane: a defect`)])
  rows.push(['daemon', `pid ${status.pid}, holdfast ${status.version}, since ${status.since}`])
  rows.push(['state dir', status.stateDirectory])
  return table(rows.map(([name = '', value = '']) => [out.dim(name), value]))
}

/** How far replicas may apply, and whether anything is shipped. */
function horizonText(horizon: NonNullable<Status['horizon']>): string {
  const { group, seq, frozen, heldMs } = horizon
  const text = `seq ${formatCount(seq)}, by group ${group.name} of ${group.coordinator}`
  if (frozen === null) return text
  const held = heldMs === 0 ? '' : `; applications held for ${formatDuration(heldMs * 1e6)} at most`
  return `${text}; ${out.red(`frozen since ${frozen.since}: ${frozen.why}${held}`)}`
}

function stateText({ state }: Status): string {
  if (state === 'protected') return out.green(state)
  return state === 'journal-blocked' ? out.red(state) : out.yellow(state)
}

function ringWaits({ ring }: Status): string {
  if (ring.waits === 0 && ring.refusals === 0) return ''
  return `, ${formatCount(ring.waits)} writers waited, ${formatCount(ring.refusals)} refused`
}

function retentionText({ journal }: Status): string {
  const { retainBytes, retainAgeMs } = journal
  const parts = [
    ...(retainBytes === null ? [] : [`at most ${formatBytes(retainBytes)}`]),
    ...(retainAgeMs === null ? [] : [`at most ${formatDuration(retainAgeMs * 1e6)}`]),
  ]
  return parts.length === 0 ? 'everything' : parts.join(' and ')
}

function checkpointText({ checkpoint }: Status): string {
  return checkpoint === null ? '-' : `seq ${formatCount(checkpoint.seq)}  ${checkpoint.time}`
}
