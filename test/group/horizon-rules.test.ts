/** Which cut replicas have in common, when a copy has failed, and what a volume believes of its coordinator. */
import { randomUUID } from 'node:crypto'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { VolumeHorizon } from '../../src/daemon/horizon.js'
import { Copying } from '../../src/group/copying.js'
import {
  freeze,
  type GroupHorizon,
  hasLogged,
  mutualCut,
  orderOf,
  type ReportedReplica,
  standsAt,
} from '../../src/group/horizon.js'
import { codeOf } from '../harness/code.js'

const [a, b] = [randomUUID(), randomUUID()]
const cut = (at: string, seqA: number, seqB: number) => ({
  snapshot: null,
  at: `2026-01-01T00:00:0${at}.000Z`,
  seqs: { [a]: seqA, [b]: seqB },
})
const state = { before: cut('1', 10, 20), horizon: cut('2', 15, 25) }
const replica = (applied: number, more: Partial<ReportedReplica> = {}): ReportedReplica => ({
  peer: 'vault',
  connection: 'connected',
  problem: null,
  logged: applied,
  applied,
  heard: true,
  authorised: applied,
  baseline: false,
  needs: 0,
  ...more,
})
const members = (...applied: (ReportedReplica | null)[]) =>
  applied.map((each, n) => ({
    uuid: [a, b][n] ?? '',
    replicas: each === null ? null : [each],
  }))

t.test('horizon: the newest cut that all have applied', async (t) => {
  const found = (...all: (ReportedReplica | null)[]) => {
    const mutual = mutualCut(state, members(...all))
    return mutual && { at: mutual.cut.at[18], exact: mutual.exact }
  }
  t.same(found(replica(15), replica(25)), { at: '2', exact: true })
  t.same(found(replica(10), replica(20)), { at: '1', exact: true })
  t.same(found(replica(15), replica(20)), { at: '1', exact: false }, 'one has not heard of it')
  t.same(found(replica(12), replica(25)), { at: '1', exact: false }, 'one is on the way')
  t.same(found(replica(15), null), { at: '1', exact: false }, 'nothing is known of one')
  const gone = replica(0, { connection: 'waiting', heard: false, baseline: true })
  t.same(found(replica(15), gone), { at: '1', exact: false }, 'not by its daemon, either')
  t.equal(found(replica(15), replica(26)), null, 'one is beyond: its tree does not go back')
  t.equal(found(replica(15), replica(25, { baseline: true })), null)
  t.equal(found(replica(15), replica(25, { needs: 1 })), null)
  const lost = replica(22, { connection: 'waiting', baseline: true })
  t.equal(found(replica(15), lost), null, 'one was lost while it started over')
  t.equal(mutualCut({ before: null, horizon: null }, members(replica(1), replica(1))), null)
  t.equal(standsAt(replica(9), state, a), 'behind')
  t.equal(standsAt(replica(9), state, randomUUID()), 'beyond', 'a new member has no horizon yet')
})

t.test('horizon: what a replica may have been told before counts', async (t) => {
  t.ok(hasLogged(replica(15), 15))
  t.notOk(hasLogged(replica(14), 15))
  t.notOk(hasLogged(replica(15, { authorised: 16 }), 15), 'it may go beyond')
  t.notOk(hasLogged(replica(15, { baseline: true }), 15))
})

t.test('horizon: a freeze holds applications from when that is asked for', async (t) => {
  const now = Date.parse('2026-01-01T00:00:10.000Z')
  const free: GroupHorizon = { version: 1, revision: 4, ...state, frozen: null }
  const frozen = freeze(free, { why: 'a copy failed', holdMs: 0 }, now)
  t.match(frozen, { revision: 5, frozen: { why: 'a copy failed', heldUntil: null } })
  if (frozen === undefined) return
  t.equal(orderOf(frozen, now).frozen?.holdMs, 0)
  t.equal(freeze(frozen, { why: 'again', holdMs: 0 }, now), undefined, 'it is so already')
  const held = freeze(frozen, { why: 'again', holdMs: 30_000 }, now + 5_000)
  t.match(held, { revision: 6, frozen: { since: frozen.frozen?.since, why: 'a copy failed' } })
  if (held === undefined) return
  t.equal(orderOf(held, now + 10_000).frozen?.holdMs, 25_000, 'who hears late holds for the rest')
  t.equal(orderOf(held, now + 99_000).frozen?.holdMs, 0)
})

