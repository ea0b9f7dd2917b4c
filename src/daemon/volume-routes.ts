/** What the control socket of a volume serves; docs/CONTROL.md. */
import { z } from 'zod'
import {
  CONTROL_TIMEOUT_MS,
  CUT_GATHER_MS,
  HOLD_MS_MAX,
  MARKER_NAME_BYTES_MAX,
} from '../lib/limits.js'
import { ACK_POINTS } from '../replication/ack-options.js'
import { failMeeting } from '../snapshot/meeting.js'
import type { CutReply } from './client.js'
import { type Routes, readBody } from './control.js'
import { type HorizonReply, VolumeHorizonSchema } from './horizon.js'
import { Metrics } from './metrics.js'
import { addPastRoutes } from './past-routes.js'
import { ReplicaChangeSchema } from './replica-options.js'
import type { Stopped } from './status.js'
import { changedToWire } from './versions.js'
import type { ProtectedVolume } from './volume.js'

const seq = z.int().min(0)
const markerName = z
  .string()
  .min(1)
  .refine(
    (name) => Buffer.byteLength(name) <= MARKER_NAME_BYTES_MAX,
    `must have at most ${MARKER_NAME_BYTES_MAX} bytes`,
  )
/** CLOCK_MONOTONIC, ns. */
const instant = z.string().regex(/^\d{1,19}$/)
const Bodies = {
  stop: z.strictObject({ force: z.boolean().default(false) }),
  marker: z.strictObject({ name: markerName }),
  cut: z.strictObject({
    name: markerName,
    maxHoldMs: z.int().min(1).max(HOLD_MS_MAX),
    meeting: z.string().nullable().default(null),
    gatherMs: z.int().min(0).max(CONTROL_TIMEOUT_MS).default(CUT_GATHER_MS),
    startNs: instant.optional(),
    untilNs: instant.optional(),
    keep: z.boolean().default(true),
  }),
  prune: z.strictObject({
    toSeq: seq.optional(),
    maxBytes: z.int().min(0).optional(),
    maxAgeMs: z.int().min(0).optional(),
  }),
  retention: z.strictObject({
    maxBytes: z.int().min(0).nullable(),
    maxAgeMs: z.int().min(0).nullable(),
  }),
  recapture: z.strictObject({ reason: z.string().min(1).max(200).default('on request') }),
  hold: z.strictObject({ maxMs: z.int().min(1).max(HOLD_MS_MAX) }),
  release: z.strictObject({ hold: z.uint32() }),
  flush: z.strictObject({
    waitMs: z.int().min(0).max(CONTROL_TIMEOUT_MS).default(CONTROL_TIMEOUT_MS),
  }),
  replicate: ReplicaChangeSchema,
  acknowledge: z.strictObject({
    at: z.array(z.enum(ACK_POINTS)).optional(),
    quorum: z.int().min(1).nullable().optional(),
  }),
  wait: z.strictObject({
    for: z.enum(['logged', 'applied']),
    seq: seq.optional(),
    peer: z.string().min(1).optional(),
    waitMs: z.int().min(0).default(CONTROL_TIMEOUT_MS),
  }),
  verify: z.strictObject({
    peers: z.array(z.string().min(1)).optional(),
    repair: z.boolean().default(false),
    bytesPerS: z.int().min(0).default(0),
  }),
  resync: z.strictObject({ peer: z.string().min(1).optional() }),
  horizon: z.strictObject({
    order: VolumeHorizonSchema.nullable().default(null),
    wait: z
      .strictObject({ for: z.enum(['logged', 'applied']), seq, waitMs: z.int().min(0) })
      .nullable()
      .default(null),
  }),
  leave: z.strictObject({ group: z.uuid().optional() }),
  changed: z.strictObject({ after: seq, upTo: seq.nullable().default(null) }),
  none: z.strictObject({}),
} as const

export interface VolumeControl {
  volume: ProtectedVolume
  /** Asked to stop; resolves when the volume is stopped, rejects when it is refused. */
  onStop(force: boolean): Promise<Stopped>
}

