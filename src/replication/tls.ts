/**
 * Transport: TLS 1.3, both ends with a certificate of their own, known by its pinned fingerprint.
 * No name and no authority is asked; possession of the key is proven by the handshake.
 */
import type { AddressInfo } from 'node:net'
import { connect, createServer, type Server, type TLSSocket } from 'node:tls'
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import { CONNECT_MS_MAX, CONNECTIONS_MAX, HANDSHAKE_MS_MAX } from '../lib/limits.js'
import type { Doorway } from './doorway.js'
import { fingerprintOf, type Identity } from './identity.js'

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
}): Promise<TLSSocket> {
  const { address, identity, fingerprint } = options
  const op = 'replication.connect'
  const failed = (cause: unknown) => {
    const message = `cannot connect to ${address}: ${toHoldfastError(cause, op).message}`
    const hint = 'Is `holdfast replica serve` running there, and is the port open?'
    return new HoldfastError('CONNECTION', message, { op, cause, hint })
  }
  const socket = connect({
    ...parseAddress(address),
    key: identity.key,
    cert: identity.certificate,
    minVersion: 'TLSv1.3',
    // The fingerprint is compared below instead.
    rejectUnauthorized: false,
    timeout: CONNECT_MS_MAX,
  })
  await new Promise<void>((resolve, reject) => {
    socket.once('secureConnect', resolve)
    socket.once('error', reject)
    socket.once('close', () => reject(new Error('the connection was closed')))
    socket.once('timeout', () => reject(new Error(`no answer in ${CONNECT_MS_MAX / 1000} s`)))
  }).catch((cause: unknown) => {
    socket.destroy()
    throw failed(cause)
  })
  socket.setTimeout(0)
  socket.setNoDelay(true)
  const found = peerFingerprint(socket)
  if (found === fingerprint) return socket
  socket.destroy()
  const message = `${address} is another host than the one it was introduced as`
  throw new HoldfastError('PEER_UNKNOWN', message, {
    op,
    hint: 'If it was installed anew, introduce it again: holdfast peer token, holdfast peer add.',
    details: { expected: fingerprint, found: found ?? null },
  })
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
  onConnection(socket: TLSSocket, fingerprint: string): void
}): Promise<TlsServer> {
  const { address, identity, doorway, onConnection } = options
  const sockets = new Set<TLSSocket>()
  const server: Server = createServer({
    key: identity.key,
    cert: identity.certificate,
    minVersion: 'TLSv1.3',
    requestCert: true,
    rejectUnauthorized: false,
    handshakeTimeout: HANDSHAKE_MS_MAX,
  })
  server.maxConnections = CONNECTIONS_MAX
  server.on('connection', (socket) => doorway.enter(socket))
  server.on('secureConnection', (socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
    socket.on('error', () => {})
    socket.setNoDelay(true)
    const fingerprint = peerFingerprint(socket)
    if (fingerprint !== undefined) return onConnection(socket, fingerprint)
    doorway.refused({ from: socket.remoteAddress, error: 'a connection without a certificate' })
    socket.destroy()
  })
  server.on('tlsClientError', (error, socket) => {
    doorway.refused({ from: socket.remoteAddress, error: `no TLS handshake: ${error.message}` })
    socket.destroy()
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
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        for (const socket of sockets) socket.destroy()
      }),
  }
}

function peerFingerprint(socket: TLSSocket): string | undefined {
  const certificate = socket.getPeerX509Certificate()
  return certificate === undefined ? undefined : fingerprintOf(certificate)
}
