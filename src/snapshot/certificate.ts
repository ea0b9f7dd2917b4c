/**
 * What a snapshot says of itself: a marker in each volume's journal, and why these markers are one
 * instant. Times of a cut are CLOCK_MONOTONIC of the host, ns, as decimal strings.
 */
import { z } from 'zod'
import { higher, lower } from '../lib/seqs.js'

export const CERTIFICATE_VERSION = 1

const ns = z.string().regex(/^\d+$/)
const process = { pid: z.int(), command: z.string() }

const MemberSchema = z.object({
  volume: z.string(),
  uuid: z.uuid(),
  /** Of the marker: everything up to it is in the snapshot, and nothing after it. */
  seq: z.int().min(1),
  /** The gate was closed; what was under way had ended; I/O went on. */
  closedNs: ns,
  restNs: ns,
  releaseNs: ns,
})

const CertificateSchema = z.object({
  version: z.literal(CERTIFICATE_VERSION),
  id: z.uuid(),
  name: z.string(),
  /** Wall clock at the instant. */
  created: z.iso.datetime(),
  labels: z.record(z.string(), z.string()),
  maxHoldMs: z.number(),
  members: z.array(MemberSchema).min(1),
  /** Mapped shared and writable just before: stores through a mapping are held by nobody. */
  mapped: z.array(z.object({ ...process, path: z.string(), writtenOut: z.boolean() })),
  /** Open for writing just before; `path` as the process sees it. */
  writing: z.array(z.object({ ...process, path: z.string() })),
  /** Of all, also those that are not listed. */
  writingCount: z.int(),
  locks: z.array(
    z.object({
      ...process,
      kind: z.enum(['POSIX', 'FLOCK', 'OFDLCK']),
      access: z.enum(['READ', 'WRITE']),
      volume: z.string(),
      inode: z.string(),
    }),
  ),
})

export type Member = z.infer<typeof MemberSchema>
export type Certificate = z.infer<typeof CertificateSchema>

/** Of the contents of a stored file: the certificate, or what is wrong with it. */
export function parseCertificate(stored: unknown): Certificate | string {
  const version = (stored as { version?: unknown } | null)?.version
  if (version !== CERTIFICATE_VERSION) {
    return `version ${String(version)}; this holdfast reads ${CERTIFICATE_VERSION}`
  }
  const parsed = CertificateSchema.safeParse(stored)
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  return `${issue?.path.join('.')}: ${issue?.message}`
}

/** Longest time for which I/O of one member was on hold, ns. */
export function heldNs({ members }: Pick<Certificate, 'members'>): number {
  return Math.max(...members.map((m) => Number(BigInt(m.releaseNs) - BigInt(m.closedNs))))
}

/**
 * The instant at which all were at rest: after the last had come to rest, before the first went on.
 * undefined: there is none, and the cut is torn.
 */
export function commonInstant(members: readonly Member[]): bigint | undefined {
  const rest = members.map((m) => BigInt(m.restNs)).reduce(higher)
  const release = members.map((m) => BigInt(m.releaseNs)).reduce(lower)
  return rest <= release ? rest : undefined
}
