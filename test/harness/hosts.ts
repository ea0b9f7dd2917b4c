/**
 * Hosts for the tests: network namespaces joined by a veth pair, each with a state and a run
 * directory of its own. Files are shared: a test sees the trees of all of them.
 */
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import type { HostStatus } from '../../src/daemon/replica-host.js'
import type { Status } from '../../src/daemon/status.js'
import { callSocket } from './ask.js'
import { HOLDFAST } from './files.js'
import { attempt, type RunResult, run, start } from './run.js'
import type { Sandbox } from './sandbox.js'

const NETWORK = '198.18.0'
const PORT = 7420
/** Characters of a log in a failure's message. */
const LOG_SHOWN = 4000

export class Host {
  readonly name: string
  readonly address: string
  /** Network interface: down is a cut cable. */
  readonly link: string
  /** Where its replica server listens. */
  readonly port = PORT
  /** Where its key, its certificate and its peers are. */
  readonly identityDirectory: string
  readonly #namespace: string
  readonly #root: string
  /** What its programs find their places by. */
  readonly env: Record<string, string>
  #server: ChildProcess | undefined
  #serving: string[] = []
  /** What the replica server has written to its log. */
  log = ''

  constructor(sandbox: Sandbox, name: string, number: number) {
    const id = hostId(sandbox)
    this.name = name
    this.address = `${NETWORK}.${number}`
    this.#namespace = `hf-${id}-${name}`
    this.link = `hf${number}${id}`
    this.#root = join(sandbox.root, name)
    const at = (what: string) => join(this.#root, what)
    mkdirSync(this.#root, { recursive: true })
    this.env = { HOLDFAST_STATE_ROOT: at('state'), HOLDFAST_RUN_DIR: at('run') }
    this.identityDirectory = join(at('state'), '.host')
  }

  /** Arguments of nsenter, before the program. */
  get inside(): string[] {
    // Not `ip netns exec`: that has its own mounts, which nobody else would see.
    return [`--net=/run/netns/${this.#namespace}`, '--']
  }

  /** Runs a program on this host, to its end. */
  attempt(command: string, args: readonly string[]): Promise<RunResult> {
    return attempt('nsenter', [...this.inside, command, ...args], { env: this.env })
  }

  /** Starts a program on this host; the sandbox ends it at the latest. */
  start(command: string, args: readonly string[]): ChildProcess {
    return start('nsenter', [...this.inside, command, ...args], { env: this.env })
  }

  async run(command: string, args: readonly string[]): Promise<string> {
    return run('nsenter', [...this.inside, command, ...args], { env: this.env })
  }

  holdfast(...args: string[]): Promise<string> {
    return this.run(process.execPath, [HOLDFAST, ...args])
  }

  async json<T>(...args: string[]): Promise<T> {
    return JSON.parse(await this.holdfast(...args, '--json')) as T
  }

  /** What the daemon of a volume here says. */
  status(volume: string): Promise<Status> {
    return callSocket(this.#socket(volume), '/v1/status')
  }

  /** What the replica server here says. */
  replicas(): Promise<HostStatus> {
    return callSocket(this.#socket('.replica-host'), '/v1/replicas')
  }

  #socket(name: string): string {
    return join(this.env.HOLDFAST_RUN_DIR ?? '', `${name}.sock`)
  }

  tryHoldfast(...args: string[]): Promise<RunResult> {
    return this.attempt(process.execPath, [HOLDFAST, ...args])
  }

  /** Of the daemon of a volume here. */
  daemonPid(volume: string): number {
    const text = readFileSync(join(this.#root, 'run', `${volume}.pid`), 'utf8')
    return (JSON.parse(text) as { pid: number }).pid
  }

  /** What the daemon of a volume here has logged. */
  daemonLog(volume: string): string {
    return readFileSync(join(this.#root, 'state', volume, 'daemon.log'), 'utf8')
  }

  async makeNamespace(): Promise<void> {
    await run('ip', ['netns', 'add', this.#namespace])
    await this.run('ip', ['link', 'set', 'lo', 'up'])
  }

  async connect(other: Host): Promise<void> {
    const ends = [
      'link',
      'add',
      this.link,
      'netns',
      this.#namespace,
      'type',
      'veth',
      'peer',
      'name',
    ]
    await run('ip', [...ends, other.link, 'netns', other.#namespace])
    for (const host of [this, other]) {
      await host.run('ip', ['address', 'add', `${host.address}/24`, 'dev', host.link])
      await host.setLink('up')
    }
  }

  /** By a link of its own beside others that `other` has. */
  async join(other: Host): Promise<void> {
    const far = `${this.link}p`
    const veth = ['link', 'add', this.link, 'netns', this.#namespace, 'type', 'veth']
    await run('ip', [...veth, 'peer', 'name', far, 'netns', other.#namespace])
    await this.run('ip', ['address', 'add', `${this.address}/32`, 'dev', this.link])
    for (const [host, link, to] of [
      [this, this.link, other],
      [other, far, this],
    ] as const) {
      await host.run('ip', ['link', 'set', link, 'up'])
      await host.run('ip', ['route', 'add', `${to.address}/32`, 'dev', link])
    }
  }

  async setLink(state: 'up' | 'down'): Promise<void> {
    await this.run('ip', ['link', 'set', this.link, state])
  }

  /** All that leaves is at most this fast, in Mbit/s; undefined: as fast as it goes. */
  async throttle(mbit: number | undefined): Promise<void> {
    await this.attempt('tc', ['qdisc', 'del', 'dev', this.link, 'root'])
    if (mbit === undefined) return
    const shape = ['tbf', 'rate', `${mbit}mbit`, 'burst', '64kb', 'latency', '200ms']
    await this.run('tc', ['qdisc', 'add', 'dev', this.link, 'root', ...shape])
  }

  /** Whether what this host says to `other` gets there; the other way is not touched. */
  async setMute(other: Host, mute: boolean): Promise<void> {
    await this.run('ip', ['route', mute ? 'add' : 'del', 'blackhole', `${other.address}/32`])
  }

  /** Of its replica server; undefined when none runs. */
  get serverPid(): number | undefined {
    return this.#server?.exitCode === null ? this.#server.pid : undefined
  }

  /** Starts a replica server; resolves when it listens. */
  async serve(root: string): Promise<void> {
    this.#serving = ['replica', 'serve', '--listen', `${this.address}:${PORT}`, '--root', root]
    await this.startAgain()
  }

  /** Starts a replica server that others do not connect to. */
  async serveWithoutListening(root: string): Promise<void> {
    this.#serving = ['replica', 'serve', '--no-listen', '--root', root]
    await this.startAgain()
  }

  async startAgain(): Promise<void> {
    const server = this.start(process.execPath, [HOLDFAST, ...this.#serving])
    this.#server = server
    await new Promise<void>((resolve, reject) => {
      server.stderr?.setEncoding('utf8').on('data', (text: string) => {
        this.log += text
        if (text.includes('"serving"')) resolve()
      })
      server.once('close', (code, signal) => {
        this.log += `the server ended with ${code ?? signal}\n`
        reject(new Error(this.log))
      })
    })
  }

  /** Ends the server. */
  async stopServing(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
    const server = this.#server
    if (server?.pid === undefined || server.exitCode !== null) return null
    const closed = once(server, 'close')
    // nsenter becomes the program.
    server.kill(signal)
    await closed
    return server.exitCode
  }

  /** Introduces this host to one on which nothing listens: it does so until this one has come. */
  async introduceTo(other: Host, address: string): Promise<void> {
    const command = ['peer', 'token', '--address', address, '--listen', address]
    const args = [...other.inside, process.execPath, HOLDFAST, ...command, '--name', other.name]
    const waiting = start('nsenter', args, { env: other.env })
    const ended = once(waiting, 'close')
    const [token] = (await once(waiting.stdout ?? waiting, 'data')) as [Buffer]
    await this.holdfast('peer', 'add', `${token}`.trim(), '--as', this.name)
    const [code] = await ended
    if (code !== 0) throw new Error(`peer token ended with ${code}`)
  }

  /** Introduces this host to the one that serves, or that has somebody in its place. */
  async introduce(server: Host, { port = PORT } = {}): Promise<void> {
    const address = `${server.address}:${port}`
    const token = await server.holdfast(
      'peer',
      'token',
      '--address',
      address,
      '--name',
      server.name,
    )
    await this.holdfast('peer', 'add', token.trim(), '--as', this.name)
  }
}

/** What the daemon of a volume and the servers of its replicas have logged last. */
export function lastLogs(volume: string, primary: Host, servers: readonly Host[]): string {
  const logs = [`primary: ${primary.daemonLog(volume).slice(-LOG_SHOWN)}`]
  for (const { name, log } of servers) logs.push(`${name}: ${log.slice(-LOG_SHOWN)}`)
  return logs.join('\n')
}

/** Two hosts, connected. They go away with the sandbox. */
export async function makeHosts(sandbox: Sandbox): Promise<[Host, Host]> {
  const hosts: [Host, Host] = [new Host(sandbox, 'primary', 1), new Host(sandbox, 'replica', 2)]
  for (const host of hosts) await host.makeNamespace()
  await hosts[0].connect(hosts[1])
  return hosts
}

/** One more host, joined to `other`. */
export async function addHost(sandbox: Sandbox, other: Host, name: string): Promise<Host> {
  const host = new Host(sandbox, name, 3)
  await host.makeNamespace()
  await host.join(other)
  return host
}

/** Hosts with these names, all on one switch. They go away with the sandbox. */
export async function makeSwitched(sandbox: Sandbox, names: readonly string[]): Promise<Host[]> {
  const id = hostId(sandbox)
  const middle = `hf-${id}-switch`
  const inMiddle = ['-n', middle, 'link']
  await run('ip', ['netns', 'add', middle])
  await run('ip', [...inMiddle, 'add', 'switch', 'type', 'bridge'])
  await run('ip', [...inMiddle, 'set', 'switch', 'up'])
  const hosts = names.map((name, at) => new Host(sandbox, name, at + 1))
  for (const [at, host] of hosts.entries()) {
    const port = `hs${at}${id}`
    await host.makeNamespace()
    await run('ip', [...inMiddle, 'add', port, 'type', 'veth', 'peer', 'name', host.link])
    await run('ip', [...inMiddle, 'set', host.link, 'netns', `hf-${id}-${host.name}`])
    await run('ip', [...inMiddle, 'set', port, 'master', 'switch', 'up'])
    await host.run('ip', ['address', 'add', `${host.address}/24`, 'dev', host.link])
    await host.setLink('up')
  }
  return hosts
}

function hostId(sandbox: Sandbox): string {
  return basename(sandbox.root).slice('holdfast-test-'.length)
}
