/**
 * Writers with invariants across files, and who judges a tree by them: pairs that count (chain.py) and
 * banks that move money (bank.py). A tree that one instant can have shown breaks none, and has what
 * was acknowledged before the instant.
 */
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { isBroken } from './chains.js'
import { projectFile } from './files.js'
import { start } from './run.js'

const PAIRS = 4
const BANKS = 2
/** As in bank.py. */
const ACCOUNTS = 8
const START = 1000

/** Two directories, of one volume or of two: where the writers are, or a view or a copy of it. */
export interface Places {
  left: string
  right: string
}

export class Ledgers {
  readonly #ack: string
  readonly #children: ChildProcess[] = []

  /** `ack`: a file of their own, not on a volume. */
  constructor(ack: string) {
    this.#ack = ack
  }

  async start({ left, right }: Places): Promise<void> {
    const script = (name: string) => projectFile(`test/harness/${name}`)
    this.#children.push(
      start('python3', [script('chain.py'), `${PAIRS}`, left, right]),
      start('python3', [script('bank.py'), left, right, this.#ack, `${BANKS}`]),
    )
    for (const child of this.#children) {
      child.stderr?.pipe(process.stderr)
      await once(child.stdout ?? child, 'data')
    }
  }

  async stop(): Promise<void> {
    for (const child of this.#children.splice(0)) {
      const ended = once(child, 'close')
      process.kill(-(child.pid ?? 0), 'SIGKILL')
      await ended
    }
  }

  /** By bank: the last transfer that was acknowledged until now. */
  acknowledged(): number[] {
    const bytes = readFileSync(this.#ack)
    return Array.from({ length: BANKS }, (_, k) => Number(bytes.readBigInt64LE(8 * k)))
  }

  /** Transfers of all banks until now. */
  get transfers(): number {
    return this.acknowledged().reduce((sum, n) => sum + n, 0)
  }
}

/** What no instant after `acknowledged` can have shown; empty: nothing. */
export function broken(places: Places, acknowledged: readonly number[] = []): string[] {
  const pairs = Array.from({ length: PAIRS }, (_, pair) => brokenPair(places, pair))
  const banks = Array.from({ length: BANKS }, (_, k) => brokenBank(places, k, acknowledged[k] ?? 0))
  return [...pairs, ...banks].flat()
}

function brokenPair({ left, right }: Places, pair: number): string[] {
  const [a = 0n, b = 0n] = [left, right].map((directory) =>
    numbers(join(directory, `chain-${pair}`)).at(0),
  )
  return isBroken([a, b], pair) ? [`chain ${pair}: ${a} to the left, ${b} to the right`] : []
}

/** The last transfer up to `n` that has an account as source or target; 0: none. */
function lastOf(account: number, n: number): number {
  for (let at = n; at > Math.max(0, n - ACCOUNTS); at -= 1) {
    if (at % ACCOUNTS === account || (at + 3) % ACCOUNTS === account) return at
  }
  return 0
}

function brokenBank({ left, right }: Places, bank: number, acknowledged: number): string[] {
  const read = (directory: string, what: string | number) =>
    numbers(join(directory, `bank-${bank}-${what}`)).map(Number)
  const [begun = 0] = read(left, 'begun')
  const [done = 0] = read(right, 'done')
  const accounts = Array.from({ length: ACCOUNTS }, (_, k) => read(k % 2 === 0 ? left : right, k))
  const [source, target] = [begun % ACCOUNTS, (begun + 3) % ACCOUNTS]
  const has = (account: number) => begun > 0 && accounts[account]?.[1] === begun
  const wrong: string[] = []
  const say = (what: string) => wrong.push(`bank ${bank}, transfer ${begun}: ${what}`)
  for (const [account, [, last = 0]] of accounts.entries()) {
    const now = lastOf(account, begun)
    const before = lastOf(account, begun - 1)
    if (last !== now && last !== before) say(`account ${account} had ${last} last, not ${now}`)
  }
  if (has(target) && !has(source)) say('it was given before it was taken')
  if (done === begun && !has(target)) say('it was done before it was given')
  if (done !== begun && done !== begun - 1) say(`${done} was done`)
  if (done < acknowledged) say(`${acknowledged} was acknowledged, ${done} is done`)
  const inFlight = has(source) && !has(target) ? (begun % 7) + 1 : 0
  const sum = accounts.reduce((total, [balance = 0]) => total + balance, inFlight)
  if (sum !== ACCOUNTS * START) say(`${sum} in all, with ${inFlight} on the way`)
  return wrong
}

/** A file of 64-bit numbers. */
function numbers(path: string): bigint[] {
  const bytes = readFileSync(path)
  return Array.from({ length: bytes.length >> 3 }, (_, k) => bytes.readBigInt64LE(8 * k))
}
