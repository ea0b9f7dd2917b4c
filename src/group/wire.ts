/** What a coordinator asks of the hosts of a group, and what they answer. Instants by their own clocks. */
import { z } from 'zod'
import type { ErrorReport } from '../lib/errors.js'
import { GROUP_TIMEOUT_MS_MAX, HOLD_MS_MAX } from '../lib/limits.js'
import { NAME } from '../lib/names.js'
import { MemberSchema } from '../snapshot/certificate.js'
import { CutMethodSchema, GroupMemberSchema } from './definition.js'
import { ReportedReplicaSchema, ToldFrozenSchema } from './horizon.js'

/** What is passed on to a command on another host. */
export const PASSED_SIGNALS = [
  'SIGTERM',
  'SIGINT',
  'SIGQUIT',
  'SIGHUP',
  'SIGUSR1',
  'SIGUSR2',
] as const

const ns = z.string().regex(/^-?\d{1,19}$/)
const cut = z.uuid()

export const Questions = {
  /** What does your clock show? */
  time: z.strictObject({}),
  /** The volumes there are; of the group's snapshots, those that are kept. */
  look: z.strictObject({ volumes: z.array(z.string()) }),
  /** Runs what is to be run before a snapshot; answers when the host is armed. I/O goes on. */
  prepare: z.strictObject({
    cut,
    group: z.string().regex(NAME),
    coordinator: z.string(),
    members: z.array(GroupMemberSchema),
    snapshot: z.string().regex(NAME),
    labels: z.record(z.string(), z.string()),
    maxHoldMs: z.int().min(1).max(HOLD_MS_MAX),
    volumes: z.array(z.uuid()).min(1),
    timeoutMs: z.int().min(1).max(GROUP_TIMEOUT_MS_MAX),
    hooks: z.boolean(),
    /** It goes with this connection, however that ends. */
    temporary: z.boolean(),
    /** No snapshot: markers at one instant, of which nothing is kept. */
    markers: z.boolean(),
  }),
  /** Who holds write locks; those who still do when writes have waited for so long, where it is not 0. */
  check: z.strictObject({
    volumes: z.array(z.uuid()).min(1),
    waitMs: z.int().min(0).max(HOLD_MS_MAX),
  }),
  /** Writes out what is mapped; from here until the hold no other snapshot is taken on that host. */
  arm: z.strictObject({ cut }),
  /** Holds I/O until `release`; answers when it is at rest. */
  hold: z.strictObject({ cut }),
  release: z.strictObject({ cut }),
  /** Holds I/O from one instant to another; answers when that is over. */
  holdBetween: z.strictObject({ cut, startNs: ns, untilNs: ns }),
  /** It was one instant: keeps it. Answers when it is kept. */
  commit: z.strictObject({
    cut,
    created: z.iso.datetime(),
    method: CutMethodSchema,
    attempt: z.int().min(1),
  }),
  /** Has all run that follows a snapshot which is kept? Waits for it for a while. */
  followed: z.strictObject({ cut }),
  /** There is no snapshot: undoes what was begun. */
  abort: z.strictObject({ cut, why: z.string().max(4096) }),
  /** Shows a snapshot of the group, where this host always shows it. */
  mount: z.strictObject({ id: z.uuid() }),
  unmount: z.strictObject({ id: z.uuid(), force: z.boolean() }),
  /** Forgets a snapshot of the group. */
  destroy: z.strictObject({ id: z.uuid(), force: z.boolean() }),
  /** May that command run here on these volumes? null: they are only to be shown. Keeps the place for them. */
  execPrepare: z.strictObject({
    volumes: z.array(z.uuid()).min(1),
    command: z.array(z.string()).min(1).nullable(),
  }),
  /** Shows the snapshot at that place. */
  execShow: z.strictObject({ id: z.uuid() }),
  /** Runs the command. */
  execStart: z.strictObject({}),
  /** What has the command said since, and has it ended? Waits for news for a while. */
  execRead: z.strictObject({}),
  execSignal: z.strictObject({ signal: z.enum(PASSED_SIGNALS) }),
  /** Shows it no longer; the command is over. Fails when what was shown did not last. */
  execEnd: z.strictObject({}),
  /** Can these volumes be brought back to a snapshot? In place, or below `output` by name. */
  restorePrepare: z.strictObject({
    id: z.uuid(),
    volumes: z.array(z.uuid()).min(1),
    output: z.string().startsWith('/').nullable(),
    thorough: z.boolean(),
  }),
  /** Does it, or tells what would be done. */
  restoreStart: z.strictObject({ dryRun: z.boolean() }),
  /** How far is it? Waits for the end for a while. */
  restoreLook: z.strictObject({}),
  /**
   * How far replicas of these volumes may apply from now on; null: what was said stands. Answers when
   * they have logged, or applied, what is waited for, or after `waitMs`.
   */
  horizon: z.strictObject({
    group: z.strictObject({ id: z.uuid(), name: z.string().regex(NAME) }),
    volumes: z.array(z.uuid()),
    order: z
      .strictObject({
        revision: z.int().min(1),
        frozen: ToldFrozenSchema.nullable(),
        seqs: z.record(z.uuid(), z.int().min(0)),
      })
      .nullable(),
    wait: z
      .strictObject({
        for: z.enum(['logged', 'applied']),
        seqs: z.record(z.uuid(), z.int().min(0)),
        waitMs: z.int().min(0),
      })
      .nullable(),
  }),
  /** These volumes have no horizon any more. */
  leave: z.strictObject({ group: z.uuid(), volumes: z.array(z.uuid()) }),
} as const

