import t from 'tap'
import { type Change, describeChange } from '../../src/journal/change.js'
import { NameTable, namesFrom } from '../../src/journal/names.js'
import { Journal } from '../../src/journal/store.js'
import { printable } from '../../src/lib/printable.js'
import { type FieldsOf, OID_ZERO, type Oid, type OpName } from '../../src/record/fields.js'
import { encodeFrame, FrameView } from '../../src/record/frame.js'
import { encodeRecord, RecordView } from '../../src/record/record.js'
import { UUID } from './frames.js'

const root: Oid = { ino: 1n, gen: 0n }
const dir: Oid = { ino: 2n, gen: 0n }
const file: Oid = { ino: 3n, gen: 0n }
const other: Oid = { ino: 4n, gen: 0n }
const name = (text: string) => Buffer.from(text)
let seq = 0n

function record<Op extends OpName>(
  op: Op,
  oid: Oid,
  fields: FieldsOf<Op>,
  payload?: Buffer,
): RecordView {
  seq += 1n
  return new RecordView(encodeRecord(op, { seq, clock: seq, oid, pid: 9 }, fields, payload))
}

const make = { pmtime: null, rdev: 0, requestedMode: 0, umask: 0, uid: 0, gid: 0 }
const bindRoot = () => record('BIND', root, { parent: OID_ZERO, name: name('') })
const mkdir = () => record('MKDIR', dir, { ...make, parent: root, name: name('dir') })
const create = () => record('MKNOD', file, { ...make, parent: dir, name: name('file') })
const rename = (to: Oid, newName: string, flags = 0, replaced = OID_ZERO) =>
  record('RENAME', file, {
    oldParent: dir,
    oldPmtime: null,
    newParent: to,
    newPmtime: null,
    flags,
    replaced,
    replacedLinksLeft: 0,
    oldName: name('file'),
    newName: name(newName),
  })

t.test('names: follow creations, renames, exchanges and removals', async (t) => {
  const names = new NameTable()
  const path = (oid: Oid) => names.path(oid)?.toString()
  for (const each of [bindRoot(), mkdir(), create()]) names.apply(each)
  t.equal(path(root), '.')
  t.equal(path(file), 'dir/file')
  names.apply(rename(root, 'moved'))
  t.equal(path(file), 'moved')
  names.apply(record('MKNOD', other, { ...make, parent: root, name: name('other') }))
  names.apply(
    record('RENAME', file, {
      oldParent: root,
      oldPmtime: null,
      newParent: root,
      newPmtime: null,
      flags: 2,
      replaced: other,
      replacedLinksLeft: 1,
      oldName: name('moved'),
      newName: name('other'),
    }),
  )
  t.equal(path(file), 'other')
  t.equal(path(other), 'moved')
  names.apply(
    record('UNLINK', other, { parent: root, pmtime: null, linksLeft: 0, name: name('moved') }),
  )
  t.equal(path(other), undefined)
  t.equal(names.pathOrIdentity(other).toString(), '<4:0>')
})

t.test('names: a loop in damaged names ends', async (t) => {
  const names = new NameTable()
  names.apply(bindRoot())
  names.apply(record('MKDIR', dir, { ...make, parent: file, name: name('a') }))
  names.apply(record('MKDIR', file, { ...make, parent: dir, name: name('b') }))
  t.equal(names.path(dir), undefined)
})

t.test('change: says who did what to which path', async (t) => {
  const names = new NameTable()
  const say = (each: RecordView) => {
    const { verb, path, to, detail, offset, length } = describeChange(each, names)
    const range = offset === undefined ? '' : ` ${offset}+${length}`
    return `${verb} ${printable(path)}${to ? ` ${printable(to)}` : ''}${range}${detail ? ` ${detail}` : ''}`
  }
  t.equal(say(bindRoot()), 'bind <0:0>/')
  t.equal(say(mkdir()), 'mkdir dir mode 0000')
  t.equal(say(create()), 'create dir/file mode 0000')
  t.equal(say(record('WRITE', file, { offset: 5n }, Buffer.alloc(3))), 'write dir/file 5+3')
  t.equal(say(rename(dir, 'new')), 'rename dir/file dir/new')
  const setattr = { mode: 0o100640, uid: 5, gid: 6, size: 9n, atime: null, mtime: null }
  t.equal(say(record('SETATTR', file, { ...setattr, valid: 1 })), 'chmod dir/new mode 0640')
  t.equal(say(record('SETATTR', file, { ...setattr, valid: 8 })), 'truncate dir/new size 9')
  t.equal(say(record('SETATTR', file, { ...setattr, valid: 6 })), 'chown dir/new uid 5, gid 6')
  t.match(say(record('SETATTR', file, { ...setattr, valid: 9 })), /^setattr dir\/new size 9, mode/)
  const range = { offset: 1n, length: 2n }
  for (const [mode, verb] of Object.entries({
    0: 'allocate',
    3: 'punch',
    8: 'collapse',
    16: 'zero',
    32: 'insert',
  })) {
    const fields = { ...range, mode: Number(mode), sizeAfter: 0n }
    t.equal(say(record('FALLOCATE', file, fields)), `${verb} dir/new 1+2`)
  }
  t.equal(
    say(record('UNLINK', file, { parent: dir, pmtime: null, linksLeft: 0, name: name('new') })),
    'unlink dir/new',
  )
  const gone: Change = describeChange(record('GONE', file, {}), names)
  t.equal(gone.internal, true)
})

t.test('names: a reader may start at the last renewal of bindings', async (t) => {
  seq = 0n
  const journal = Journal.open({ path: t.testdir(), uuid: UUID, create: true })
  t.teardown(() => journal.close())
  let previousChain = Buffer.alloc(8)
  const append = (...records: RecordView[]) => {
    const encoded = records.map(({ bytes }) => bytes)
    const bytes = encodeFrame({ uuid: UUID, epoch: 1, records: encoded, previousChain })
    const view = new FrameView(bytes)
    journal.append([{ firstSeq: view.firstSeq, bytes }])
    previousChain = Buffer.from(view.chain)
  }
  append(bindRoot(), mkdir())
  append(create())
  append(
    record('WRITE', file, { offset: 0n }),
    bindRoot(),
    record('BIND', dir, { parent: root, name: name('dir') }),
  )
  append(record('WRITE', file, { offset: 1n }))
  t.equal(namesFrom(journal, 3n), 1n)
  t.equal(namesFrom(journal, seq), 4n)
  t.equal(namesFrom(journal, 1n), 1n)
})
