/** A process, told from every other one that had or will have its number. */
import { readFileSync } from 'node:fs'
import { z } from 'zod'

export const ProcessIdSchema = z.object({
  pid: z.int().min(1),
  /** Start time in clock ticks since boot, proc_pid_stat(5), field 22. */
  started: z.string(),
  /** Start times are of one boot. */
  boot: z.string(),
})

export type ProcessId = z.infer<typeof ProcessIdSchema>

/** Field 22 of /proc/PID/stat; undefined when there is no such process, or only what init has to reap. */
export function startTicks(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    // The command's name may contain anything; it ends at the last parenthesis.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return fields[0] === 'Z' || fields[0] === 'X' ? undefined : fields[19]
  } catch {
    return undefined
  }
}

function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()
}

/** The process with this number now; null when there is none. */
export function ownerOf(pid: number): ProcessId | null {
  const started = startTicks(pid)
  return started === undefined ? null : { pid, started, boot: bootId() }
}

export function isAlive({ pid, started, boot }: ProcessId): boolean {
  return startTicks(pid) === started && bootId() === boot
}
