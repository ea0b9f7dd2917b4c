// What is compared. A target is { name, note, start(dir) → mountpoint, stop() }: `dir` is its
// backing directory on the image, already holding the fixture; the mountpoint is where the
// workloads run. Every peer gets the cache options that suit it best while keeping its promises
// (extended attributes on); they are told in `note` and printed with the results.

import { access, mkdir } from 'node:fs/promises'
import path from 'node:path'
import { isMountpoint, unmount } from './image.mjs'
import { passthroughHp, passthroughLl } from './peers.mjs'
import { defer, run, sleep, startServer } from './proc.mjs'

/**
 * @typedef {object} Target
 * @property {string} name
 * @property {string} note options and what else a reader must know
 * @property {'native' | 'peer' | 'context' | 'subject'} role context: shown, never a reference
 * @property {boolean} [noFixture] it cannot show the fixture: only self-contained workloads
 * @property {(dir: string) => Promise<string>} start
 * @property {() => Promise<void>} stop idempotent
 */

/**
 * @typedef {object} Setting
 * @property {string} work directory for mountpoints
 * @property {string} cache directory of built programs
 * @property {string} floor the fsfloor program
 * @property {string} project the project's directory
 * @property {string} stateDir the journal's directory for holdfast
 * @property {string} holdfast command of holdfast
 * @property {string[]} extra further peers, `name=command {dir} {mnt}`
 */

const MOUNT_WAIT_MS = 15_000

/** How long a peer may believe its caches, seconds: for ever, as far as a benchmark goes. */
const FOREVER = 86_400

/**
 * A target that is a program in the foreground, given backing directory and mountpoint.
 * @param {Setting} setting
 * @param {Pick<Target, 'name' | 'note' | 'role' | 'noFixture'>} about
 * @param {(dir: string, mountpoint: string) => Promise<string[]>} commandLine
 * @returns {Target}
 */
function served(setting, about, commandLine) {
  let stop = async () => {}
  return {
    ...about,
    async start(dir) {
      const mountpoint = path.join(setting.work, `mnt-${about.name}`)
      await mkdir(mountpoint, { recursive: true })
      const [command = '', ...args] = await commandLine(dir, mountpoint)
      const server = startServer(command, args)
      stop = defer(`stop ${about.name}`, async () => {
        await unmount(mountpoint)
        await server.end()
      })
      const deadline = Date.now() + MOUNT_WAIT_MS
      while (!(await isMountpoint(mountpoint))) {
        if (server.ended()) throw new Error(`${about.name} ended before it was mounted`)
        if (Date.now() > deadline) throw new Error(`${about.name} did not mount`)
        await sleep(50)
      }
      return mountpoint
    },
    stop: () => stop(),
  }
}

/** @returns {Target} */
function native() {
  return {
    name: 'native',
    note: 'plain directory on the same XFS image',
    role: 'native',
    start: async (dir) => dir,
    stop: async () => {},
  }
}

/**
 * holdfast, mounted in place over the backing directory.
 * @param {Setting} setting
 * @returns {Target}
 */
function holdfast(setting) {
  const [command = '', ...first] = setting.holdfast.split(/\s+/)
  let stop = async () => {}
  return {
    name: 'holdfast',
    note: 'mounted in place, journal on, defaults',
    role: 'subject',
    async start(dir) {
      await mkdir(setting.stateDir, { recursive: true })
      const call = (args, undoing) =>
        run(command, [...first, ...args], { cwd: setting.project, timeoutMs: 120_000, undoing })
      stop = defer('stop holdfast', async () => {
        await call(['unmount', dir], true).catch((error) =>
          console.error(`bench: ${error.message}`),
        )
        await unmount(dir)
      })
      await call(['mount', dir, '--name', 'bench', '--state', setting.stateDir], false)
      if (!(await isMountpoint(dir))) throw new Error('holdfast mount returned, nothing is mounted')
      return dir
    },
    stop: () => stop(),
  }
}

/**
 * @param {Setting} setting
 * @returns {Target[]}
 */
