/**
 * The groups that this host coordinates: `groups/NAME/group.json` in the host's directory, and what is
 * known of their snapshots beside it. A member is a volume of a host: this one ('') or a peer.
 */
import { existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { HoldfastError } from '../lib/errors.js'
import { writeFileDurably } from '../lib/files.js'
import { NAME } from '../lib/names.js'
import { isAlive, ProcessIdSchema } from '../lib/process-id.js'
import { readStored } from '../lib/stored.js'
import { MemberSchema } from '../snapshot/certificate.js'

const ns = z.string().regex(/^-?\d+$/)

export const GroupMemberSchema = z.strictObject({
  /** As this host knows the peer; '': this host itself. */
  host: z.string(),
  volume: z.string().regex(NAME),
  uuid: z.uuid(),
})

const GroupSchema = z.strictObject({
  version: z.literal(1),
  id: z.uuid(),
  name: z.string().regex(NAME),
  created: z.iso.datetime(),
  members: z.array(GroupMemberSchema),
})

/** How the members of a cut were held at one instant. */
export const CutMethodSchema = z.enum(['scheduled', 'barrier'])

const GroupSnapshotSchema = z.strictObject({
  version: z.literal(1),
  id: z.uuid(),
  name: z.string().regex(NAME),
  created: z.iso.datetime(),
  /** Taking: whoever takes it is at it, or has died; then it is none. */
  state: z.enum(['taking', 'complete']),
  labels: z.record(z.string(), z.string()),
  /** The process that it was taken for, and goes with; null: it stays. */
  owner: ProcessIdSchema.nullable().default(null),
  maxHoldMs: z.number(),
  method: CutMethodSchema,
  attempt: z.int().min(1),
  hosts: z.array(
    z.strictObject({
      host: z.string(),
      /** Its clock minus the coordinator's, and the bound of that. */
      offsetNs: ns,
      errorNs: ns,
      /** By the clock of the host, ns. */
      members: z.array(MemberSchema),
    }),
  ),
})

export type GroupMember = z.infer<typeof GroupMemberSchema>
export type Group = z.infer<typeof GroupSchema>
export type GroupSnapshot = z.infer<typeof GroupSnapshotSchema>
export type CutMethod = z.infer<typeof CutMethodSchema>

/** Those of one host, in their order. */
export function membersOn<Member extends { host: string }>(
  members: readonly Member[],
  host: string,
): Member[] {
  return members.filter((each) => each.host === host)
}

/** UUIDs of the volumes of one host. */
export function volumesOn(members: readonly GroupMember[], host: string): string[] {
  return membersOn(members, host).map(({ uuid }) => uuid)
}

export class Groups {
  readonly #root: string

  constructor(hostDirectory: string) {
    this.#root = join(hostDirectory, 'groups')
  }

  /** By name. UNKNOWN_FORMAT, naming the file. */
  list(): Group[] {
    if (!existsSync(this.#root)) return []
    return readdirSync(this.#root)
      .sort()
      .filter((name) => existsSync(this.#path(name)))
      .map((name) => read(this.#path(name), GroupSchema))
  }

  /** Where it keeps what is known of a group. */
  directory(name: string): string {
    return join(this.#root, name)
  }

  /** GROUP_NOT_FOUND. */
  get(name: string): Group {
    const found = this.list().find((group) => group.name === name)
    if (found !== undefined) return found
    throw new HoldfastError('GROUP_NOT_FOUND', `no group ${name}`, {
      op: 'group.find',
      hint: 'See what there is: holdfast group list',
    })
  }

  has(name: string): boolean {
    return this.list().some((group) => group.name === name)
  }

  /** Durable when it returns. */
  store(group: Group): void {
    mkdirSync(join(this.#root, group.name, 'snapshots'), { recursive: true, mode: 0o700 })
    write(this.#path(group.name), group)
  }

  /** With all that is known of its snapshots. Idempotent. */
  remove(name: string): void {
    rmSync(join(this.#root, name), { recursive: true, force: true })
  }

  /** Oldest first. UNKNOWN_FORMAT, naming the file. */
  snapshots(group: string): GroupSnapshot[] {
    const directory = join(this.#root, group, 'snapshots')
    if (!existsSync(directory)) return []
    return readdirSync(directory)
      .filter((file) => file.endsWith('.json'))
      .map((file) => read(join(directory, file), GroupSnapshotSchema))
      .sort((a, b) => a.created.localeCompare(b.created))
  }

  /** What whoever took it, or was to go with it, has left behind: no snapshot. */
  static isLeft({ state, owner }: GroupSnapshot): boolean {
    return state === 'taking' || (owner !== null && !isAlive(owner))
  }

  /** GROUP_NOT_FOUND, SNAPSHOT_NOT_FOUND. */
  snapshot(group: string, name: string): GroupSnapshot {
    const found = this.snapshots(this.get(group).name).find((each) => each.name === name)
    if (found !== undefined) return found
    throw new HoldfastError('SNAPSHOT_NOT_FOUND', `${group} has no snapshot ${name}`, {
      op: 'group.find',
      hint: `See what there is: holdfast group snapshot list ${group}`,
    })
  }

  /** Durable when it returns. */
  storeSnapshot(group: string, snapshot: GroupSnapshot): void {
    write(this.#snapshotPath(group, snapshot.name), snapshot)
  }

  /** Idempotent. */
  removeSnapshot(group: string, name: string): void {
    rmSync(this.#snapshotPath(group, name), { force: true })
  }

  #path(name: string): string {
    return join(this.#root, name, 'group.json')
  }

  #snapshotPath(group: string, name: string): string {
    return join(this.#root, group, 'snapshots', `${name}.json`)
  }
}

function write(path: string, contents: unknown): void {
  writeFileDurably(path, `${JSON.stringify(contents, null, 2)}\n`)
}

function read<Schema extends z.ZodType>(path: string, schema: Schema): z.infer<Schema> {
  return readStored(path, schema, {
    op: 'group.read',
    hint: 'Use the holdfast that wrote it, or a newer one; or remove the file.',
  })
}