export type Method = keyof typeof Questions
export type Question<M extends Method> = z.infer<(typeof Questions)[M]>

/** How a command has ended: as a shell says it, 128 + N for signal N. */
const exit = z.object({ code: z.int() })

const ShownSchema = z.object({ volume: z.string(), path: z.string(), seq: z.int() })

/** Changes that a restore would make, by kind. */
const counts = z.record(z.string(), z.int())

export const RestoredSchema = z.object({
  volume: z.string(),
  /** Where it is written. */
  target: z.string(),
  objects: z.int(),
  bytes: z.int(),
  totalBytes: z.int(),
  /** Of a dry run: what would be done. */
  changes: counts.nullable(),
  /** Things left undone; the first of them are named. */
  undone: z.int(),
  failures: z.array(z.string()),
  /** The command that undoes it there; null where the moment before is not kept. */
  undo: z.string().nullable(),
  error: z.custom<ErrorReport>().nullable(),
})
export type Restored = z.infer<typeof RestoredSchema>

const held = z.object({ members: z.array(MemberSchema) })
const nothing = z.unknown()

export const Answers = {
  time: z.object({ ns }),
  look: z.object({
    host: z.string(),
    volumes: z.array(
      z.object({
        name: z.string(),
        uuid: z.uuid(),
        state: z.string(),
        /** Ids of its snapshots. */
        snapshots: z.array(z.string()),
      }),
    ),
  }),
  /** A hook is to run while I/O is held: only a barrier waits for it. */
  prepare: z.object({ needsBarrier: z.boolean() }),
  check: z.object({
    locks: z.array(
      z.object({
        volume: z.string(),
        pid: z.int(),
        command: z.string(),
        kind: z.string(),
        path: z.string(),
      }),
    ),
  }),
  /** Write locks that were held just then. */
  arm: z.object({ writeLocks: z.int() }),
  hold: z.object({ restNs: ns }),
  release: held,
  holdBetween: held,
  commit: nothing,
  followed: z.object({ isOver: z.boolean() }),
  abort: nothing,
  mount: z.object({ views: z.array(z.object({ volume: z.string(), path: z.string() })) }),
  /** How many there were. */
  unmount: z.object({ views: z.int() }),
  destroy: nothing,
  execPrepare: nothing,
  execShow: z.object({ path: z.string(), views: z.array(ShownSchema) }),
  execStart: nothing,
  /** Base64. */
  execRead: z.object({ stdout: z.string(), stderr: z.string(), exit: exit.nullable() }),
  execSignal: nothing,
  execEnd: nothing,
  restorePrepare: z.object({
    volumes: z.array(
      z.object({
        volume: z.string(),
        target: z.string(),
        inPlace: z.boolean(),
        undoable: z.boolean(),
      }),
    ),
  }),
  restoreStart: nothing,
  restoreLook: z.object({ ended: z.boolean(), volumes: z.array(RestoredSchema) }),
  horizon: z.object({
    members: z.array(
      z.object({
        uuid: z.uuid(),
        /** Why nothing is known of it; null: all that follows is. */
        error: z.string().nullable(),
        state: z.string(),
        /** Last seq captured. */
        captured: z.int(),
        /** Of the order that it follows; 0: none. */
        revision: z.int(),
        seq: z.int(),
        frozen: ToldFrozenSchema.nullable(),
        replicas: z.array(ReportedReplicaSchema),
      }),
    ),
  }),
  leave: nothing,
} as const

export type Answer<M extends Method> = z.infer<(typeof Answers)[M]>
