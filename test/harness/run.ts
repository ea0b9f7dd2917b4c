/** Running programs: output in memory, a bound on time, and an error that shows what was said. */
import { type ChildProcess, spawn } from 'node:child_process'

/** Longest time a program may take when nothing else is said. */
const RUN_MS_MAX = 90_000
/** Output shown in an error. */
const SHOWN_CHARS_MAX = 4_000

export interface RunOptions {
  cwd?: string
  env?: Record<string, string>
  input?: string | Buffer
  /** uid and gid to run as. */
  user?: { uid: number; gid: number }
  timeoutMs?: number
}

export interface RunResult {
  /** Exit code, or the signal that ended it. */
  code: number | string
  stdout: string
  stderr: string
}

/** Starts a program; the caller ends it. Its environment is what the guard knows it by. */
export function start(
  command: string,
  args: readonly string[],
  options: RunOptions = {},
): ChildProcess {
  const { cwd, env = {}, user } = options
  return spawn(command, args, {
    cwd,
    env: { ...process.env, LC_ALL: 'C.UTF-8', ...env },
    stdio: ['pipe', 'pipe', 'pipe'],
    // A group of its own: what it starts in turn can be ended with it.
    detached: true,
    ...(user ?? {}),
  })
}

/** Runs a program to its end, whatever that is. */
export async function attempt(
  command: string,
  args: readonly string[] = [],
  options: RunOptions = {},
): Promise<RunResult> {
  const child = start(command, args, options)
  const { timeoutMs = RUN_MS_MAX } = options
  return new Promise((resolve, reject) => {
    let stdout = ''
    let stderr = ''
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      stdout += text
    })
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      stderr += text
    })
    const timer = setTimeout(() => {
      stderr += `\nkilled after ${timeoutMs} ms`
      if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL')
    }, timeoutMs)
    child.on('error', (error) => {
      clearTimeout(timer)
      reject(error)
    })
    child.on('close', (code, signal) => {
      clearTimeout(timer)
      resolve({ code: code ?? signal ?? -1, stdout, stderr })
    })
    // A program that reads no input may be gone before it is written.
    child.stdin?.on('error', () => {})
    child.stdin?.end(options.input)
  })
}

/** Runs a program that must succeed; returns what it wrote to its standard output. */
export async function run(
  command: string,
  args: readonly string[] = [],
  options: RunOptions = {},
): Promise<string> {
  const { code, stdout, stderr } = await attempt(command, args, options)
  if (code === 0) return stdout
  const said = `${stdout}\n${stderr}`.trim().slice(-SHOWN_CHARS_MAX)
  throw new Error(`${command} ${args.join(' ')}: ended with ${code}\n${said}`)
}

/** Runs a script of bash that must succeed, with pipefail. */
export async function bash(script: string, options: RunOptions = {}): Promise<string> {
  return run('bash', ['-euo', 'pipefail', '-c', script], options)
}
