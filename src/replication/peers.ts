/**
 * The hosts that this host knows: `peers.json` in the host's directory, with the pinned fingerprint
 * of each (or how ssh reaches it, which proves identities itself), and the invitations that are still open. Read anew whenever it is asked, so that a
 * removed peer is a stranger at once.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { HoldfastError } from '../lib/errors.js'
import { writeFileDurably } from '../lib/files.js'
import { INVITATION_MS } from '../lib/limits.js'
import { NAME } from '../lib/names.js'
import { parseSshUrl, type SshTarget, SshTargetSchema } from './ssh.js'

const FILE = 'peers.json'
const FINGERPRINT = /^[0-9a-f]{64}$/

const TlsPeerSchema = z.strictObject({
  name: z.string().regex(NAME),
  fingerprint: z.string().regex(FINGERPRINT),
  /** HOST:PORT where its replica server listens; null: it only connects to us. */
  address: z.string().nullable(),
  added: z.iso.datetime(),
})
const SshPeerSchema = z.strictObject({
  name: z.string().regex(NAME),
  ssh: SshTargetSchema,
  added: z.iso.datetime(),
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

  /** The peer that is reached by this address of ssh. */
  byUrl(url: string): SshPeer | undefined {
    return this.list().find((peer): peer is SshPeer => isSshPeer(peer) && peer.ssh.url === url)
  }

  /** Adds a peer, or replaces the address of the same one. PEER_EXISTS: the name is another's. */
  add(peer: Omit<TlsPeer, 'added'>): TlsPeer {
    const known = this.byFingerprint(peer.fingerprint)
    const added: TlsPeer = {
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
    const added: SshPeer = { name, ssh, added: known?.added ?? new Date().toISOString() }
    this.#put(added, known)
    return added
  }

  /** Writes `peer` in the place of what it was before. */
  #put(peer: Peer, before: Peer | undefined): void {
    if (!NAME.test(peer.name)) {
      throw new HoldfastError('USAGE', `${JSON.stringify(peer.name)} is no name for a peer`, {
        op: 'peer.add',
      })
    }
    const contents = this.#read()
    const others = contents.peers.filter(({ name }) => name !== before?.name)
    if (others.some(({ name }) => name === peer.name)) {
      throw new HoldfastError('PEER_EXISTS', `another host is known as ${peer.name}`, {
        op: 'peer.add',
        hint: `Choose another name with --name, or: holdfast peer remove ${peer.name}`,
      })
    }
    this.#write({ ...contents, peers: [...others, peer] })
  }

  /** PEER_NOT_FOUND. */
  remove(name: string): void {
    this.get(name)
    const contents = this.#read()
    this.#write({ ...contents, peers: contents.peers.filter((peer) => peer.name !== name) })
  }

  /** A token to paste at the other host; its secret is good once, for a quarter of an hour. */
  invite(self: { name: string; address: string; fingerprint: string }): string {
    const secret = randomBytes(24).toString('base64url')
    const contents = this.#read()
    const open = contents.invitations.filter(({ expires }) => expires > Date.now())
    const invitation = { hash: hash(secret), expires: Date.now() + INVITATION_MS }
    this.#write({ ...contents, invitations: [...open, invitation] })
    const token: Token = { v: 1, ...self, secret }
    return `holdfast-${Buffer.from(JSON.stringify(token)).toString('base64url')}`
  }

  /** Takes an invitation back as used; false when there is none like it. */
  redeem(secret: string): boolean {
    const wanted = Buffer.from(hash(secret))
    const contents = this.#read()
    const rest = contents.invitations.filter(
      ({ hash: known }) => !timingSafeEqual(Buffer.from(known), wanted),
    )
    const found = contents.invitations.find((each) => !rest.includes(each))
    if (found === undefined) return false
    this.#write({ ...contents, invitations: rest })
    return found.expires > Date.now()
  }

  #read(): Contents {
    if (!existsSync(this.#path)) return { version: 1, peers: [], invitations: [] }
    const parsed = FileSchema.safeParse(parseJson(readFileSync(this.#path, 'utf8')))
    if (parsed.success) return parsed.data
    const [issue] = parsed.error.issues
    const message = `${this.#path}: ${issue?.path.join('.')} ${issue?.message}`
    throw new HoldfastError('UNKNOWN_FORMAT', message, { op: 'peer.read', hint: 'Correct it.' })
  }

  #write(contents: Contents): void {
    mkdirSync(this.#directory, { recursive: true, mode: 0o700 })
    writeFileDurably(this.#path, `${JSON.stringify(contents, null, 2)}\n`, 0o600)
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

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
