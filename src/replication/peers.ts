/**
 * The hosts that this host knows: `peers.json` in the host's directory, with the pinned fingerprint
 * of each (or how ssh reaches it, which proves identities itself), and the invitations that are still open. Read anew whenever it is asked, so that a
 * removed peer is a stranger at once.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { HoldfastError } from '../lib/errors.js'
import { whileLocked } from '../lib/file-lock.js'
import { writeFileDurably } from '../lib/files.js'
import { INVITATION_MS, ONE_WAY_MS_MAX } from '../lib/limits.js'
import { NAME } from '../lib/names.js'
import { parseJson, readStored } from '../lib/stored.js'
import { ALL_RIGHTS, type Grants, type Rights, rightsOf } from './rights.js'
import { parseSshUrl, type SshTarget, SshTargetSchema } from './ssh.js'

const FILE = 'peers.json'
const FINGERPRINT = /^[0-9a-f]{64}$/

/** A message to it or from it takes at least so long, ms, as the operator knows. */
const OneWaySchema = z.number().min(0).max(ONE_WAY_MS_MAX).optional()

const TlsPeerSchema = z.strictObject({
  name: z.string().regex(NAME),
  fingerprint: z.string().regex(FINGERPRINT),
  /** HOST:PORT where its replica server listens; null: it only connects to us. */
  address: z.string().nullable(),
  added: z.iso.datetime(),
  /** Volumes of this host that it may hold and snapshot as a coordinator of groups; `*`: all. */
  mayCut: z.array(z.string()).optional(),
  oneWayMs: OneWaySchema,
  /** Programs of the directory of such that it may have run here. */
  mayRun: z.array(z.string()).optional(),
  /** It may bring moments of these volumes back in place. */
  mayRestore: z.boolean().optional(),
  /** It may have copies of moments of these volumes made below this directory. */
  copiesBelow: z.string().optional(),
})
const SshPeerSchema = z.strictObject({
  name: z.string().regex(NAME),
  ssh: SshTargetSchema,
  added: z.iso.datetime(),
  oneWayMs: OneWaySchema,
})
const FileSchema = z.strictObject({
  version: z.literal(1),
  peers: z.array(z.union([TlsPeerSchema, SshPeerSchema])),
  invitations: z.array(z.strictObject({ hash: z.string(), expires: z.number() })),
})
const TokenSchema = z.strictObject({
  v: z.literal(1),
  name: z.string().regex(NAME),
  address: z.string(),
  fingerprint: z.string().regex(FINGERPRINT),
  secret: z.string(),
})

export type TlsPeer = z.infer<typeof TlsPeerSchema>
export type SshPeer = z.infer<typeof SshPeerSchema>
export type Peer = TlsPeer | SshPeer
export type Token = z.infer<typeof TokenSchema>
type Contents = z.infer<typeof FileSchema>

export function isSshPeer(peer: Peer): peer is SshPeer {
  return 'ssh' in peer
}

export class Peers {
  readonly #path: string
  readonly #directory: string

  constructor(directory: string) {
    this.#directory = directory
    this.#path = join(directory, FILE)
  }

  list(): Peer[] {
    return this.#read().peers
  }

  /** PEER_NOT_FOUND. */
  get(name: string): Peer {
    const found = this.list().find((peer) => peer.name === name)
    if (found !== undefined) return found
    throw new HoldfastError('PEER_NOT_FOUND', `no peer ${name}`, {
      op: 'peer.find',
      hint: 'See who there is: holdfast peer list',
    })
  }

  byFingerprint(fingerprint: string): TlsPeer | undefined {
    return this.list().find(
      (peer): peer is TlsPeer => !isSshPeer(peer) && peer.fingerprint === fingerprint,
    )
  }

  /** What somebody may as a coordinator of groups. Who comes by ssh may what ssh lets him. */
  rights(identity: string): Rights {
    if (!FINGERPRINT.test(identity)) return ALL_RIGHTS
    return rightsOf(() => this.byFingerprint(identity) ?? {})
  }

  /** The peer that is reached by this address of ssh. */
  byUrl(url: string): SshPeer | undefined {
    return this.list().find((peer): peer is SshPeer => isSshPeer(peer) && peer.ssh.url === url)
  }

  /** Adds a peer, or replaces the address of the same one. PEER_EXISTS: the name is another's. */
  add(peer: Omit<TlsPeer, 'added'>): TlsPeer {
    const known = this.byFingerprint(peer.fingerprint)
    const added: TlsPeer = {
      ...known,
      ...peer,
      address: peer.address ?? known?.address ?? null,
      added: known?.added ?? new Date().toISOString(),
    }
    this.#put(added, known)
    return added
  }

