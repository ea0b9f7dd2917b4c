/**
 * One hook, run: a session and process group of its own, JSON on its standard input, its output kept.
 * It ends by itself, or is ended when its time is over; when whoever runs it dies, timeout(1) ends it.
 * How it ended is a result, not an exception.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { constants } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { z } from 'zod'
import { toHoldfastError } from '../lib/errors.js'
import {
  HOOK_KILL_MS,
  HOOK_ORPHAN_MS,
  HOOK_OUTPUT_CHARS_MAX,
  HOOK_OUTPUT_HELD_MS,
  HOOK_OUTPUT_MS,
  HOOK_STDERR_CHARS_MAX,
  HOOK_STDERR_LINES_MAX,
} from '../lib/limits.js'
import { type Hook, PHASES, type Phase } from './hooks.js'

/** What a certificate tells of it. */
export const HookRunSchema = z.object({
  hook: z.string(),
  phase: z.enum(PHASES),
  /** `stopped`: nobody waited for it any more. */
  result: z.enum(['ok', 'failed', 'timeout', 'stopped']),
  /** What was to follow from a failure. */
  onFailure: z.enum(['fail', 'continue']),
  code: z.int().nullable(),
  signal: z.string().nullable(),
  ms: z.number(),
  /** The last lines of it. */
  stderr: z.string(),
})
export type HookRun = z.infer<typeof HookRunSchema>

export interface HookCall {
  hook: Hook
  phase: Phase
  args: readonly string[]
  environment: Record<string, string>
  input: string
  timeoutMs: number
  /** I/O is on hold: it is killed without asking, and nobody waits for its end. */
  held: boolean
  /** Ends it before its time. */
  signal?: AbortSignal | undefined
}

export interface HookEnd {
  run: HookRun
  /** The end of what it wrote; never all of it. */
  output: { stdout: string; stderr: string }
}

const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** Never rejects. A hook that cannot be started has failed, and `stderr` says why. */
export async function runHook(call: HookCall): Promise<HookEnd> {
  const begun = performance.now()
  let child: ChildProcess
  try {
    child = start(call)
  } catch (error) {
    return notStarted(call, toHoldfastError(error, 'hook.start').message)
  }
  const stdout = new Tail(child, 'stdout')
  const stderr = new Tail(child, 'stderr')
  const ended = endOf(child)
  child.stdin?.on('error', () => {}) // One that reads nothing may be gone.
  child.stdin?.end(call.input)
  const over = await Promise.race([ended, untilOver(call, ended)])
  const end = typeof over === 'string' ? await putAway(child, ended, call.held) : over
  const wait = call.held ? HOOK_OUTPUT_HELD_MS : HOOK_OUTPUT_MS
  await Promise.race([Promise.all([stdout.closed, stderr.closed]), sleep(wait)])
  for (const stream of [child.stdout, child.stderr]) stream?.destroy()
  const said = end.error === undefined ? stderr.text : end.error.message
  const run: HookRun = {
    hook: call.hook.name,
    phase: call.phase,
    result: typeof over === 'string' ? over : end.code === 0 ? 'ok' : 'failed',
    onFailure: call.hook.onFailure,
    code: end.code,
    signal: end.signal,
    ms: Math.round((performance.now() - begun) * 10) / 10,
    stderr: lastLines(said),
  }
  return { run, output: { stdout: stdout.text, stderr: said } }
}

/** No memory for it, or too much to tell it: spawn() throws some errors, and emits others. */
function notStarted({ hook, phase }: HookCall, why: string): HookEnd {
  const run: HookRun = {
    ...{ hook: hook.name, phase, onFailure: hook.onFailure },
    ...{ result: 'failed', code: null, signal: null, ms: 0, stderr: lastLines(why) },
  }
  return { run, output: { stdout: '', stderr: why } }
}

/** What came of it, in words: `exit code 3`, `SIGSEGV`, `not ended after 30000 ms`. */
export function describeRun({ result, code, signal, ms }: HookRun): string {
  if (result === 'ok') return 'ok'
  if (result === 'timeout') return `not ended after ${Math.round(ms)} ms`
  if (result === 'stopped') return 'stopped'
  return signal ?? (code === null ? 'not started' : `exit code ${code}`)
}

/** By timeout(1), which kills the whole group when nobody else does. */
function start({ hook, args, environment, timeoutMs }: HookCall): ChildProcess {
  const seconds = Math.ceil((timeoutMs + HOOK_KILL_MS + HOOK_ORPHAN_MS) / 1000)
  return spawn('timeout', ['-s', 'KILL', `${seconds}`, hook.program, ...args], {
    cwd: '/',
    env: { PATH, ...process.env, ...environment },
    stdio: ['pipe', 'pipe', 'pipe'],
    detached: true,
  })
}

interface End {
  code: number | null
  signal: string | null
  error?: Error
}

function endOf(child: ChildProcess): Promise<End> {
  return new Promise((resolve) => {
    child.once('error', (error) => resolve({ code: null, signal: null, error }))
    child.once('exit', (code, signal) => {
      // timeout(1) tells of a signal as a shell does.
      const [name] =
        Object.entries(constants.signals).find(([, number]) => 128 + number === code) ?? []
      resolve(name === undefined ? { code, signal } : { code: null, signal: name })
    })
  })
}

/** Its time is over, or it is stopped; never, when it ends before. */
function untilOver(
  { timeoutMs, signal }: HookCall,
  ended: Promise<End>,
): Promise<'timeout' | 'stopped'> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve('timeout'), timeoutMs)
    const onAbort = () => resolve('stopped')
    if (signal?.aborted === true) onAbort()
    signal?.addEventListener('abort', onAbort, { once: true })
    void ended.then(() => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', onAbort)
    })
  })
}

/** Ends it, with all that it has started and that did not leave its group. */
async function putAway(child: ChildProcess, ended: Promise<End>, held: boolean): Promise<End> {
  const unknown: End = { code: null, signal: null }
  if (held) {
    // What waits for held I/O does not die before that goes on.
    signalGroup(child, 'SIGKILL')
    return { ...unknown, signal: 'SIGKILL' }
  }
  signalGroup(child, 'SIGTERM')
  const asked = await Promise.race([ended, sleep(HOOK_KILL_MS, null)])
  signalGroup(child, 'SIGKILL')
  return asked ?? Promise.race([ended, sleep(HOOK_KILL_MS, { ...unknown, signal: 'SIGKILL' })])
}

function signalGroup({ pid }: ChildProcess, signal: NodeJS.Signals): void {
  if (pid === undefined) return
  try {
    process.kill(-pid, signal)
  } catch {
    // All of it is gone.
  }
}

/** The end of what a stream says. */
class Tail {
  text = ''
  readonly closed: Promise<void>

  constructor(child: ChildProcess, name: 'stdout' | 'stderr') {
    const stream = child[name]
    this.closed = new Promise((resolve) => {
      // Without a descriptor for it there is no stream, whatever the type says.
      if (!stream) return resolve()
      stream.once('close', resolve)
      stream.on('error', () => {})
      stream.setEncoding('utf8').on('data', (text: string) => {
        this.text = (this.text + text).slice(-HOOK_OUTPUT_CHARS_MAX)
      })
    })
  }
}

function lastLines(text: string): string {
  return text
    .trimEnd()
    .split('\n')
    .slice(-HOOK_STDERR_LINES_MAX)
    .join('\n')
    .slice(-HOOK_STDERR_CHARS_MAX)
}