export function addVolumeRoutes(app: Routes, { volume, onStop }: VolumeControl): void {
  const metrics = new Metrics(volume.volume.config.name)

  app.get('/v1/status', async () => volume.status())
  app.get('/v1/metrics', async (_request, reply) => {
    reply.type(metrics.contentType)
    return metrics.render(volume.status())
  })
  app.post('/v1/stop', async (request) => {
    return onStop(read(request.body, 'stop').force)
  })
  app.post('/v1/marker', async (request) => {
    const { name } = read(request.body, 'marker')
    return { name, seq: Number(volume.marker(name)) }
  })
  app.post('/v1/flush', async (request) => {
    return { seq: Number(await volume.flush(read(request.body, 'flush').waitMs)) }
  })
  app.post('/v1/checkpoint', async (request) => {
    read(request.body, 'none')
    const { seq, timeNs } = await volume.checkpoint()
    return { seq: Number(seq), time: new Date(Number(timeNs / 1_000_000n)).toISOString() }
  })
  app.post('/v1/prune', async (request) => {
    const { toSeq, maxBytes, maxAgeMs } = read(request.body, 'prune')
    const upTo = toSeq === undefined ? undefined : BigInt(toSeq)
    const result = await volume.prune({ toSeq: upTo, maxBytes, maxAgeMs })
    return { ...result, horizon: Number(result.horizon) }
  })
  app.put('/v1/retention', async (request) => {
    const { maxBytes, maxAgeMs } = read(request.body, 'retention')
    await volume.setRetention({ maxBytes: maxBytes ?? undefined, maxAgeMs: maxAgeMs ?? undefined })
    return { maxBytes, maxAgeMs }
  })
  app.post('/v1/recapture', async (request) => {
    await volume.recapture(read(request.body, 'recapture').reason)
    return volume.status().recapture
  })
  app.post('/v1/replicas', async (request) => {
    await volume.replicas.add(read(request.body, 'replicate'))
    return volume.replicas.status
  })
  app.put('/v1/acknowledge', async (request) => {
    const { at, quorum } = read(request.body, 'acknowledge')
    volume.replicas.setAcknowledge({
      ...(at === undefined ? {} : { at }),
      ...(quorum === undefined ? {} : { quorum }),
    })
    return volume.replicas.acknowledge
  })
  app.delete<{ Params: { peer: string } }>('/v1/replicas/:peer', async (request) => {
    await volume.replicas.remove(request.params.peer)
    return volume.replicas.status
  })
  app.post('/v1/verify', async (request) => {
    return volume.replicas.verify(read(request.body, 'verify'))
  })
  app.get('/v1/verify', async () => ({ verify: volume.replicas.verified }))
  app.post('/v1/resync', async (request) => {
    volume.replicas.resync(read(request.body, 'resync').peer)
    return volume.replicas.status
  })
  app.post('/v1/wait', async (request) => {
    const { seq, waitMs, ...what } = read(request.body, 'wait')
    const upTo = seq === undefined ? await volume.flush(waitMs) : BigInt(seq)
    await volume.replicas.wait({ ...what, seq: upTo, waitMs })
    return { seq: Number(upTo), replicas: volume.replicas.status }
  })
  app.post('/v1/cut', async (request): Promise<CutReply> => {
    const body = read(request.body, 'cut')
    // Whoever has ordered it is gone: nobody is to wait for the others.
    const gone = () => body.meeting !== null && failMeeting(body.meeting)
    request.raw.socket.once('close', gone)
    const { seq, closedNs, restNs, releaseNs } = await volume.cuts.take(body).finally(() => {
      request.raw.socket.off('close', gone)
    })
    if (body.keep) volume.history.noteCut(seq)
    return {
      seq: Number(seq),
      closedNs: `${closedNs}`,
      restNs: `${restNs}`,
      releaseNs: `${releaseNs}`,
    }
  })
  app.put('/v1/horizon', async (request): Promise<HorizonReply> => {
    const { order, wait } = read(request.body, 'horizon')
    return volume.followHorizon(order, wait)
  })
  app.post('/v1/horizon/leave', async (request) => {
    return { left: volume.leaveHorizon(read(request.body, 'leave').group) }
  })
  addPastRoutes(app, '/v1', () => volume.history)
  app.post('/v1/history/changed', async (request) => {
    const { after, upTo } = read(request.body, 'changed')
    const end = upTo === null ? undefined : BigInt(upTo)
    return changedToWire(await volume.history.changed(BigInt(after), end))
  })
  app.post('/v1/history/refresh', async (request) => {
    read(request.body, 'none')
    volume.history.refresh()
    return volume.history.status
  })
  app.post('/v1/hold', async (request) => {
    const { startNs, seq, hold } = volume.hold(read(request.body, 'hold').maxMs)
    return { seq: Number(seq), startNs: `${startNs}`, hold }
  })
  app.post('/v1/release', async (request) => {
    return { heldNs: Number(volume.release(read(request.body, 'release').hold)) }
  })
}

type Body<Name extends keyof typeof Bodies> = z.infer<(typeof Bodies)[Name]>

function read<Name extends keyof typeof Bodies>(body: unknown, name: Name): Body<Name> {
  return readBody(body, Bodies[name], name) as Body<Name>
}
