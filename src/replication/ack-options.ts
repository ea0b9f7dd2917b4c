/**
 * What an operator says about acknowledgement: how strong it has to be, of which paths, and at which
 * operations. The same words on the command line, on the control socket and in `replicas.json`.
 */
import { z } from 'zod'
import { HoldfastError } from '../lib/errors.js'
import { ACK_PATHS_MAX } from '../lib/limits.js'
import { printable, unprintable } from '../lib/printable.js'

/** Not waited for; in the replica's log; in its tree. */
export const ACKS = ['async', 'sync-log', 'sync-apply'] as const
export type Ack = (typeof ACKS)[number]
export type SyncAck = Exclude<Ack, 'async'>

/** Where a reply waits, besides fsync, fdatasync and the writes of O_SYNC and O_DSYNC files. */
export const ACK_POINTS = ['rename', 'close', 'every-op'] as const
export type AckPoint = (typeof ACK_POINTS)[number]

/** A path below the volume's root, printable (lib/printable.ts), and what holds below it. */
export const AckPathSchema = z.strictObject({
  path: z
    .string()
    .max(4096)
    .refine(
      (path) => path === canonicalPath(path),
      'must begin with a slash, be below the root, and have neither . nor .. nor empty names',
    ),
  ack: z.enum(ACKS),
})
export type AckPath = z.infer<typeof AckPathSchema>

export const AckPathsSchema = z
  .array(AckPathSchema)
  .max(ACK_PATHS_MAX)
  .refine(
    (paths) => new Set(paths.map(({ path }) => path)).size === paths.length,
    'must not have a path twice',
  )

/** Of the whole volume, whichever replicas it has. */
export const AcknowledgeSchema = z.strictObject({
  at: z.array(z.enum(ACK_POINTS)).default([]),
  /** How many of the synchronous replicas are enough; null: all. */
  quorum: z.int().min(1).nullable().default(null),
})
export type Acknowledge = z.infer<typeof AcknowledgeSchema>

/** One way to write a path; undefined when it is none that can be a rule. */
function canonicalPath(text: string): string | undefined {
  const bytes = unprintable(text)
  if (bytes.length > 1 && bytes.at(-1) === 0x2f) return undefined
  const path = bytes.toString('latin1')
  if (!/^(?:\/(?!\.{1,2}(?:\/|$))[^/\0]+)+$/s.test(path)) return undefined
  return printable(bytes)
}

/** `/ledger=sync-log`. USAGE. */
export function parseAckPath(text: string): AckPath {
  const at = text.lastIndexOf('=')
  const ack = ACKS.find((each) => each === text.slice(at + 1))
  const given = at < 0 ? text : text.slice(0, at)
  const path = canonicalPath(given.length > 1 && given.endsWith('/') ? given.slice(0, -1) : given)
  if (at >= 0 && ack !== undefined && path !== undefined) return { path, ack }
  const why =
    path === undefined
      ? `${JSON.stringify(given)} is no path below the root of the volume`
      : `${JSON.stringify(text.slice(at + 1))} is no mode`
  throw new HoldfastError('USAGE', `--ack-path ${text}: ${at < 0 ? 'no mode is given' : why}`, {
    op: 'replicate',
    hint: `Write PATH=MODE: a path below the root of the volume, such as /ledger, and one of ${ACKS.join(', ')}. For all of the volume: --ack.`,
  })
}

/** `durability`, `every-op`, or `durability,rename,close`. USAGE. */
export function parseAckAt(text: string): AckPoint[] {
  const given = text.split(',').map((each) => each.trim())
  const unknown = given.find(
    (each) => each !== 'durability' && !(ACK_POINTS as readonly string[]).includes(each),
  )
  if (unknown === undefined) return ACK_POINTS.filter((point) => given.includes(point))
  throw new HoldfastError('USAGE', `--ack-at: ${JSON.stringify(unknown)} is no such point`, {
    op: 'replicate',
    hint: `Any of: durability, ${ACK_POINTS.join(', ')}; with commas between them.`,
  })
}

/** The other way round. */
export function formatAckAt(at: readonly AckPoint[]): string {
  return at.includes('every-op') ? at.join(', ') : ['durability', ...at].join(', ')
}
