/**
 * What a snapshot says of itself: a marker in each volume's journal, and why these markers are one
 * instant. Times of a cut are CLOCK_MONOTONIC of the host, ns, as decimal strings.
 */
import { z } from 'zod'
import { ProcessIdSchema } from '../lib/process-id.js'
import { higher, lower } from '../lib/seqs.js'
import { HookRunSchema } from './hook-run.js'

export const CERTIFICATE_VERSION = 1

const ns = z.string().regex(/^-?\d{1,19}$/)
const process = { pid: z.int(), command: z.string() }

/** A volume at rest. Other hosts are told the same by the clock that they are shown. */
export const MemberSchema = z.object({
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
  /** I/O came to rest in time at this attempt. */
  attempt: z.int().min(1).default(1),
  members: z.array(MemberSchema).min(1),
  /** Mapped shared and writable just before: stores through a mapping are held by nobody. */
  mapped: z.array(z.object({ ...process, path: z.string(), writtenOut: z.boolean() })),
  /** Open for writing just before; `path` as the process sees it. */
  writing: z.array(z.object({ ...process, path: z.string() })),
  /** Of all, also those that are not listed. */
  writingCount: z.int(),
  /** The process that it was taken for: it goes with it. */
  owner: ProcessIdSchema.nullable().default(null),
  locks: z.array(
    z.object({
      ...process,
      kind: z.enum(['POSIX', 'FLOCK', 'OFDLCK']),
      access: z.enum(['READ', 'WRITE']),
      volume: z.string(),
      inode: z.string(),
    }),
  ),
  /** It is this host's part of one of a group; null: it is not. */
  group: z
    .object({
      name: z.string(),
      coordinator: z.string(),
      method: z.enum(['scheduled', 'barrier']),
      members: z.array(z.object({ host: z.string(), volume: z.string(), uuid: z.uuid() })),
    })
    .nullable()
    .default(null),
  /** What was run around it, in order; older certificates say nothing of it. */
  hooks: z.array(HookRunSchema).default([]),
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

/** The seq of a snapshot in the journal of one volume; undefined: it is not of that volume. */
export function seqIn({ members }: Pick<Certificate, 'members'>, uuid: string): number | undefined {
  return members.find((member) => member.uuid === uuid)?.seq
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