t.test('copying: fails when it gets no further for too long, not before', async (t) => {
  const copying = new Copying({ timeoutMs: 1_000, graceMs: 5_000 })
  const hear = (now: number, captured: number, copy: ReportedReplica) =>
    copying.heard('one/v1', { uuid: a, error: null, captured, replicas: [copy] }, now)
  const lost = replica(0, { connection: 'waiting' })
  hear(0, 10, lost)
  hear(5_500, 10, lost)
  t.equal(copying.failure(5_900), undefined, 'it has time to come')
  t.match(copying.failure(6_100), /^one\/v1 to vault: the replica is not connected, for 1\.1 s/)
  hear(6_000, 10, replica(5))
  t.equal(copying.failure(6_900), undefined)
  hear(6_500, 20, replica(6))
  hear(7_000, 30, replica(6))
  t.equal(copying.failure(7_400), undefined, 'it has got further half a second ago')
  hear(7_600, 30, replica(6))
  t.match(copying.failure(7_600), /the replica logs nothing/)
  hear(7_700, 30, replica(30))
  hear(9_500, 30, replica(30))
  t.equal(copying.failure(9_600), undefined, 'where nothing happens, nothing is missing')
  hear(9_700, 30, replica(30, { problem: 'no space' }))
  t.match(copying.failure(10_600), /no space/)
  copying.restart(10_600)
  t.equal(copying.failure(16_000), undefined)
  hear(16_000, 30, replica(30))
  copying.unheard('one/v1', a, 'cannot connect', 16_500)
  t.match(copying.failure(17_100), /^one\/v1: cannot connect/)
  copying.keepOnly(new Set())
  t.equal(copying.failure(99_000), undefined, 'nobody is looked at any more')
})

t.test('horizon: a volume goes on from what it was told last', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-horizon-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const group = { id: randomUUID(), name: 'shop', coordinator: 'hub' }
  const holds: number[] = []
  const changes = {
    hold: (maxMs: number) => void holds.push(maxMs),
    leftMs: () => holds.at(-1) ?? 0,
  }
  const open = () => new VolumeHorizon('data', directory, changes)
  const horizon = open()
  t.equal(horizon.seq, undefined, 'without one, replicas apply everything')
  const order = { group, revision: 1, seq: 0, frozen: null }
  t.ok(horizon.set(order))
  t.notOk(horizon.set(order), 'nothing new')
  t.equal(horizon.seq, 0n)
  const frozen = { since: new Date().toISOString(), why: 'on request', holdMs: 500 }
  const freeze = { ...order, revision: 3, seq: 7, frozen }
  t.ok(horizon.set(freeze))
  t.notOk(horizon.set(freeze))
  t.same(holds, [0, 500], 'what is told again holds nobody again')
  t.equal(horizon.status?.heldMs, 500)
  t.equal(
    codeOf(() => horizon.set({ ...order, revision: 2, seq: 9 })),
    'GROUP_STALE',
  )
  t.equal(
    codeOf(() => horizon.set({ ...order, revision: 4, seq: 6 })),
    'GROUP_STALE',
  )
  const other = { ...group, id: randomUUID() }
  t.equal(
    codeOf(() => horizon.set({ ...order, group: other, revision: 9 })),
    'GROUP_OTHER',
  )
  const again = open()
  t.same([again.seq, again.frozen], [7n, true])
  t.same(holds, [0, 500], 'a daemon that starts anew holds nobody')
  t.equal(
    codeOf(() => again.leave(other.id)),
    'GROUP_OTHER',
  )
  t.ok(again.leave(group.id))
  t.equal(holds.at(-1), 0, 'nobody is held by a group that was left')
  t.notOk(existsSync(join(directory, 'horizon.json')))
  t.equal(open().seq, undefined)
  writeFileSync(join(directory, 'horizon.json'), '{"version":2}')
  t.equal(
    codeOf(() => open()),
    'UNKNOWN_FORMAT',
  )
})
