/**
 * Transport: the system's ssh runs `holdfast replica serve --stdio` on the other host, and messages
 * go over its standard streams. Who may, and who is who, is ssh's business: keys, known hosts and
 * its configuration file. The other end greets before the first message, so that what a login shell
 * prints is not taken for one.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import type { Duplex, Readable } from 'node:stream'
import { z } from 'zod'
import { HoldfastError } from '../lib/errors.js'
import {
  CONNECT_MS_MAX,
  SSH_ALIVE_COUNT_MAX,
  SSH_ALIVE_S,
  SSH_GREETING_BYTES_MAX,
  SSH_GREETING_MS_MAX,
  SSH_KILL_MS,
  SSH_SAID_CHARS_MAX,
} from '../lib/limits.js'
import type { Logger } from '../lib/log.js'
import { VERSION } from '../lib/version.js'
import { JoinedStream } from './joined.js'
import { PROTOCOL, versionMismatch } from './message.js'

const OP = 'replication.ssh'
const GREETING = 'HOLDFAST-STDIO '
const NEWLINE = 0x0a
/** Exit codes of the shell that ssh starts there, and of ssh itself. */
const NOT_FOUND = 127
const NOT_EXECUTABLE = 126
const SSH_FAILED = 255
const HINT_LOG = 'See the logs of that host.'

/** How a peer is reached by ssh, as peers.json keeps it. */
export const SshTargetSchema = z.strictObject({
  /** ssh://[user@]host[:port][/root] */
  url: z.string(),
  /** Configuration file for ssh instead of the usual ones. */
  config: z.string().nullable(),
  /** What to run there: a program, or a command that ends in one. */
  program: z.string(),
  /** How that host is to call this one. */
  self: z.string(),
})
export type SshTarget = z.infer<typeof SshTargetSchema>

export interface SshAddress {
  user: string | undefined
  host: string
  port: number | undefined
  /** Directory of the replicas there; undefined: where that host keeps them. */
  root: string | undefined
}

const GreetingSchema = z.strictObject({
  protocol: z.int(),
  version: z.string().max(256),
  host: z.string().max(256),
})
export type Greeting = z.infer<typeof GreetingSchema>

/** The first line of the other end. */
export function greetingLine(host: string): string {
  const greeting: Greeting = { protocol: PROTOCOL, version: VERSION, host }
  return `${GREETING}${JSON.stringify(greeting)}\n`
}

/** USAGE. */
export function parseSshUrl(text: string): SshAddress {
  const found =
    /^ssh:\/\/(?:([A-Za-z0-9_][^@:/\s]*)@)?(?:\[([0-9a-f:.%]+)\]|([A-Za-z0-9_][^@:/\s]*))(?::(\d{1,5}))?(\/.*)?$/i.exec(
      text,
    )
  const host = found?.[2] ?? found?.[3]
  const port = found?.[4] === undefined ? undefined : Number(found[4])
  if (host === undefined || port === 0 || (port ?? 0) > 65_535) {
    throw new HoldfastError('USAGE', `${JSON.stringify(text)} is no address for ssh`, {
      op: OP,
      hint: 'Write ssh://[user@]host[:port][/directory of the replicas there].',
    })
  }
  const root = found?.[5] === undefined || found[5] === '/' ? undefined : found[5]
  return { user: found?.[1], host, port, root }
}

/** The arguments of ssh. Exported for its test. */
export function sshArguments(target: SshTarget): string[] {
  const { user, host, port, root } = parseSshUrl(target.url)
  const remote = [
    ...[target.program, 'replica', 'serve', '--stdio', '--as', quote(target.self)],
    ...(root === undefined ? [] : ['--root', quote(root)]),
  ]
  const options = {
    BatchMode: 'yes',
    ConnectTimeout: CONNECT_MS_MAX / 1000,
    ServerAliveInterval: SSH_ALIVE_S,
    ServerAliveCountMax: SSH_ALIVE_COUNT_MAX,
    ClearAllForwardings: 'yes',
    // A connection of its own, which ends with this process.
    ControlMaster: 'no',
    ControlPath: 'none',
  }
  return [
    ...(target.config === null ? [] : ['-F', target.config]),
    ...Object.entries(options).flatMap(([name, value]) => ['-o', `${name}=${value}`]),
    ...(port === undefined ? [] : ['-p', `${port}`]),
    ...(user === undefined ? [] : ['-l', user]),
    ...['-T', '-e', 'none', '--', host, remote.join(' ')],
  ]
}

