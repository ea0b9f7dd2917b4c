/** What a volume and a replica serve of their past, alike; docs/CONTROL.md. */
import { z } from 'zod'
import type { PathObject } from '../lib/native-history.js'
import { type Routes, readBody } from './control.js'
import type { HistoryStatus } from './history.js'
import { toWire } from './versions.js'
import type { ViewRequest, ViewStatus } from './view-table.js'

const seq = z.int().min(0)
const View = z.strictObject({
  seq,
  path: z.string().min(1),
  snapshot: z.string().nullable().default(null),
  ownerPid: z.int().min(1).nullable().default(null),
})
const Unmount = z.strictObject({ lazy: z.boolean().default(false) })
const At = z.strictObject({ timeMs: z.number().min(0) })
const Of = z.strictObject({ path: z.base64(), seq: seq.optional() })

export interface Past {
  readonly status: HistoryStatus
  /** The newest moment. */
  readonly lastSeq: bigint
  seqAt(timeMs: number): Promise<bigint>
  ofPath(path: Buffer, seq: bigint): Promise<PathObject[]>
  mount(request: ViewRequest): Promise<ViewStatus>
  unmount(id: number, lazy: boolean): Promise<void>
}

/** `find` gets the parameters of the path that `prefix` has. */
export function addPastRoutes(
  app: Routes,
  prefix: string,
  find: (params: Record<string, string>) => Past,
): void {
  type WithParams = { Params: Record<string, string> }
  app.get<WithParams>(`${prefix}/history`, async ({ params }) => find(params).status)
  app.post<WithParams>(`${prefix}/history/at`, async ({ params, body }) => {
    const { timeMs } = readBody(body, At, 'historyAt')
    return { seq: Number(await find(params).seqAt(timeMs)) }
  })
  app.post<WithParams>(`${prefix}/history/of`, async ({ params, body }) => {
    const { path, seq } = readBody(body, Of, 'historyOf')
    const past = find(params)
    const at = seq === undefined ? past.lastSeq : BigInt(seq)
    return { objects: toWire(await past.ofPath(Buffer.from(path, 'base64'), at)) }
  })
  app.post<WithParams>(`${prefix}/views`, async ({ params, body }) => {
    const { seq, ...rest } = readBody(body, View, 'view')
    return find(params).mount({ seq: BigInt(seq), ...rest })
  })
  app.post<WithParams>(`${prefix}/views/:id/unmount`, async ({ params, body }) => {
    await find(params).unmount(Number(params.id), readBody(body, Unmount, 'unmountView').lazy)
    return {}
  })
}
