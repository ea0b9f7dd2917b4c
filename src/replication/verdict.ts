/**
 * What comparisons have said of a replica, kept in `verdict.json` of its directory: the last one that
 * ended, the last one that found nothing, and whether a power loss has put the tree in doubt since.
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { writeFileDurably } from '../lib/files.js'
import type { Logger } from '../lib/log.js'

const FILE = 'verdict.json'

export const VerdictSchema = z.strictObject({
  /** The last comparison of everything: its end in the journal, when it was (ms since the epoch). */
  verified: z
    .strictObject({ seq: z.int().min(0), differences: z.int().min(0), at: z.int().min(0) })
    .nullable(),
  /** The last one that found no difference. */
  proven: z.strictObject({ seq: z.int().min(0), at: z.int().min(0) }).nullable(),
  /** Only a comparison can say whether the tree is right. */
  doubt: z.boolean(),
})

const FileSchema = z.strictObject({ version: z.literal(1), ...VerdictSchema.shape })

export type Verdict = z.infer<typeof VerdictSchema>

export const NO_VERDICT: Verdict = { verified: null, proven: null, doubt: false }

/** Nothing is known where the file is missing or unreadable: the next comparison writes it. */
function readVerdict(directory: string): Verdict {
  const path = join(directory, FILE)
  if (!existsSync(path)) return NO_VERDICT
  try {
    const { version: _, ...verdict } = FileSchema.parse(JSON.parse(readFileSync(path, 'utf8')))
    return verdict
  } catch {
    return { ...NO_VERDICT, doubt: true }
  }
}

function writeVerdict(directory: string, verdict: Verdict): void {
  writeFileDurably(
    join(directory, FILE),
    `${JSON.stringify({ version: 1, ...verdict }, null, 2)}\n`,
  )
}

/** The verdict on one replica, kept as it changes. */
export class KeptVerdict {
  readonly #directory: string
  readonly #log: Logger
  #value: Verdict

  constructor(directory: string, log: Logger) {
    this.#directory = directory
    this.#log = log
    this.#value = readVerdict(directory)
  }

  get value(): Verdict {
    return this.#value
  }

  /** The tree may have become another. */
  doubt(): void {
    this.#keep({ ...this.#value, doubt: true })
  }

  /** The tree starts over. */
  forget(): void {
    this.#keep({ ...NO_VERDICT })
  }

  /** A comparison has ended. */
  judge(found: { seq: number; differences: number }): void {
    this.#keep(judged(found, Date.now()))
  }

  #keep(verdict: Verdict): void {
    const { proven } = this.#value
    this.#value = { ...verdict, proven: verdict.proven ?? proven }
    writeVerdict(this.#directory, this.#value)
    const { verified } = verdict
    if (verified === null || verified.differences === 0) return
    this.#log.error({ verified }, 'the replica differs from its primary')
  }
}

/** After a comparison that ended at `seq`. */
function judged(found: { seq: number; differences: number }, now: number): Verdict {
  const { seq, differences } = found
  const verified = { seq, differences, at: now }
  return { verified, proven: differences === 0 ? { seq, at: now } : null, doubt: false }
}
