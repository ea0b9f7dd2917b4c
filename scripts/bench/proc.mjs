// Child processes and what has to be undone. Everything the benchmark starts or mounts registers
// its undoing here; `unwind` runs them newest first, on success, failure and signals alike.

import { spawn } from 'node:child_process'

/** @type {{ name: string, undo: () => Promise<void> }[]} */
const undoings = []

/** Children of `run` that have not ended yet: the only processes `unwind` kills itself. */
const running = new Set()

/** Set once the benchmark is being taken down; no new work starts after that. */
let stopping = false

/**
 * @param {string} name
 * @param {() => Promise<void>} undo must be safe to call once at any moment
 * @returns {() => Promise<void>} runs it now, and not again in `unwind`
 */
export function defer(name, undo) {
  const entry = { name, undo }
  undoings.push(entry)
  return async () => {
    const at = undoings.indexOf(entry)
    if (at < 0) return
    undoings.splice(at, 1)
    await undo()
  }
}

/** Undoes everything, newest first; reports what failed and goes on. */
export async function unwind() {
  stopping = true
  for (const child of running) child.kill('SIGTERM')
  for (let entry = undoings.pop(); entry !== undefined; entry = undoings.pop()) {
    await entry.undo().catch((error) => {
      console.error(`bench: ${entry.name}: ${error.message}`)
    })
  }
}

/** Where `unwindTo` has to stop: what is registered after this call is undone by it. */
export const mark = () => undoings.length

/**
 * Undoes what was registered since `to`, newest first, and lets the benchmark go on.
 * @param {number} to
 */
export async function unwindTo(to) {
  while (undoings.length > to) {
    const { name, undo } = undoings.pop()
    await undo().catch((error) => console.error(`bench: ${name}: ${error.message}`))
  }
}

/**
 * Runs a command to its end and returns its output; throws when it fails.
 * @param {string} command
 * @param {string[]} args
 * @param {{ cwd?: string, env?: NodeJS.ProcessEnv, timeoutMs?: number, undoing?: boolean }} [options]
 *   `undoing`: run although the benchmark is being taken down, and do not kill it then
 * @returns {Promise<string>} standard output
 */
export function run(command, args, options = {}) {
  const { cwd, env, timeoutMs = 600_000, undoing = false } = options
  if (stopping && !undoing) return Promise.reject(new Error('stopped'))
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] })
    if (!undoing) running.add(child)
    let out = ''
    let err = ''
    child.stdout.on('data', (chunk) => {
      out += chunk
    })
    child.stderr.on('data', (chunk) => {
      err = (err + chunk).slice(-4000)
    })
    const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs)
    const settle = () => {
      clearTimeout(timer)
      running.delete(child)
    }
    child.on('error', (error) => {
      settle()
      reject(error)
    })
    // 'exit' and not 'close': a daemon that the command leaves behind may hold the pipes.
    child.on('exit', (code, signal) => {
      settle()
      setImmediate(() => {
        child.stdout.destroy()
        child.stderr.destroy()
        if (code === 0) resolve(out)
        else reject(new Error(`${command}: ${signal ?? `exit ${code}`}: ${err.trim()}`))
      })
    })
  })
}

/**
 * Starts a command that stays in the foreground, and returns how to end it.
 * @param {string} command
 * @param {string[]} args
 * @returns {{ ended: () => boolean, end: () => Promise<void> }}
 */
export function startServer(command, args) {
  const child = spawn(command, args, { stdio: 'ignore' })
  const exited = new Promise((resolve) => {
    child.on('exit', resolve)
    child.on('error', resolve)
  })
  let over = false
  exited.then(() => {
    over = true
  })
  return {
    ended: () => over,
    end: async () => {
      if (!over) child.kill('SIGTERM')
      const timer = setTimeout(() => child.kill('SIGKILL'), 5000)
      await exited
      clearTimeout(timer)
    },
  }
}

/** @param {number} ms */
export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
