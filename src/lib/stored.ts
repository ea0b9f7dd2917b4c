/** JSON that this host keeps in files and reads again: whole and as it should be, or not at all. */
import { readFileSync } from 'node:fs'
import type { z } from 'zod'
import { HoldfastError } from './errors.js'

/** undefined for what is no JSON. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** What a file holds. UNKNOWN_FORMAT, naming the file and the first thing that is wrong with it. */
export function readStored<Schema extends z.ZodType>(
  path: string,
  schema: Schema,
  { op, hint }: { op: string; hint: string },
): z.infer<Schema> {
  const parsed = schema.safeParse(parseJson(readFileSync(path, 'utf8')))
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  const message = `${path}: ${issue?.path.join('.')}: ${issue?.message}`
  throw new HoldfastError('UNKNOWN_FORMAT', message, { op, hint })
}
