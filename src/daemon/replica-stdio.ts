/**
 * The other end of a connection over ssh: started by the primary's ssh, it serves one connection on
 * its standard streams. When a server has the replicas of this host already, the stream is handed
 * to it over its control socket; else this process is the server until its connections have ended.
 */
import { request as httpRequest } from 'node:http'
import { Socket } from 'node:net'
import { resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { errnoOf, HoldfastError, toHoldfastError } from '../lib/errors.js'
import { hostName } from '../lib/host-name.js'
import { STDIO_SERVER_MS_MAX } from '../lib/limits.js'
import type { Logger } from '../lib/log.js'
import { JoinedStream } from '../replication/joined.js'
import { sshIdentity } from '../replication/serve.js'
import { greetingLine } from '../replication/ssh.js'
import { replicaSocketPath } from './places.js'
import {
  type ServedReplicas,
  STREAM_PATH,
  STREAM_PEER_HEADER,
  serveReplicas,
} from './replica-host.js'
import { replicaServer } from './root-lock.js'

const POLL_MS = 50

export interface StdioOptions {
  /** Directory of the replicas; undefined: the running server's, else `rootDefault`. */
  root: string | undefined
  rootDefault: string
  /** Who is at the other end. */
  peer: string
  log: Logger
}

/** Serves to the end of the connection, and of those that others handed to this process. */
export async function serveStdio(options: StdioOptions): Promise<void> {
  const stream = standardStreams()
  try {
    await serve(stream, options)
  } finally {
    stream.destroy()
  }
}

async function serve(stream: JoinedStream, options: StdioOptions): Promise<void> {
  const { peer, root, rootDefault, log } = options
  const end = Date.now() + STDIO_SERVER_MS_MAX
  for (;;) {
    const server = await connectServer(options)
    if (server !== undefined) return bridge(stream, server)
    try {
      const served = await serveReplicas({
        listen: null,
        root: root ?? rootDefault,
        way: 'ssh',
        log,
      })
      return await serveHere(stream, served, peer)
    } catch (error) {
      // One that starts or ends just now has no socket to hand the stream to.
      const known = toHoldfastError(error, 'replica.stdio')
      if (known.code !== 'VOLUME_RUNNING' || Date.now() > end) throw known
      await sleep(POLL_MS)
    }
  }
}

async function serveHere(
  stream: JoinedStream,
  served: ServedReplicas,
  peer: string,
): Promise<void> {
  process.on('SIGTERM', () => stream.destroy())
  process.on('SIGHUP', () => stream.destroy())
  stream.write(greetingLine(hostName()))
  await new Promise<void>((ended) => {
    served.accept({ stream, identity: sshIdentity(peer), from: 'ssh', onEnd: () => ended() })
  })
  while (served.sessions > 0) await sleep(POLL_MS)
  await served.close()
}

/** Standard input and output, neither of which may ever hold up this process. USAGE. */
function standardStreams(): JoinedStream {
  try {
    const input = new Socket({ fd: 0, readable: true, writable: false })
    const output = new Socket({ fd: 1, readable: false, writable: true })
    return new JoinedStream({ input, output })
  } catch (cause) {
    throw new HoldfastError('USAGE', 'standard input and output are not what ssh gives', {
      op: 'replica.stdio',
      cause,
      hint: '--stdio is for ssh to run: holdfast replicate VOLUME --to ssh://HOST',
    })
  }
}

/** A connection to the server that runs here; undefined when none does. VOLUME_RUNNING. */
async function connectServer({ root, peer }: StdioOptions): Promise<Socket | undefined> {
  const holder = replicaServer()
  if (holder === undefined) return undefined
  if (root !== undefined && resolve(root) !== holder.root) {
    const message = `this host keeps its replicas in ${holder.root} (process ${holder.pid}), not in ${root}`
    throw new HoldfastError('VOLUME_RUNNING', message, {
      op: 'replica.stdio',
      hint: 'Leave the directory out of the address: ssh://host',
    })
  }
  return new Promise((found, reject) => {
    const request = httpRequest({
      socketPath: replicaSocketPath(),
      agent: false,
      path: STREAM_PATH,
      headers: { connection: 'Upgrade', upgrade: 'holdfast', [STREAM_PEER_HEADER]: peer },
    })
    request.on('upgrade', (_response, socket, head) => {
      if (head.length > 0) socket.unshift(head)
      found(socket as Socket)
    })
    request.on('response', (response) => {
      response.resume()
      const message = `the server of this host's replicas (process ${holder.pid}) is of another version`
      reject(
        new HoldfastError('CONTROL', message, { op: 'replica.stdio', hint: 'Start it again.' }),
      )
    })
    request.on('error', (error) => {
      const errno = errnoOf(error)
      if (errno === 'ENOENT' || errno === 'ECONNREFUSED' || errno === 'ECONNRESET') found(undefined)
      else reject(toHoldfastError(error, 'replica.stdio'))
    })
    request.end()
  })
}

/** Passes bytes on, both ways, until either side ends. */
async function bridge(stream: JoinedStream, server: Socket): Promise<void> {
  stream.write(greetingLine(hostName()))
  await new Promise<void>((ended) => {
    for (const each of [server, stream]) {
      each.on('error', () => ended())
      each.once('close', () => ended())
    }
    stream.pipe(server)
    server.pipe(stream)
  })
  // What was said last goes out.
  await new Promise<void>((done) => stream.end(() => done()))
  server.destroy()
}
