/** Retention: the rules of `restic forget`, as a table of policies and of what they keep. */
import t from 'tap'
import {
  applyPolicy,
  describePolicy,
  type Policy,
  parseSpan,
  type Span,
} from '../../src/snapshot/retention.js'

/** Local times: buckets are those of the local calendar. */
const TIMES = `
  2024-12-29 23:50, 2024-12-30 00:10, 2025-01-05 12:00, 2025-01-06 12:00, 2025-01-31 23:59,
  2025-02-01 00:00, 2025-02-28 10:00, 2025-03-01 09:00, 2025-03-01 09:30, 2025-03-01 10:00,
  2025-03-01 10:59, 2025-03-02 08:00`
  .split(',')
  .map((each) => each.trim())

const snapshots = TIMES.map((time) => ({
  name: time,
  created: new Date(time.replace(' ', 'T')).toISOString(),
  labels: { month: time.slice(0, 7), ...(time.startsWith('2025-01-05') ? { hold: 'yes' } : {}) },
}))
const NOW = Date.parse('2025-03-10T00:00')

/** What is kept, oldest first, and why. */
function kept(policy: Policy, now = NOW): string[] {
  return applyPolicy(snapshots, policy, now)
    .filter(({ keep }) => keep)
    .map(({ snapshot, reasons }) => `${snapshot.name} ${reasons.join('+')}`)
    .reverse()
}

function span(text: string): Span {
  const parsed = parseSpan(text)
  if (parsed === undefined) throw new Error(`${text} is no span`)
  return parsed
}

const TABLE: [what: string, policy: Policy, kept: string[]][] = [
  ['the last ones', { last: 2 }, ['2025-03-01 10:59 last', '2025-03-02 08:00 last']],
  [
    'the newest of each hour that has one',
    { hourly: 3 },
    ['2025-03-01 09:30 hourly', '2025-03-01 10:59 hourly', '2025-03-02 08:00 hourly'],
  ],
  [
    'of each day',
    { daily: 3 },
    ['2025-02-28 10:00 daily', '2025-03-01 10:59 daily', '2025-03-02 08:00 daily'],
  ],
  [
    'of each ISO week: Sunday ends one, and a year begins within one',
    { weekly: 6 },
    [
      '2024-12-29 23:50 weekly',
      '2025-01-05 12:00 weekly',
      '2025-01-06 12:00 weekly',
      '2025-02-01 00:00 weekly',
      '2025-03-02 08:00 weekly',
    ],
  ],
  [
    'of each month, and the oldest while there is a count left',
    { monthly: 5 },
    [
      '2024-12-29 23:50 monthly',
      '2024-12-30 00:10 monthly',
      '2025-01-31 23:59 monthly',
      '2025-02-28 10:00 monthly',
      '2025-03-02 08:00 monthly',
    ],
  ],
  ['not when there is none left', { yearly: 1 }, ['2025-03-02 08:00 yearly']],
  [
    'one may count for several',
    { last: 1, daily: 2, yearly: 3 },
    [
      '2024-12-29 23:50 yearly',
      '2024-12-30 00:10 yearly',
      '2025-03-01 10:59 daily',
      '2025-03-02 08:00 last+daily+yearly',
    ],
  ],
  [
    'all of a kind',
    { monthly: 'all', last: 0 },
    [
      '2024-12-29 23:50 monthly',
      '2024-12-30 00:10 monthly',
      '2025-01-31 23:59 monthly',
      '2025-02-28 10:00 monthly',
      '2025-03-02 08:00 monthly',
    ],
  ],
  [
    'within a time of the newest, the end of it not included',
    { within: span('22h') },
    ['2025-03-01 10:59 within', '2025-03-02 08:00 within'],
  ],
  [
    'with calendar months',
    { within: span('1m1d') },
    [
      '2025-02-28 10:00 within',
      '2025-03-01 09:00 within',
      '2025-03-01 09:30 within',
      '2025-03-01 10:00 within',
      '2025-03-01 10:59 within',
      '2025-03-02 08:00 within',
    ],
  ],
  [
    'with labels, beside other rules',
    {
      labels: [
        { hold: 'yes', month: '2025-01' },
        { month: '2025-02', hold: 'yes' },
      ],
      last: 1,
    },
    ['2025-01-05 12:00 label hold=yes,month=2025-01', '2025-03-02 08:00 last'],
  ],
]

for (const [what, policy, expected] of TABLE) {
  t.strictSame(kept(policy), expected, `retention: ${what}`)
}
t.equal(kept({}).length, TIMES.length, 'retention: an empty policy keeps everything')
t.equal(kept({ last: 0, labels: [] }).length, TIMES.length, 'also one of noughts')
t.strictSame(applyPolicy([], { last: 1 }, NOW), [], 'nothing of nothing')
t.strictSame(
  kept({ within: span('1h') }, Date.parse('2025-03-01T10:30')),
  ['2025-03-01 09:30', '2025-03-01 10:00', '2025-03-01 10:59', '2025-03-02 08:00'].map(
    (each) => `${each} within`,
  ),
  'retention: one in the future is not what others are measured by',
)
t.strictSame(span('1y2m1w3d4h'), { years: 1, months: 2, days: 10, hours: 4 })
for (const wrong of ['', '0d', '5', '3h2d', '1x', '-1d'])
  t.equal(parseSpan(wrong), undefined, wrong)
t.equal(describePolicy({}), 'everything')
t.equal(
  describePolicy({ last: 3, daily: 'all', within: span('8d'), labels: [{ a: 'b' }] }),
  'last 3, daily all, within 8d, label a=b',
)