/** For the shell there. */
function quote(text: string): string {
  return /^[A-Za-z0-9_./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`
}

/**
 * Starts ssh; resolves when the other end has greeted. CONNECTION with what ssh said,
 * PROTOCOL_VERSION. The stream's end ends ssh, and that ends the process there.
 */
export async function connectSsh(
  options: SshTarget & {
    signal?: AbortSignal | undefined
    log: Logger
    onGreeting?(greeting: Greeting): void
  },
): Promise<Duplex> {
  const { signal, log, onGreeting, ...target } = options
  const child = spawn('ssh', sshArguments(target), {
    stdio: ['pipe', 'pipe', 'pipe'],
    // A group of its own: what interrupts this process lets it end its connections in order.
    detached: true,
  })
  const end = () => endChild(child)
  const said = new Said(child.stderr, (line) => log.warn({ ssh: line }, 'ssh says'))
  const closed = closing(child)
  signal?.addEventListener('abort', end, { once: true })
  let late = false
  const timer = setTimeout(() => {
    late = true
    end()
  }, SSH_GREETING_MS_MAX)
  try {
    const greeting = await Promise.race([
      readGreeting(child.stdout, target.url),
      closed.then((code) => Promise.reject(failure({ target, code, said: said.text }))),
    ])
    if (greeting.protocol !== PROTOCOL) throw versionMismatch(greeting)
    onGreeting?.(greeting)
  } catch (error) {
    end()
    throw late ? unanswered(target, said.text) : error
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', end)
  }
  return new JoinedStream({
    input: child.stdout,
    output: child.stdin,
    explain: async () => {
      const code = await closed
      return code === 0 ? undefined : failure({ target, code, said: said.text })
    },
    onDestroy: end,
  })
}

/** Resolves with the exit code, the signal, or what kept it from being started. */
function closing(child: ChildProcess): Promise<number | string> {
  // Writing to a program that has ended is no news: its end is.
  child.stdin?.on('error', () => {})
  return new Promise((resolve) => {
    child.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message))
    child.once('close', (code, signal) => resolve(code ?? signal ?? SSH_FAILED))
  })
}

function endChild(child: ChildProcess): void {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill('SIGTERM')
  setTimeout(() => child.kill('SIGKILL'), SSH_KILL_MS).unref()
}

/** The last of what a program says on its standard error; each line is passed on. */
class Said {
  #text = ''
  #line = ''

  constructor(stream: Readable, onLine: (line: string) => void) {
    stream.setEncoding('utf8').on('data', (piece: string) => {
      this.#text = `${this.#text}${piece}`.slice(-SSH_SAID_CHARS_MAX)
      const lines = `${this.#line}${piece}`.split('\n')
      this.#line = (lines.pop() ?? '').slice(-SSH_SAID_CHARS_MAX)
      for (const line of lines) if (line.trim() !== '') onLine(line.trim())
    })
  }

  get text(): string {
    return this.#text.trim().replaceAll(/\s*\n\s*/g, '; ')
  }
}

/** Reads the first line, and no byte more. */
function readGreeting(stdout: Readable, url: string): Promise<Greeting> {
  return new Promise((resolve, reject) => {
    let read = Buffer.alloc(0)
    const done = () => {
      stdout.off('data', onData)
      stdout.pause()
    }
    const onData = (piece: Buffer) => {
      read = Buffer.concat([read, piece])
      const at = read.indexOf(NEWLINE)
      if (at < 0 && read.length < SSH_GREETING_BYTES_MAX) return
      done()
      const line = read.toString('utf8', 0, at < 0 ? read.length : at)
      const greeting = parseGreeting(line)
      if (greeting === undefined) return reject(unclean(line, url))
      const rest = read.subarray(at + 1)
      if (rest.length > 0) stdout.unshift(rest)
      resolve(greeting)
    }
    stdout.on('data', onData)
  })
}

function parseGreeting(line: string): Greeting | undefined {
  if (!line.startsWith(GREETING)) return undefined
  try {
    return GreetingSchema.parse(JSON.parse(line.slice(GREETING.length)))
  } catch {
    return undefined
  }
}

function unclean(line: string, url: string): HoldfastError {
  const message = `${url} says ${JSON.stringify(line.slice(0, 80))} before holdfast does`
  return new HoldfastError('PROTOCOL', message, {
    op: OP,
    hint: 'The login shell there must print nothing: look at its start files (.bashrc, .profile).',
  })
}

function failure(options: {
  target: SshTarget
  code: number | string
  said: string
}): HoldfastError {
  const { target, code, said } = options
  const { host } = parseSshUrl(target.url)
  const tail = said === '' ? '' : `: ${said}`
  const error = (message: string, hint: string) =>
    new HoldfastError('CONNECTION', message, { op: OP, hint, details: { exit: code } })
  switch (code) {
    case 'ENOENT':
      return error('there is no ssh on this host', 'Install it: apt-get install openssh-client')
    case NOT_FOUND:
    case NOT_EXECUTABLE:
      return error(
        `${host} has no ${target.program} to run${tail}`,
        'Install holdfast there, or say where it is: holdfast peer add ssh://… --program PATH',
      )
    case SSH_FAILED:
      return error(
        `ssh to ${host} failed${tail}`,
        `Try it as root on this host: ssh ${sshByHand(target)} true`,
      )
    case 0:
      return error(`${host} ended the connection${tail}`, HINT_LOG)
  }
  if (typeof code === 'string') return error(`ssh to ${host} was ended by ${code}${tail}`, HINT_LOG)
  return error(
    `holdfast on ${host} ended with ${code}${tail}`,
    'Both hosts need a holdfast that speaks the same protocol: holdfast version',
  )
}

function unanswered(target: SshTarget, said: string): HoldfastError {
  const seconds = SSH_GREETING_MS_MAX / 1000
  const message = `no holdfast has answered at ${target.url} in ${seconds} s${said && `: ${said}`}`
  return new HoldfastError('CONNECTION', message, { op: OP, hint: HINT_LOG })
}

function sshByHand(target: SshTarget): string {
  const { user, host, port } = parseSshUrl(target.url)
  return [
    ...(target.config === null ? [] : ['-F', target.config]),
    ...['-o', 'BatchMode=yes'],
    ...(port === undefined ? [] : ['-p', `${port}`]),
    user === undefined ? host : `${user}@${host}`,
  ].join(' ')
}
