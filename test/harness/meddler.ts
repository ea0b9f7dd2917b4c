/**
 * A man in the middle between two hosts, who holds the keys of both: TLS would find every flipped
 * bit, so this one takes it off on both sides, and meddles with what the hosts say to each other.
 * A process of its own, on the replica's host; the primary knows the replica by its address.
 */
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import type { Identity } from '../../src/replication/identity.js'
import { hostIdentity } from '../../src/replication/identity.js'
import { projectFile } from './files.js'
import type { Host } from './hosts.js'
import type { Direction, FaultName } from './tamper.js'

export const MEDDLER_PORT = 7421

export interface MeddlerOptions {
  seed: number
  listen: { host: string; port: number }
  upstream: { host: string; port: number }
  primary: Identity
  replica: Identity
}

/** What it does from now on. */
export interface MeddlerCommand {
  /** One of these, to one message in `every`. */
  faults: readonly FaultName[]
  every: number
  /** Share of the connections that keep their TLS and are damaged below it. */
  below: number
  /** What goes this way is not even read. */
  hold: Direction | null
}

export type MeddlerEvent =
  | { kind: 'listening' }
  | { kind: 'obeyed' }
  | { kind: 'fault'; fault: FaultName | 'raw-flip' | 'raw-lost' | 'raw-twice' }

export class Meddler {
  /** How often it has done what. */
  readonly done = new Map<string, number>()
  readonly #child: ChildProcess
  #obeyed: () => void = () => {}

  private constructor(child: ChildProcess) {
    this.#child = child
  }

  static async start(options: { primary: Host; replica: Host; seed: number }): Promise<Meddler> {
    const { primary, replica, seed } = options
    const [own, others] = await Promise.all(
      [primary, replica].map((host) => hostIdentity(host.identityDirectory)),
    )
    if (own === undefined || others === undefined) throw new Error('no identities')
    const told: MeddlerOptions = {
      seed,
      listen: { host: replica.address, port: MEDDLER_PORT },
      upstream: { host: replica.address, port: replica.port },
      primary: own,
      replica: others,
    }
    const main = projectFile('dist/test/harness/meddler-main.js')
    const child = replica.start(process.execPath, [main, JSON.stringify(told)])
    const meddler = new Meddler(child)
    await new Promise<void>((resolve, reject) => {
      meddler.#listen(resolve)
      child.once('close', (code) => reject(new Error(`the meddler ended with ${code}`)))
    })
    return meddler
  }

  #listen(listening: () => void): void {
    const { stdout, stderr } = this.#child
    stderr?.pipe(process.stderr)
    if (stdout === null) throw new Error('the meddler has no output')
    createInterface({ input: stdout }).on('line', (line) => {
      const event = JSON.parse(line) as MeddlerEvent
      if (event.kind === 'listening') listening()
      else if (event.kind === 'obeyed') this.#obeyed()
      else this.done.set(event.fault, (this.done.get(event.fault) ?? 0) + 1)
    })
  }

  /** Faults done until now. */
  get total(): number {
    return [...this.done.values()].reduce((sum, count) => sum + count, 0)
  }

  /** From now on; what is left out is not done. */
  async order(command: Partial<MeddlerCommand>): Promise<void> {
    const whole: MeddlerCommand = { faults: [], every: 1, below: 0, hold: null, ...command }
    const obeyed = new Promise<void>((resolve) => {
      this.#obeyed = resolve
    })
    this.#child.stdin?.write(`${JSON.stringify(whole)}\n`)
    await obeyed
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null) return
    const closed = once(this.#child, 'close')
    this.#child.stdin?.end()
    await closed
  }
}
