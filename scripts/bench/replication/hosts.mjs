// Two hosts on one machine: network namespaces joined by a veth pair, each with a disk (an XFS
// image), a state and a run directory of its own. What runs on them registers its end with `defer`.

import { spawn } from 'node:child_process'
import { mkdir, readFile, rm } from 'node:fs/promises'
import { request } from 'node:http'
import path from 'node:path'
import { makeImage, unmount } from '../image.mjs'
import { defer, run, sleep } from '../proc.mjs'

const NETWORK = '198.18.7'
const PORT = 7420
/** Each host's disk: the trees, the journal or the log, and what the rows write. */
const DISK_BYTES_MAX = 14 * 2 ** 30
const READY_MS_MAX = 20_000
const CALL_MS_MAX = 300_000

export class Host {
  /** @type {import('node:child_process').ChildProcess | undefined} */
  #server
  #endServer = async () => {}

  /**
   * @param {{ name: string, number: number, root: string, work: string, holdfast: string[] }} about
   *   `root`: its disk; `work`: a directory beside it
   */
  constructor({ name, number, root, work, holdfast }) {
    this.name = name
    this.address = `${NETWORK}.${number}`
    this.root = root
    this.work = work
    this.link = `hfb${number}x${process.pid}`
    this.namespace = `hfb-${process.pid}-${name}`
    this.command = holdfast
    this.env = {
      ...process.env,
      HOLDFAST_STATE_ROOT: path.join(root, 'state'),
      HOLDFAST_RUN_DIR: path.join(work, 'run'),
    }
  }

  /** @param {string[]} command */
  inside(command) {
    // Not `ip netns exec`: that has its own mounts, which nobody else would see.
    return [`--net=/run/netns/${this.namespace}`, '--', ...command]
  }

  /**
   * @param {string} command
   * @param {string[]} args
   * @param {{ undoing?: boolean }} [options]
   */
  run(command, args, options = {}) {
    return run('nsenter', this.inside([command, ...args]), { env: this.env, ...options })
  }

  /** @param {string[]} args */
  holdfast(...args) {
    const [command = '', ...first] = this.command
    return this.run(command, [...first, ...args])
  }

