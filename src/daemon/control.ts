/**
 * The control interface: HTTP with JSON on a Unix socket of mode 0600. docs/CONTROL.md describes
 * it. The one file that imports `fastify`. Errors are `{code, op, message, hint, details}`.
 *
 * What is served is in `volume-routes.ts` and `replica-host.ts`.
 */
import { chmodSync, mkdirSync, rmSync } from 'node:fs'
import { dirname } from 'node:path'
import { type FastifyInstance, fastify } from 'fastify'
import type { z } from 'zod'
import { ExitCode, HoldfastError, toHoldfastError } from '../lib/errors.js'
import { CONTROL_BODY_BYTES_MAX } from '../lib/limits.js'

/** HTTP status for an exit code: callers should look at `code` of the body. */
const STATUS: Record<number, number> = {
  [ExitCode.usage]: 400,
  [ExitCode.notFound]: 404,
  [ExitCode.refused]: 409,
}

/** Where routes are added. */
export type Routes = FastifyInstance

export interface ControlOptions {
  socket: string
  addRoutes(app: Routes): void
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
    options.addRoutes(app)
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

/** A request's body, checked; USAGE naming the field. */
export function readBody<Schema extends z.ZodType>(
  body: unknown,
  schema: Schema,
  op: string,
): z.infer<Schema> {
  const parsed = schema.safeParse(body ?? {})
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  const field = issue?.path.join('.') ?? ''
  const message = `${field === '' ? 'the body' : field}: ${issue?.message}`
  throw new HoldfastError('USAGE', message, { op: `control.${op}`, hint: 'See docs/CONTROL.md.' })
}

function asHoldfastError(error: unknown): HoldfastError {
  const status = (error as { statusCode?: number }).statusCode
  if (!(error instanceof HoldfastError) && status !== undefined && status < 500) {
    return new HoldfastError('USAGE', (error as Error).message, { op: 'control', cause: error })
  }
  return toHoldfastError(error, 'control')
}
