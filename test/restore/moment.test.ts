import t from 'tap'
import { parseMoment } from '../../src/history/moment.js'

process.env.TZ = 'Europe/Berlin'
/** Sunday. */
const nowMs = Date.parse('2026-11-22T15:14:58Z')
const snapshots = ['before-upgrade', '2026-11-22T14-03-12-000Z', 'now', 'yesterday 14:00']
const parse = (text: string) => parseMoment(text, { nowMs, snapshots })

t.test('moment: what people write has one meaning', async (t) => {
  const times: [string, string][] = [
    ['10 minutes ago', '2026-11-22T15:04:58Z'],
    ['  an  hour ago ', '2026-11-22T14:14:58Z'],
    ['2 days ago', '2026-11-20T15:14:58Z'],
    ['a week ago', '2026-11-15T15:14:58Z'],
    ['90s', '2026-11-22T15:13:28Z'],
    ['2h', '2026-11-22T13:14:58Z'],
    ['today 9:30', '2026-11-22T08:30:00Z'],
    ['last friday 18:00', '2026-11-20T17:00:00Z'],
    ['14:00', '2026-11-22T13:00:00Z'],
    ['2026-11-22 14:03', '2026-11-22T13:03:00Z'],
    ['2026-11-22 14:03:12.5', '2026-11-22T13:03:12.5Z'],
    ['2026-11-22T14:03:12Z', '2026-11-22T14:03:12Z'],
    ['2026-11-22T14:03:12+0530', '2026-11-22T08:33:12Z'],
    ['2026-11-22 14:03:12 -08:00', '2026-11-22T22:03:12Z'],
    ['time: yesterday 14:00', '2026-11-21T13:00:00Z'],
  ]
  for (const [text, iso] of times) {
    const ms = Date.parse(iso)
    if (ms > nowMs) t.throws(() => parse(text), { code: 'USAGE', message: /in the future/ }, text)
    else t.same(parse(text), { kind: 'time', ms }, text)
  }
  t.same(parse('seq:812345'), { kind: 'seq', seq: 812345n })
  t.same(parse('before-upgrade'), { kind: 'snapshot', name: 'before-upgrade' })
  t.same(parse('snapshot:now'), { kind: 'snapshot', name: 'now' })
  t.same(parse(snapshots[1] ?? ''), { kind: 'snapshot', name: snapshots[1] })
  t.same(parseMoment('now', { nowMs, snapshots: [] }), { kind: 'now' })
})

t.test('moment: what could be meant otherwise is refused, and says how to write it', async (t) => {
  const refusals: [string, RegExp][] = [
    ['812345', /seq:812345/],
    ['seq:12x', /digits/],
    ['yesterday', /write: yesterday 14:00/],
    ['2026-11-22', /write 2026-11-22 14:00/],
    ['2026-02-31 10:00', /no such date/],
    ['2026-11-22 25:00', /no such date/],
    ['3/4/2026 10:00', /2026-03-04 is one of them/],
    ['2 hours ago please', /only "2 hours ago" was understood, as 2026-11-22 14:14:58 \+0100/],
    ['23:30', /understood as 2026-11-22 23:30:00 \+0100, which is in the future/],
    ['tomorrow 10:00', /in the future/],
    ['10:00 to 12:00', /a span/],
    ['2026-10-25 02:30', /02:30:00 \+0200 or 2026-10-25 02:30:00 \+0100/],
    ['2026-03-29 02:30', /put forward/],
    ['yesterday 14:00', /snapshot:yesterday 14:00 or time:yesterday 14:00/],
    ['before-downgrade', /no time, and no snapshot/],
    ['', /no time/],
  ]
  for (const [text, why] of refusals) {
    t.throws(() => parse(text), { code: 'USAGE', message: why }, text)
  }
  const none = () => parse('snapshot:none')
  t.throws(none, { code: 'SNAPSHOT_NOT_FOUND' })
})
