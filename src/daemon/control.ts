/**
 * The control interface: HTTP with JSON on a Unix socket of mode 0600. docs/CONTROL.md describes
 * it. The one file that imports `fastify`. Errors are `{code, op, message, hint, details}`.
 */
import { chmodSync, mkdirSync, rmSync } from 'node:fs'
import { dirname } from 'node:path'
import { type FastifyInstance, type FastifyRequest, fastify } from 'fastify'
import { z } from 'zod'
import { ExitCode, HoldfastError, toHoldfastError } from '../lib/errors.js'
import {
  CONTROL_BODY_BYTES_MAX,
  CONTROL_TIMEOUT_MS,
  HOLD_MS_MAX,
  MARKER_NAME_BYTES_MAX,
} from '../lib/limits.js'
import { Metrics } from './metrics.js'
import type { ProtectedVolume } from './volume.js'

const seq = z.int().min(0)
const Bodies = {
  stop: z.strictObject({ force: z.boolean().default(false) }),
  marker: z.strictObject({
    name: z
      .string()
      .min(1)
      .refine(
        (name) => Buffer.byteLength(name) <= MARKER_NAME_BYTES_MAX,
        `must have at most ${MARKER_NAME_BYTES_MAX} bytes`,
      ),
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
  flush: z.strictObject({
    waitMs: z.int().min(0).max(CONTROL_TIMEOUT_MS).default(CONTROL_TIMEOUT_MS),
  }),
  none: z.strictObject({}),
} as const

type Body<Name extends keyof typeof Bodies> = z.infer<(typeof Bodies)[Name]>

/** HTTP status for an exit code: callers should look at `code` of the body. */
const STATUS: Record<number, number> = {
  [ExitCode.usage]: 400,
  [ExitCode.notFound]: 404,
  [ExitCode.refused]: 409,
}

export interface ControlOptions {
  volume: ProtectedVolume
  socket: string
  /** Asked to stop; resolves when the volume is stopped, rejects when it is refused. */
  onStop(force: boolean): Promise<void>
}

export class ControlServer {
  readonly #app: FastifyInstance
  readonly #socket: string

  private constructor(app: FastifyInstance, socket: string) {
    this.#app = app
    this.#socket = socket
  }

  static async listen(options: ControlOptions): Promise<ControlServer> {
    const app = fastify({ logger: false, bodyLimit: CONTROL_BODY_BYTES_MAX })
    app.setErrorHandler((error, _request, reply) => {
      const known = asHoldfastError(error)
      return reply.status(STATUS[known.exitCode] ?? 500).send(known.toJSON())
    })
    app.setNotFoundHandler((request) => {
      const message = `no ${request.method} ${request.url}`
      throw new HoldfastError('NOT_FOUND', message, { op: 'control', hint: 'See docs/CONTROL.md.' })
    })
    addRoutes(app, options)
    mkdirSync(dirname(options.socket), { recursive: true, mode: 0o755 })
    // The volume's lock is held: a socket that is there belongs to a dead daemon.
    rmSync(options.socket, { force: true })
    const before = process.umask(0o177)
    try {
      await app.listen({ path: options.socket })
      chmodSync(options.socket, 0o600)
    } finally {
      process.umask(before)
    }
    return new ControlServer(app, options.socket)
  }

  /** Idempotent. Answers under way are finished. */
  async close(): Promise<void> {
    await this.#app.close()
    rmSync(this.#socket, { force: true })
  }
}

function addRoutes(app: FastifyInstance, { volume, onStop }: ControlOptions): void {
  const metrics = new Metrics(volume.volume.config.name)

  app.get('/v1/status', async () => volume.status())
  app.get('/v1/metrics', async (_request, reply) => {
    reply.type(metrics.contentType)
    return metrics.render(volume.status())
  })
  app.post('/v1/stop', async (request) => {
    await onStop(read(request, 'stop').force)
    return { stopped: true }
  })
  app.post('/v1/marker', async (request) => {
    const { name } = read(request, 'marker')
    return { name, seq: Number(volume.marker(name)) }
  })
  app.post('/v1/flush', async (request) => {
    return { seq: Number(await volume.flush(read(request, 'flush').waitMs)) }
  })
  app.post('/v1/checkpoint', async (request) => {
    read(request, 'none')
    const { seq, timeNs } = await volume.checkpoint()
    return { seq: Number(seq), time: new Date(Number(timeNs / 1_000_000n)).toISOString() }
  })
  app.post('/v1/prune', async (request) => {
    const { toSeq, maxBytes, maxAgeMs } = read(request, 'prune')
    const upTo = toSeq === undefined ? undefined : BigInt(toSeq)
    const result = await volume.prune({ toSeq: upTo, maxBytes, maxAgeMs })
    return { ...result, horizon: Number(result.horizon) }
  })
  app.put('/v1/retention', async (request) => {
    const { maxBytes, maxAgeMs } = read(request, 'retention')
    await volume.setRetention({ maxBytes: maxBytes ?? undefined, maxAgeMs: maxAgeMs ?? undefined })
    return { maxBytes, maxAgeMs }
  })
  app.post('/v1/recapture', async (request) => {
    await volume.recapture(read(request, 'recapture').reason)
    return volume.status().recapture
  })
  app.post('/v1/hold', async (request) => {
    const { startNs, seq } = volume.hold(read(request, 'hold').maxMs)
    return { seq: Number(seq), startNs: `${startNs}` }
  })
  app.post('/v1/release', async (request) => {
    read(request, 'none')
    return { heldNs: Number(volume.release()) }
  })
}

/** The request's body, checked; USAGE naming the field. */
function read<Name extends keyof typeof Bodies>(request: FastifyRequest, name: Name): Body<Name> {
  const parsed = Bodies[name].safeParse(request.body ?? {})
  if (parsed.success) return parsed.data as Body<Name>
  const [issue] = parsed.error.issues
  const field = issue?.path.join('.') ?? ''
  const message = `${field === '' ? 'the body' : field}: ${issue?.message}`
  throw new HoldfastError('USAGE', message, {
    op: `control.${name}`,
    hint: 'See docs/CONTROL.md.',
  })
}

function asHoldfastError(error: unknown): HoldfastError {
  const status = (error as { statusCode?: number }).statusCode
  if (!(error instanceof HoldfastError) && status !== undefined && status < 500) {
    return new HoldfastError('USAGE', (error as Error).message, { op: 'control', cause: error })
  }
  return toHoldfastError(error, 'control')
}
