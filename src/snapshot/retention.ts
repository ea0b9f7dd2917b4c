/**
 * Which snapshots a policy keeps, and why. Pure; the rules are those of `restic forget`
 * (internal/restic/snapshot_policy.go), so that a policy means the same here as it does there:
 *
 * Newest first, the newest snapshot of each hour, day, ISO week, month, year is kept, for as many of
 * these as the policy says and as there are; a snapshot may count for several. The oldest one of all
 * fills a count that is not used up: history is kept as long as it can be. `within` goes by the newest
 * snapshot that is not in the future, not by the clock. An empty policy keeps everything. Hours and
 * days are those of the local time.
 */

/** So many; `all`: without a limit. */
export type Count = number | 'all'

/** A calendar's span: years and months are as long as they are. */
export interface Span {
  years: number
  months: number
  days: number
  hours: number
}

export interface Policy {
  last?: Count | undefined
  hourly?: Count | undefined
  daily?: Count | undefined
  weekly?: Count | undefined
  monthly?: Count | undefined
  yearly?: Count | undefined
  within?: Span | undefined
  /** Snapshots that have all labels of one of these. */
  labels?: Record<string, string>[] | undefined
}

/** What is looked at. */
export interface Aged {
  name: string
  /** ISO 8601. */
  created: string
  labels: Readonly<Record<string, string>>
}

export interface Verdict<Snapshot extends Aged> {
  snapshot: Snapshot
  keep: boolean
  /** Why it is kept. */
  reasons: string[]
}

const pad = (value: number) => `${value}`.padStart(2, '0')
const month = (at: Date) => `${at.getFullYear()}-${pad(at.getMonth() + 1)}`
const day = (at: Date) => `${month(at)}-${pad(at.getDate())}`

/** In the order in which reasons are told: which bucket a snapshot falls into. */
const BUCKETS = {
  last: (_: Date, index: number) => `${index}`,
  hourly: (at: Date) => `${day(at)} ${pad(at.getHours())}`,
  daily: day,
  weekly: isoWeek,
  monthly: month,
  yearly: (at: Date) => `${at.getFullYear()}`,
} as const
type Kind = keyof typeof BUCKETS
const KINDS = Object.keys(BUCKETS) as Kind[]

/** Nothing is asked to be kept: everything is. */
export function isEmpty(policy: Policy): boolean {
  const counts = KINDS.every((kind) => policy[kind] === undefined || policy[kind] === 0)
  return counts && policy.within === undefined && (policy.labels ?? []).length === 0
}

/** Newest first. `now`, in ms since the epoch, only says which snapshots are in the future. */
export function applyPolicy<Snapshot extends Aged>(
  snapshots: readonly Snapshot[],
  policy: Policy,
  now: number,
): Verdict<Snapshot>[] {
  const sorted = snapshots.toSorted((a, b) => b.created.localeCompare(a.created))
  if (isEmpty(policy)) {
    return sorted.map((snapshot) => ({ snapshot, keep: true, reasons: ['policy is empty'] }))
  }
  const since = withinSince(sorted, policy.within, now)
  const counters = KINDS.map((kind) => new Counter(kind, policy[kind]))
  return sorted.map((snapshot, index) => {
    const at = new Date(snapshot.created)
    const isOldest = index === sorted.length - 1
    const reasons = [
      ...labelReasons(snapshot, policy),
      ...(since !== undefined && at.getTime() > since ? ['within'] : []),
      ...counters.flatMap((counter) => counter.reason(at, { index, isOldest })),
    ]
    return { snapshot, keep: reasons.length > 0, reasons }
  })
}

/** What is left of one of the policy's counts. */
class Counter {
  readonly #kind: Kind
  #left: number
  #bucket: string | undefined

  constructor(kind: Kind, count: Count = 0) {
    this.#kind = kind
    this.#left = count === 'all' ? Number.POSITIVE_INFINITY : count
  }

  reason(at: Date, { index, isOldest }: { index: number; isOldest: boolean }): string[] {
    if (this.#left <= 0) return []
    const bucket = BUCKETS[this.#kind](at, index)
    if (bucket === this.#bucket && !isOldest) return []
    this.#bucket = bucket
    this.#left -= 1
    return [this.#kind]
  }
}

function labelReasons({ labels }: Aged, policy: Policy): string[] {
  return (policy.labels ?? []).flatMap((wanted) => {
    const entries = Object.entries(wanted)
    if (!entries.every(([key, value]) => labels[key] === value)) return []
    return [`label ${entries.map(([key, value]) => `${key}=${value}`).join(',')}`]
  })
}

/** The instant, ms, after which everything is kept. */
function withinSince(sorted: readonly Aged[], within: Span | undefined, now: number) {
  const newest = sorted.map(({ created }) => Date.parse(created)).find((at) => at < now)
  if (within === undefined || newest === undefined) return undefined
  const { years, months, days, hours } = within
  const at = new Date(newest)
  const moved = new Date(at)
  moved.setFullYear(at.getFullYear() - years, at.getMonth() - months, at.getDate() - days)
  return moved.getTime() - hours * 3_600_000
}

/** ISO 8601: weeks begin on Monday; the first one has the year's first Thursday. */
function isoWeek(at: Date): string {
  const thursday = new Date(Date.UTC(at.getFullYear(), at.getMonth(), at.getDate()))
  thursday.setUTCDate(thursday.getUTCDate() + 4 - (thursday.getUTCDay() || 7))
  const year = thursday.getUTCFullYear()
  const days = (thursday.getTime() - Date.UTC(year, 0, 1)) / 86_400_000
  return `${year}-W${pad(Math.floor(days / 7) + 1)}`
}

const SPAN = /^(?:(\d+)y)?(?:(\d+)m)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?$/

/** `1y6m`, `2w`, `7d12h`: m is months, as in restic. undefined when it is no span, or none at all. */
export function parseSpan(text: string): Span | undefined {
  const match = SPAN.exec(text.trim())
  if (match === null) return undefined
  const [years = 0, months = 0, weeks = 0, days = 0, hours = 0] = match
    .slice(1)
    .map((each) => Number(each ?? 0))
  const span = { years, months, days: days + 7 * weeks, hours }
  return Object.values(span).some((each) => each > 0) ? span : undefined
}

export function formatSpan({ years, months, days, hours }: Span): string {
  const parts = [`${years}y`, `${months}m`, `${days}d`, `${hours}h`]
  return parts.filter((part) => !part.startsWith('0')).join('')
}

/** `last 3, daily 7, within 2d`; for an empty one `everything`. */
export function describePolicy(policy: Policy): string {
  if (isEmpty(policy)) return 'everything'
  const counts = KINDS.flatMap((kind) => {
    const count = policy[kind]
    return count === undefined || count === 0 ? [] : [`${kind} ${count}`]
  })
  const { within, labels = [] } = policy
  const labelled = labels.map((each) => {
    return `label ${Object.entries(each)
      .map(([key, value]) => `${key}=${value}`)
      .join(',')}`
  })
  return [...counts, ...(within ? [`within ${formatSpan(within)}`] : []), ...labelled].join(', ')
}