  /** Adds a peer reached by ssh, or replaces how the same one is. PEER_EXISTS, USAGE. */
  addSsh(name: string, ssh: SshTarget): SshPeer {
    parseSshUrl(ssh.url)
    const known = this.byUrl(ssh.url)
    const added: SshPeer = {
      ...known,
      name,
      ssh,
      added: known?.added ?? new Date().toISOString(),
    }
    this.#put(added, known)
    return added
  }

  /** What a peer may as a coordinator of groups, and nothing else. PEER_NOT_FOUND, USAGE. */
  allow(name: string, grants: Grants): void {
    const peer = this.get(name)
    if (isSshPeer(peer)) {
      throw new HoldfastError('USAGE', `${name} is reached by ssh: it may what ssh lets it`, {
        op: 'peer.allow',
      })
    }
    const nothing: Grants = { mayRun: undefined, mayRestore: undefined, copiesBelow: undefined }
    this.#put({ ...peer, ...nothing, ...grants }, peer)
  }

  /** How far away a peer is at least: what a message takes each way. PEER_NOT_FOUND. */
  setDistance(name: string, oneWayMs: number): void {
    const peer = this.get(name)
    this.#put({ ...peer, oneWayMs }, peer)
  }

  /** Writes `peer` in the place of what it was before. */
  #put(peer: Peer, before: Peer | undefined): void {
    if (!NAME.test(peer.name)) {
      throw new HoldfastError('USAGE', `${JSON.stringify(peer.name)} is no name for a peer`, {
        op: 'peer.add',
      })
    }
    this.#change((contents) => {
      const others = contents.peers.filter(({ name }) => name !== before?.name)
      if (others.some(({ name }) => name === peer.name)) {
        throw new HoldfastError('PEER_EXISTS', `another host is known as ${peer.name}`, {
          op: 'peer.add',
          hint: `Choose another name with --name, or: holdfast peer remove ${peer.name}`,
        })
      }
      return { ...contents, peers: [...others, peer] }
    })
  }

  /** PEER_NOT_FOUND. */
  remove(name: string): void {
    this.get(name)
    this.#change((contents) => {
      return { ...contents, peers: contents.peers.filter((peer) => peer.name !== name) }
    })
  }

  /** A token to paste at the other host; its secret is good once, for a quarter of an hour. */
  invite(self: { name: string; address: string; fingerprint: string }): string {
    const secret = randomBytes(24).toString('base64url')
    const invitation = { hash: hash(secret), expires: Date.now() + INVITATION_MS }
    this.#change((contents) => {
      const open = contents.invitations.filter(({ expires }) => expires > Date.now())
      return { ...contents, invitations: [...open, invitation] }
    })
    const token: Token = { v: 1, ...self, secret }
    return `holdfast-${Buffer.from(JSON.stringify(token)).toString('base64url')}`
  }

  /** Takes an invitation back as used; false when there is none like it. */
  redeem(secret: string): boolean {
    const wanted = Buffer.from(hash(secret))
    const isWanted = ({ hash: known }: Contents['invitations'][number]) =>
      timingSafeEqual(Buffer.from(known), wanted)
    // A guess is not to cost a write.
    if (!this.#read().invitations.some(isWanted)) return false
    let found: Contents['invitations'][number] | undefined
    this.#change((contents) => {
      found = contents.invitations.find(isWanted)
      return { ...contents, invitations: contents.invitations.filter((each) => !isWanted(each)) }
    })
    return found !== undefined && found.expires > Date.now()
  }

  #read(): Contents {
    if (!existsSync(this.#path)) return { version: 1, peers: [], invitations: [] }
    return readStored(this.#path, FileSchema, { op: 'peer.read', hint: 'Correct it.' })
  }

  /** Nothing that another process changes at the same time is lost. BUSY. */
  #change(change: (contents: Contents) => Contents): void {
    mkdirSync(this.#directory, { recursive: true, mode: 0o700 })
    whileLocked(this.#path, () => {
      const contents = change(this.#read())
      writeFileDurably(this.#path, `${JSON.stringify(contents, null, 2)}\n`, 0o600)
    })
  }
}

/** TOKEN. */
export function parseToken(text: string): Token {
  const [, encoded = ''] = /^holdfast-([A-Za-z0-9_-]+)$/.exec(text.trim()) ?? []
  const parsed = TokenSchema.safeParse(parseJson(Buffer.from(encoded, 'base64url').toString()))
  if (parsed.success) return parsed.data
  throw new HoldfastError('TOKEN', 'that is no token of holdfast', {
    op: 'peer.add',
    hint: 'Paste all of what `holdfast peer token` printed on the other host.',
  })
}

function hash(secret: string): string {
  return createHash('sha256').update(secret).digest('hex')
}
