/** One change as one line of an audit log, or as one JSON object. */
import type { Change } from '../journal/change.js'
import { formatTime } from '../lib/format.js'
import { decodeUtf8, printable } from '../lib/printable.js'
import { out } from './output.js'
import { userName } from './users.js'

const VERB_WIDTH = 11

/** time, seq, user, command[pid], operation, path (→ path), range or particulars */
export function changeLine(change: Change): string {
  const { seq, timeNs, uid, pid, command, verb, path, to } = change
  const who = pid === 0 ? 'kernel' : `${userName(uid)} ${printable(command)}[${pid}]`
  const actor = change.recovered ? 'holdfast' : change.internal ? '-' : who
  const target = to === undefined ? '' : ` → ${printable(to)}`
  const extra = [rangeText(change), change.detail].filter((part) => part !== undefined).join(' ')
  return [
    out.dim(formatTime(timeNs)),
    `${seq}`.padStart(7),
    actor.padEnd(20),
    out.bold(verb.padEnd(VERB_WIDTH)),
    `${printable(path)}${target}`,
    ...(extra === '' ? [] : [out.dim(extra)]),
  ].join('  ')
}

/** `8192+4096`: offset and length in bytes. */
function rangeText({ offset, length }: Change): string | undefined {
  if (offset !== undefined) return `${offset}+${length ?? 0n}`
  return length === undefined ? undefined : `${length} bytes`
}

/** The same as JSON values; names that are no UTF-8 also as base64 under `…Base64`. */
export function changeJson(change: Change): Record<string, unknown> {
  const { path, to, command, timeNs, seq, offset, length, internal, ...rest } = change
  return {
    seq,
    time: formatTime(timeNs, 9),
    ...rest,
    user: userName(change.uid),
    command: printable(command),
    ...nameJson('path', path),
    ...(to === undefined ? {} : nameJson('to', to)),
    ...(offset === undefined ? {} : { offset }),
    ...(length === undefined ? {} : { length }),
    ...(internal ? { internal } : {}),
  }
}

export function nameJson(key: string, name: Buffer): Record<string, string> {
  const text = decodeUtf8(name)
  if (text !== undefined) return { [key]: text }
  return { [key]: printable(name), [`${key}Base64`]: name.toString('base64') }
}
