/**
 * Ends what a command on a snapshot has left running: it would walk by path into the next snapshot that is
 * shown at the same place. Who asks says what is meant; a process with the number of an earlier one is not.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { LEFT_RUNNING_END_MS, LEFT_RUNNING_KILL_MS, LEFT_RUNNING_POLL_MS } from '../lib/limits.js'
import { startTicks } from '../lib/process-id.js'

/** Of a process that lives. */
export type IsMeant = (pid: number) => boolean

/** SIGTERM, then SIGKILL. Resolves when all are gone, or when not even that ends them. Never rejects. */
export async function endLeftRunning(isMeant: IsMeant): Promise<void> {
  for (const [signal, waitMs] of [
    ['SIGTERM', LEFT_RUNNING_END_MS],
    ['SIGKILL', LEFT_RUNNING_KILL_MS],
  ] as const) {
    const end = performance.now() + waitMs
    let left = find(isMeant)
    for (const pid of left) send(pid, signal)
    while (left.length > 0 && performance.now() < end) {
      await sleep(LEFT_RUNNING_POLL_MS)
      left = find(isMeant)
    }
    if (left.length === 0) return
  }
}

/** Those of the session of a leader that is gone. */
export function inSession(leader: number): IsMeant {
  // While one of the session lives nobody else gets its number: then it is a new one's.
  return (pid) => sessionOf(pid) === leader && startTicks(leader) === undefined
}

/** Those that were started with all of these variables. */
export function withEnvironment(variables: Readonly<Record<string, string>>): IsMeant {
  const wanted = Object.entries(variables).map(([name, value]) => `\0${name}=${value}\0`)
  return (pid) => {
    const environment = `\0${read(`/proc/${pid}/environ`)}`
    return wanted.every((each) => environment.includes(each))
  }
}

function find(isMeant: IsMeant): number[] {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name))
  return pids.map(Number).filter((pid) => {
    return pid !== process.pid && isMeant(pid) && startTicks(pid) !== undefined
  })
}

/** Field 6 of proc_pid_stat(5). */
function sessionOf(pid: number): number {
  const stat = read(`/proc/${pid}/stat`)
  return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[3])
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    // It has ended, or lets nobody look: then it is none of ours.
    return ''
  }
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch {
    // It has ended just now.
  }
}
