/** `holdfast journal show` */
import type { Command } from 'commander'
import { describeChange } from '../../journal/change.js'
import { NameTable, namesFrom } from '../../journal/names.js'
import type { Journal } from '../../journal/store.js'
import { HoldfastError } from '../../lib/errors.js'
import { formatTime } from '../../lib/format.js'
import { decodeUtf8, printable } from '../../lib/printable.js'
import { type Oid, oidKey } from '../../record/fields.js'
import { checkFrame, type FrameView, formatUuid } from '../../record/frame.js'
import { decodeDirPayload, decodeImagePayload } from '../../record/payload.js'
import type { RecordView } from '../../record/record.js'
import { seqArgument } from '../arguments.js'
import { openJournal } from '../open-journal.js'
import { print, printJson, table } from '../output.js'
import { changeJson } from '../render-change.js'

/** Bytes of a payload printed as hex, unless --payload asks for all. */
const PAYLOAD_SHOWN = 64

export function addJournalShow(journal: Command): void {
  journal
    .command('show')
    .summary('one record in full')
    .description('Decodes the record with sequence number SEQ, and the frame that holds it.')
    .argument('<volume>', 'name, mountpoint or directory of the volume')
    .argument('<seq>', 'sequence number', seqArgument)
    .option('--frame', 'the frame with a line per record instead')
    .option('--payload', 'the payload alone, raw, on stdout')
    .option('--json', 'as JSON')
    .addHelpText(
      'after',
      `
Examples:
  holdfast journal show data 1234
  holdfast journal show data 1234 --payload > bytes`,
    )
    .action(
      async (
        which: string,
        seq: bigint,
        flags: { frame?: boolean; payload?: boolean; json?: boolean },
      ) => {
        const { journal: opened } = await openJournal(which, { flush: true })
        try {
          const frame = findFrame(opened, seq)
          if (flags.frame === true) return showFrame(frame, flags.json === true)
          const record = findRecord(frame, seq)
          if (flags.payload === true) return void process.stdout.write(record.payload)
          showRecord(opened, frame, record, flags.json === true)
        } finally {
          await opened.close()
        }
      },
    )
}

function findFrame(journal: Journal, seq: bigint): FrameView {
  const frame = journal.frameAt(seq)
  if (frame !== undefined && frame.firstSeq <= seq) return checkFrame(frame.bytes)
  const { firstSeq, lastSeq } = journal.stat()
  const pruned = seq < firstSeq
  const message = `no record ${seq}: the journal has ${firstSeq} to ${lastSeq}`
  throw new HoldfastError(pruned ? 'PRUNED' : 'SEQ_NOT_FOUND', message, { op: 'journal.show' })
}

function findRecord(frame: FrameView, seq: bigint): RecordView {
  for (const record of frame.records()) if (record.seq === seq) return record
  throw new HoldfastError('SEQ_NOT_FOUND', `no record has seq ${seq}: its operation never ended`, {
    op: 'journal.show',
    hint: 'A crash interrupted it; the object was captured anew, see the next scan records.',
  })
}

function frameJson(frame: FrameView): Record<string, unknown> {
  return {
    firstSeq: frame.firstSeq,
    lastSeq: frame.lastSeq,
    records: frame.recordCount,
    bytes: frame.bytes.length,
    epoch: frame.epoch,
    volume: formatUuid(frame.uuid),
    time: formatTime(frame.clock, 9),
    previousChain: frame.previousChain.toString('hex'),
    chain: frame.chain.toString('hex'),
  }
}

function showFrame(frame: FrameView, json: boolean): void {
  const records = [...frame.records()].map((record) => ({
    seq: record.seq,
    op: record.op,
    oid: oidKey(record.oid),
    bytes: record.length,
  }))
  if (json) {
    printJson({ ...frameJson(frame), list: records })
    return
  }
  print(table(Object.entries(frameJson(frame)).map(([name, value]) => [name, `${value}`])))
  print(table(records.map(({ seq, op, oid, bytes }) => [`  ${seq}`, op, oid, `${bytes} bytes`])))
}

function showRecord(journal: Journal, frame: FrameView, record: RecordView, json: boolean): void {
  const names = new NameTable()
  for (const earlier of journal.frames({ from: namesFrom(journal, record.seq), to: record.seq })) {
    for (const each of earlier.records()) if (each.seq < record.seq) names.apply(each)
  }
  const { op, ...fields } = record.fields
  const { path, to, ...summary } = changeJson(describeChange(record, names))
  const value = {
    ...summary,
    path,
    ...(to === undefined ? {} : { to }),
    op,
    oid: oidKey(record.oid),
    flags: record.flags,
    mode: record.mode === 0 ? null : `0${record.mode.toString(8)}`,
    mtime: readable(record.mtime),
    fields: readable(fields),
    payloadBytes: record.payloadLength,
    ...payloadJson(record),
    frame: frameJson(frame),
  }
  if (json) printJson(value)
  else print(table(flat(value)))
}

function payloadJson(record: RecordView): Record<string, unknown> {
  if (record.op === 'IMAGE') return { image: readable(decodeImagePayload(record.payload)) }
  if (record.op === 'IMAGE_DIR') return { entries: readable(decodeDirPayload(record.payload)) }
  if (record.payloadLength === 0) return {}
  const shown = record.payload.subarray(0, PAYLOAD_SHOWN)
  const more = record.payloadLength > shown.length ? '…' : ''
  return { payload: `${shown.toString('hex')}${more}`, text: `${printable(shown)}${more}` }
}

/** Names as text, identities as `ino:gen`, everything else as it is. */
function readable(value: unknown): unknown {
  if (Buffer.isBuffer(value)) return decodeUtf8(value) ?? printable(value)
  if (Array.isArray(value)) return value.map(readable)
  if (typeof value !== 'object' || value === null) return value
  if ('ino' in value && 'gen' in value) return oidKey(value as Oid)
  if ('seconds' in value && 'nanoseconds' in value) {
    const { seconds, nanoseconds } = value as { seconds: bigint; nanoseconds: number }
    return formatTime(seconds * 1_000_000_000n + BigInt(nanoseconds), 9)
  }
  return Object.fromEntries(Object.entries(value).map(([name, entry]) => [name, readable(entry)]))
}

/** Nested values as `a.b`, for two columns. */
function flat(value: Record<string, unknown>, prefix = ''): string[][] {
  return Object.entries(value).flatMap(([name, entry]) => {
    if (typeof entry === 'object' && entry !== null) {
      return flat(entry as Record<string, unknown>, `${prefix}${name}.`)
    }
    return [[`${prefix}${name}`, entry === null ? '-' : `${entry as string}`]]
  })
}
