/**
 * File names for people. A name is bytes; printed, it must not break a line, move the cursor or
 * lose information: `\n`, `\t`, `\\` and octal `\ooo` as `ls -b` writes them. Valid UTF-8 stays.
 */
const SHORT: Record<number, string> = {
  7: '\\a',
  8: '\\b',
  9: '\\t',
  10: '\\n',
  11: '\\v',
  12: '\\f',
  13: '\\r',
  92: '\\\\',
}

const strict = new TextDecoder('utf-8', { fatal: true })

/** C0/C1 controls, backslash, line separators, and the marks that reorder text. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it finds
const UNSAFE = /[\u0000-\u001f\\\u007f-\u009f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]/u

/** `bytes` as one printable piece of text; reversible with `unprintable`. */
export function printable(bytes: Uint8Array): string {
  const text = decodeUtf8(bytes)
  if (text !== undefined && !UNSAFE.test(text)) return text
  let out = ''
  for (let at = 0; at < bytes.length; ) {
    const length = utf8Length(bytes, at)
    const piece = length > 0 ? decodeUtf8(bytes.subarray(at, at + length)) : undefined
    if (piece !== undefined && !UNSAFE.test(piece)) {
      out += piece
      at += length
      continue
    }
    const byte = bytes[at] ?? 0
    out += SHORT[byte] ?? `\\${byte.toString(8).padStart(3, '0')}`
    at += 1
  }
  return out
}

/** The bytes that `printable` printed. */
export function unprintable(text: string): Buffer {
  const parts: Buffer[] = []
  for (const match of text.matchAll(/\\([0-7]{3}|.)|[^\\]+/gsu)) {
    const code = match[1]
    if (code === undefined) parts.push(Buffer.from(match[0]))
    else if (code.length === 3) parts.push(Buffer.of(Number.parseInt(code, 8)))
    else parts.push(Buffer.of(shortByte(code)))
  }
  return Buffer.concat(parts)
}

/** `bytes` as text when they are valid UTF-8, else undefined. */
export function decodeUtf8(bytes: Uint8Array): string | undefined {
  try {
    return strict.decode(bytes)
  } catch {
    return undefined
  }
}

function shortByte(letter: string): number {
  for (const [byte, text] of Object.entries(SHORT)) if (text === `\\${letter}`) return Number(byte)
  return letter.charCodeAt(0)
}

function utf8Length(bytes: Uint8Array, at: number): number {
  const lead = bytes[at] ?? 0
  const length = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4
  return at + length <= bytes.length ? length : 0
}