  /**
   * A program that stays on this host until it is ended.
   * @param {string} name
   * @param {string} command
   * @param {string[]} args
   */
  start(name, command, args) {
    const child = spawn('nsenter', this.inside([command, ...args]), {
      env: this.env,
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    let log = ''
    child.stderr.on('data', (text) => {
      log = (log + text).slice(-8000)
    })
    const over = new Promise((resolve) => child.once('exit', resolve))
    const end = defer(`end ${name}`, async () => {
      if (child.exitCode === null && child.signalCode === null) {
        child.kill('SIGCONT')
        child.kill('SIGTERM')
        const timer = setTimeout(() => child.kill('SIGKILL'), 10_000)
        await over
        clearTimeout(timer)
      }
    })
    return { child, end, log: () => log }
  }

  /**
   * Serves replicas below `root`; resolves when it listens.
   * @param {string} root
   */
  async serve(root) {
    const [command = '', ...first] = this.command
    const args = [...first, 'replica', 'serve', '--listen', `${this.address}:${PORT}`]
    const { child, end, log } = this.start(`${this.name}'s server`, command, [
      ...args,
      '--root',
      root,
    ])
    this.#server = child
    this.#endServer = end
    const deadline = Date.now() + READY_MS_MAX
    while (!log().includes('"serving"')) {
      if (child.exitCode !== null || Date.now() > deadline) throw new Error(`no server: ${log()}`)
      await sleep(20)
    }
  }

  get serverPid() {
    return this.#server?.pid ?? 0
  }

  async stopServing() {
    await this.#endServer()
  }

  /** @param {Host} server */
  async introduce(server) {
    const address = `${server.address}:${PORT}`
    const token = await server.holdfast('peer', 'token', '--address', address, '--name', 'replica')
    await this.holdfast('peer', 'add', token.trim(), '--as', this.name)
  }

  /**
   * One request to the control socket of a volume's daemon: no command to start, so that it can be
   * timed.
   * @param {string} method
   * @param {string} route
   * @param {object} [body]
   * @returns {Promise<any>}
   */
  call(method, route, body) {
    const socketPath = path.join(this.work, 'run', 'data.sock')
    return new Promise((resolve, reject) => {
      const sent = request(
        {
          socketPath,
          method,
          path: route,
          headers: body === undefined ? {} : { 'content-type': 'application/json' },
          timeout: CALL_MS_MAX,
        },
        (response) => {
          let text = ''
          response.setEncoding('utf8').on('data', (part) => {
            text += part
          })
          response.on('end', () => {
            if ((response.statusCode ?? 500) < 400) resolve(JSON.parse(text))
            else reject(new Error(`${route}: ${text}`))
          })
        },
      )
      sent.on('error', reject)
      sent.end(body === undefined ? undefined : JSON.stringify(body))
    })
  }

  status() {
    return this.call('GET', '/v1/status')
  }
}

/**
 * @param {{ dir: string, holdfast: string[] }} options `dir`: where the disks are made
 * @returns {Promise<{ primary: Host, replica: Host }>}
 */
export async function makeHosts({ dir, holdfast }) {
  const hosts = []
  for (const [at, name] of ['primary', 'replica'].entries()) {
    const { root, work } = await makeImage(dir, DISK_BYTES_MAX)
    await mkdir(path.join(work, 'run'))
    const host = new Host({ name, number: at + 1, root, work, holdfast })
    await run('ip', ['netns', 'add', host.namespace])
    defer(`remove ${host.namespace}`, async () => {
      await run('ip', ['netns', 'delete', host.namespace], { undoing: true })
    })
    hosts.push(host)
  }
  const [primary, replica] = hosts
  const ends = ['link', 'add', primary.link, 'netns', primary.namespace, 'type', 'veth', 'peer']
  await run('ip', [...ends, 'name', replica.link, 'netns', replica.namespace])
  for (const host of hosts) {
    await host.run('ip', ['link', 'set', 'lo', 'up'])
    await host.run('ip', ['address', 'add', `${host.address}/24`, 'dev', host.link])
    await host.run('ip', ['link', 'set', host.link, 'up'])
  }
  return { primary, replica }
}

/**
 * Mounts a new volume `data` on the primary, in place; unmounts and removes it when the row is over.
 * @param {Host} primary
 * @param {(dir: string) => T} [fill] what it contains before
 * @returns {Promise<{ tree: string, plain: string, filled: T | undefined }>} `plain`: where the same
 *   files can be read without holdfast
 * @template T
 */
export async function mountVolume(primary, fill) {
  const beside = path.join(primary.work, 'beside')
  let filled
  const tree = await mountNamed(primary, 'data', async (directory) => {
    filled = fill?.(directory)
    await mkdir(beside, { recursive: true })
    await run('mount', ['--bind', primary.root, beside])
    defer('unmount what is beside the volume', () => unmount(beside))
    await run('mount', ['--make-private', beside])
  })
  return { tree, plain: path.join(beside, 'data'), filled }
}

/**
 * A new volume with this name; returns its tree. It goes when the row is over.
 * @param {Host} host
 * @param {string} name
 * @param {(tree: string) => Promise<void>} [before] what is done before it is protected
 * @param {string[]} [options] of the mount
 */
export async function mountNamed(host, name, before, options = []) {
  const tree = path.join(host.root, name)
  await mkdir(tree)
  defer(`remove ${name}`, async () => {
    for (const dir of [tree, path.join(host.root, 'state', name)]) {
      await rm(dir, { recursive: true, force: true })
    }
  })
  await before?.(tree)
  const [command = '', ...first] = host.command
  defer(`unmount ${name}`, async () => {
    await host.run(command, [...first, 'unmount', name], { undoing: true })
    await unmount(tree)
  })
  const retain = options.includes('--retain-size') ? [] : ['--retain-size', '4G']
  await host.holdfast('mount', tree, ...retain, ...options)
  return tree
}

/**
 * An empty replica host; its server ends and its replicas go when the row is over.
 * @param {Host} replica
 */
export async function serveReplicas(replica) {
  const root = path.join(replica.root, 'replicas')
  defer('remove the replicas', () => rm(root, { recursive: true, force: true }))
  await replica.serve(root)
  return root
}

/**
 * What /proc tells of a process, in bytes: the most it ever had resident, and what it has now.
 * @param {number} pid
 */
export async function memoryOf(pid) {
  const text = await readFile(`/proc/${pid}/status`, 'utf8')
  const of = (name) => 1024 * Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(text)?.[1] ?? 0)
  return { most: of('VmHWM'), now: of('VmRSS'), anonymous: of('RssAnon') }
}

/** @param {Host} primary waits until its only replica has applied everything captured until now */
export async function waitApplied(primary) {
  await primary.call('POST', '/v1/wait', { for: 'applied', waitMs: CALL_MS_MAX })
}