export function allTargets(setting) {
  const passthroughHpCommand = (xattrs) => async (dir, mountpoint) => [
    await passthroughHp(setting.cache, { xattrs }),
    '--foreground',
    dir,
    mountpoint,
  ]
  const passthroughLlCommand = async (dir, mountpoint, extra) => [
    await passthroughLl(setting.cache),
    '-f',
    '-o',
    `source=${dir},cache=always,timeout=${FOREVER},xattr,allow_other${extra}`,
    mountpoint,
  ]
  const mergerfs = (extra) => async (dir, mountpoint) => [
    'mergerfs',
    '-f',
    '-o',
    `cache.files=auto-full,cache.attr=${FOREVER},cache.entry=${FOREVER},` +
      `cache.negative_entry=${FOREVER},cache.readdir=true,cache.symlinks=true,` +
      `category.create=ff,allow_other,use_ino${extra}`,
    dir,
    mountpoint,
  ]
  return [
    native(),
    served(
      setting,
      {
        name: 'passthrough_hp',
        note: "libfuse's C++ example built with extended attributes; its defaults: write-back cache, timeouts of a day, 10 threads",
        role: 'peer',
      },
      passthroughHpCommand(true),
    ),
    served(
      setting,
      {
        name: 'mergerfs',
        note: 'one branch; cache.files=auto-full, attr/entry/negative a day, readdir and symlinks cached',
        role: 'peer',
      },
      mergerfs(''),
    ),
    served(
      setting,
      {
        name: 'bindfs',
        note: 'multithreaded, kernel_cache, attr/entry/negative timeouts of a day',
        role: 'peer',
      },
      async (dir, mountpoint) => [
        'bindfs',
        '-f',
        '--multithreaded',
        '-o',
        `kernel_cache,attr_timeout=${FOREVER},entry_timeout=${FOREVER},negative_timeout=${FOREVER}`,
        dir,
        mountpoint,
      ],
    ),
    holdfast(setting),
    served(
      setting,
      {
        name: 'floor',
        note: 'a FUSE server that does nothing (fsfloor, one thread per cloned descriptor, 2 threads)',
        role: 'context',
        noFixture: true,
      },
      async (_dir, mountpoint) => [setting.floor, mountpoint],
    ),
    served(
      setting,
      {
        name: 'passthrough_hp-noxattr',
        note: "as libfuse's own build makes it: no extended attributes, ACLs or capabilities",
        role: 'context',
      },
      passthroughHpCommand(false),
    ),
    served(
      setting,
      {
        name: 'passthrough_ll',
        note: "libfuse's C example: cache=always, timeout of a day, xattr, write-through",
        role: 'peer',
      },
      (dir, mountpoint) => passthroughLlCommand(dir, mountpoint, ''),
    ),
    served(
      setting,
      {
        name: 'passthrough_ll-wb',
        note: "libfuse's C example with writeback; corrupts O_APPEND",
        role: 'context',
      },
      (dir, mountpoint) => passthroughLlCommand(dir, mountpoint, ',writeback'),
    ),
    served(
      setting,
      {
        name: 'mergerfs-nosys',
        note: 'as mergerfs, with xattr=nosys: no extended attributes, ACLs or capabilities',
        role: 'context',
      },
      mergerfs(',xattr=nosys'),
    ),
    ...setting.extra.map((text) => extraTarget(setting, text)),
  ]
}

/**
 * A peer given on the command line: `name=command`, with {dir} and {mnt} in it, in the foreground.
 * @param {Setting} setting
 * @param {string} text
 * @returns {Target}
 */
function extraTarget(setting, text) {
  const at = text.indexOf('=')
  if (at < 1) throw new Error(`--extra needs name=command, not ${text}`)
  const words = text.slice(at + 1).split(/\s+/)
  return served(
    setting,
    { name: text.slice(0, at), note: 'given with --extra', role: 'peer' },
    async (dir, mountpoint) =>
      words.map((word) => word.replace('{dir}', dir).replace('{mnt}', mountpoint)),
  )
}

/** Measured unless --targets says otherwise. */
export const DEFAULT_TARGETS = [
  'native',
  'passthrough_hp',
  'mergerfs',
  'bindfs',
  'holdfast',
  'floor',
]

/**
 * Whether the first word of holdfast's command that names a file exists.
 * @param {Setting} setting
 */
export async function holdfastIsThere(setting) {
  const file = setting.holdfast.split(/\s+/).find((word) => word.includes('/'))
  if (file === undefined) return true
  return access(path.resolve(setting.project, file)).then(
    () => true,
    () => false,
  )
}
