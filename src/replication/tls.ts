/**
 * Transport: TLS 1.3, both ends with a certificate of their own, known by its pinned fingerprint.
 * No name and no authority is asked; possession of the key is proven by the handshake. Node connects and
 * listens; the connection itself is the data plane's (`link.ts`).
 */
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import { CONNECT_MS_MAX, CONNECTIONS_MAX, HANDSHAKE_MS_MAX } from '../lib/limits.js'
import type { Doorway } from './doorway.js'
import type { Identity } from './identity.js'
import { Link } from './link.js'

/** HOST:PORT, [V6]:PORT; USAGE. */
export function parseAddress(text: string): { host: string; port: number } {
  const found = /^(?:\[([0-9a-f:.%]+)\]|([^:\s]+)):(\d{1,5})$/i.exec(text)
  const port = Number(found?.[3])
  const host = found?.[1] ?? found?.[2]
  if (host !== undefined && port > 0 && port < 65_536) return { host, port }
  throw new HoldfastError('USAGE', `${JSON.stringify(text)} is no address`, {
    op: 'replication.address',
    hint: 'Write HOST:PORT, for instance 192.0.2.7:7420 or [2001:db8::7]:7420.',
  })
}

/** Connects to the host with this fingerprint. CONNECTION, PEER_UNKNOWN. */
export async function connectTls(options: {
  address: string
  identity: Identity
  fingerprint: string
}): Promise<Link> {
  const { address, identity, fingerprint } = options
  const op = 'replication.connect'
  const failed = (cause: unknown) => {
    const message = `cannot connect to ${address}: ${toHoldfastError(cause, op).message}`
    const hint = 'Is `holdfast replica serve` running there, and is the port open?'
    return new HoldfastError('CONNECTION', message, { op, cause, hint })
  }
  const { host, port } = parseAddress(address)
  let link: Link
  let found: string
  try {
    const deadline = performance.now() + CONNECT_MS_MAX
    const socket = await connected(host, port)
    const handshakeMs = Math.max(1, Math.ceil(deadline - performance.now()))
    link = new Link({ socket, identity, server: false, handshakeMs })
    found = await link.secured
  } catch (cause) {
    throw failed(cause)
  }
  if (found === fingerprint) return link
  link.destroy()
  const message = `${address} is another host than the one it was introduced as`
  throw new HoldfastError('PEER_UNKNOWN', message, {
    op,
    hint: 'If it was installed anew, introduce it again: holdfast peer token, holdfast peer add.',
    details: { expected: fingerprint, found },
  })
}

/** Not read from. */
async function connected(host: string, port: number): Promise<Socket> {
  const socket = connect({ host, port, noDelay: true, timeout: CONNECT_MS_MAX })
  socket.pause()
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve)
      socket.once('error', reject)
      socket.once('timeout', () => reject(new Error(`no answer in ${CONNECT_MS_MAX / 1000} s`)))
    })
  } catch (error) {
    socket.destroy()
    throw error
  }
  return socket
}

export interface TlsServer {
  readonly address: { host: string; port: number }
  close(): Promise<void>
}

/** Listens; gives every connection that finished its handshake, with its peer's fingerprint. */
export async function listenTls(options: {
  address: string
  identity: Identity
  doorway: Doorway
  onConnection(link: Link, fingerprint: string): void
}): Promise<TlsServer> {
  const { address, identity, doorway, onConnection } = options
  const links = new Set<Link>()
  const enter = (socket: Socket) => {
    const from = socket.remoteAddress
    const refuse = (error: unknown) => {
      const { message } = toHoldfastError(error, 'replica.serve')
      doorway.refused({ from, error: `no TLS handshake: ${message}` })
    }
    try {
      const link = new Link({ socket, identity, server: true, handshakeMs: HANDSHAKE_MS_MAX })
      links.add(link)
      link.once('close', () => links.delete(link))
      link.on('error', () => {})
      doorway.enter(link)
      link.secured.then((fingerprint) => onConnection(link, fingerprint), refuse)
    } catch (error) {
      refuse(error)
    }
  }
  const server = createServer({ pauseOnConnect: true, noDelay: true }, (socket) => {
    if (links.size < CONNECTIONS_MAX) enter(socket)
    else socket.destroy()
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen({ ...parseAddress(address) }, resolve)
  }).catch((cause: unknown) => {
    const message = `cannot listen on ${address}: ${toHoldfastError(cause, 'replica.serve').message}`
    throw new HoldfastError('CONNECTION', message, { op: 'replica.serve', cause })
  })
  const bound = server.address() as AddressInfo
  return {
    address: { host: bound.address, port: bound.port },
    close: async () => {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      await Promise.all([closed, ...[...links].map(ended)])
    },
  }
}

function ended(link: Link): Promise<void> {
  return new Promise((resolve) => {
    link.once('close', resolve)
    link.destroy()
  })
}
