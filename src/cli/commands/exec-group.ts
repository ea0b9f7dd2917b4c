/** `holdfast exec --group`: a command that sees one instant of several hosts. */
import type {
  ExecEvents,
  GroupExecRequest,
  GroupExposed,
  HostEnd,
  PassedSignal,
} from '../../daemon/group-exec.js'
import { PrefixedLines } from '../../daemon/group-output.js'
import type { GroupSnapshot } from '../../group/definition.js'
import { PASSED_SIGNALS } from '../../group/wire.js'
import { type CutFlags, cutOrder } from '../cut-arguments.js'
import { err, type Interrupts, remark, usageError } from '../output.js'

export interface GroupExecFlags extends CutFlags {
  group: string
  here?: boolean
  name?: string
  keep?: boolean
}

const daemon = () => import('../../daemon/group-exec.js')

/** Resolves with the exit code to end with: of the first host, in their order, that has another than 0. */
export async function execGroup(
  flags: GroupExecFlags,
  command: string[],
  interrupts: Interrupts,
): Promise<number> {
  const { execInGroup } = await daemon()
  const sinks = { stdout: new Sink(process.stdout), stderr: new Sink(process.stderr) }
  const outputs = new Map<string, Shared>()
  let stop = () => {}
  const events: ExecEvents = {
    onOutput: async (host, to, bytes) => outputs.get(host)?.push(to, bytes),
    onStart: (hosts, pass) => {
      stop = passSignals(pass)
      interrupts.release()
      for (const host of hosts) outputs.set(host, new Shared(host, hosts.length, sinks))
    },
  }
  try {
    const ends = await execInGroup(requestOf(flags, interrupts.signal), command, events)
    for (const each of outputs.values()) each.end()
    return exitCodeOf(ends)
  } finally {
    stop()
  }
}

/** Runs it once, here; the hosts only show their parts. */
export async function execHere(
  flags: GroupExecFlags,
  { command, signal }: { command: string[]; signal: AbortSignal },
  run: (command: string[], env: Record<string, string>) => Promise<number>,
): Promise<number> {
  const { withGroupSnapshot } = await daemon()
  return withGroupSnapshot(requestOf(flags, signal), async (snapshot, exposed) => {
    return run(placed(command, exposed), await hereEnvironment(flags.group, snapshot, exposed))
  })
}

function requestOf(flags: GroupExecFlags, signal: AbortSignal): GroupExecRequest {
  const { group, name, keep = false } = flags
  return { group, name, keep, signal, ...cutOrder(flags) }
}

/** `{}` is where this host shows its part, `{HOST}` where that host does. USAGE. */
function placed(command: readonly string[], exposed: readonly GroupExposed[]): string[] {
  const own = exposed.find(({ isHere }) => isHere)
  return command.map((word) => {
    if (word.includes('{}') && own === undefined) {
      throw usageError('this host has no part of that group: {} is nowhere here', 'Write {HOST}.')
    }
    const here = word.replaceAll('{}', own?.path ?? '')
    return exposed.reduce((text, { host, path }) => text.replaceAll(`{${host}}`, path), here)
  })
}

async function hereEnvironment(
  group: string,
  { name }: GroupSnapshot,
  exposed: readonly GroupExposed[],
): Promise<Record<string, string>> {
  const { variableName } = await import('../../daemon/exposed.js')
  const env: Record<string, string> = { HOLDFAST_GROUP: group, HOLDFAST_SNAPSHOT: name }
  env.HOLDFAST_HOSTS = exposed.map(({ host }) => host).join(' ')
  for (const { host, path, isHere, views } of exposed) {
    env[`HOLDFAST_VIEW_${variableName(host)}`] = path
    if (isHere) env.HOLDFAST_VIEW = path
    for (const view of views) {
      env[`HOLDFAST_VIEW_${variableName(host)}_${variableName(view.volume)}`] = view.path
    }
  }
  return env
}

/** An output of this process, which may be a pipe that somebody reads slowly. */
class Sink {
  readonly #stream: NodeJS.WriteStream
  #room: Promise<void> | undefined

  constructor(stream: NodeJS.WriteStream) {
    this.#stream = stream
  }

  write(bytes: Buffer): void {
    this.#stream.write(bytes)
  }

  /** There is room for more: what is written before that is kept in memory. */
  room(): Promise<void> {
    if (!this.#stream.writableNeedDrain) return Promise.resolve()
    this.#room ??= new Promise((resolve) => {
      const onRoom = () => {
        for (const event of ['drain', 'close'] as const) this.#stream.off(event, onRoom)
        this.#room = undefined
        resolve()
      }
      for (const event of ['drain', 'close'] as const) this.#stream.on(event, onRoom)
    })
    return this.#room
  }
}

/** What the command has said on one host: as it is, or, beside others, in lines with the host's name. */
class Shared {
  readonly #sinks: Sinks
  readonly #lines: Record<keyof Sinks, { push(bytes: Buffer): void; end(): void }>

  constructor(host: string, hosts: number, sinks: Sinks) {
    const linesTo = (sink: Sink) => {
      const write = (bytes: Buffer) => sink.write(bytes)
      return hosts === 1 ? { push: write, end: () => {} } : new PrefixedLines(host, write)
    }
    this.#sinks = sinks
    this.#lines = { stdout: linesTo(sinks.stdout), stderr: linesTo(sinks.stderr) }
  }

  /** Resolves when there is room for more. */
  push(to: keyof Sinks, bytes: Buffer): Promise<void> {
    this.#lines[to].push(bytes)
    return this.#sinks[to].room()
  }

  end(): void {
    this.#lines.stdout.end()
    this.#lines.stderr.end()
  }
}
type Sinks = Readonly<Record<'stdout' | 'stderr', Sink>>

function exitCodeOf(ends: readonly HostEnd[]): number {
  for (const { host, code, error } of ends) {
    if (error !== null)
      remark(`${err.red('error')}: ${host}: ${error.message} ${err.dim(`[${error.code}]`)}`)
    else if (code !== 0) remark(`${err.red('error')}: ${host}: the command ended with ${code}`)
  }
  const failed = ends.find(({ code, error }) => error !== null || code !== 0)
  return failed?.error?.exitCode ?? failed?.code ?? 0
}

/** Until it is called, what this process is sent goes to the commands. */
function passSignals(pass: (signal: PassedSignal) => void): () => void {
  const listener = (signal: NodeJS.Signals) => pass(signal as PassedSignal)
  for (const signal of PASSED_SIGNALS) process.on(signal, listener)
  return () => {
    for (const signal of PASSED_SIGNALS) process.off(signal, listener)
  }
}
