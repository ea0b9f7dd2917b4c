/**
 * The kernel's side of a browse tree: paths to nodes, errors to errno. The one file that imports
 * `fuse-native`, which answers on the main thread only: nothing here, and nothing that it calls,
 * waits without giving the thread back.
 *
 * libfuse's buffers are never handed to anybody: a read that was timed out would write into memory
 * that is gone. Bytes are copied into them at the very end.
 */
import { constants } from 'node:os'
import type { Operations, Stats } from 'fuse-native'
import { errnoOf, HoldfastError, toHoldfastError } from '../lib/errors.js'
import { BROWSE_REQUEST_MS_MAX } from '../lib/limits.js'
import type { Logger } from '../lib/log.js'
import type { Attributes, DirectoryNode, Node, OpenFile } from './node.js'

export const BROWSE_TYPE = 'fuse.holdfast-browse'
const SOURCE = 'holdfast-browse'
const KIND_BITS = { directory: 0o040000, file: 0o100000, link: 0o120000 } as const
/** O_ACCMODE, and O_RDONLY of it. */
const ACCESS_MODE = 3
const READ_ONLY = 0
/** Everything that would change something. */
const REFUSED = (
  'create mknod mkdir unlink rmdir symlink rename link chmod chown truncate ftruncate utimens write ' +
  'setxattr removexattr'
).split(' ')

const ERRNOS: Record<string, number> = constants.errno

/** Serves `root` at an existing empty directory. NATIVE_MISSING, NATIVE. */
export async function mountTree(path: string, root: DirectoryNode, log: Logger): Promise<void> {
  const Fuse = await loadFuse()
  const fuse = new Fuse(path, new Server(root, log).operations, {
    fsname: SOURCE,
    subtype: SOURCE,
    // What is shown changes by itself: the kernel asks every time.
    entryTimeout: '0',
    attrTimeout: '0',
    timeout: BROWSE_REQUEST_MS_MAX,
  })
  await new Promise<void>((resolve, reject) => {
    fuse.mount((cause) => {
      if (cause === null) return resolve()
      const message = `the browse tree could not be mounted at ${path}: ${cause.message}`
      reject(new HoldfastError('NATIVE', message, { op: 'browse', cause }))
    })
  })
}

async function loadFuse() {
  try {
    return (await import('fuse-native')).default
  } catch (cause) {
    throw new HoldfastError('NATIVE_MISSING', 'fuse-native or its libfuse cannot be loaded', {
      op: 'browse',
      cause,
      hint: 'Install both: apt-get install libfuse2, npm install (prebuilt for x86-64).',
    })
  }
}

class Server {
  readonly #root: DirectoryNode
  readonly #log: Logger
  readonly #open = new Map<number, OpenFile>()
  #nextHandle = 1

  constructor(root: DirectoryNode, log: Logger) {
    this.#root = root
    this.#log = log
  }

  get operations(): Partial<Operations> {
    const refuse = (...given: unknown[]) =>
      (given.at(-1) as (errno: number) => void)(-constants.errno.EROFS)
    return {
      ...Object.fromEntries(REFUSED.map((name) => [name, refuse])),
      getattr: (path, answer) => {
        this.#run(answer, async () => {
          const node = await this.#find(path)
          answer(0, statsOf(node, await node.attributes()))
        })
      },
      readdir: (path, answer) => {
        this.#run(answer, async () => {
          const node = await this.#find(path)
          if (node.kind !== 'directory') throw errno('ENOTDIR')
          answer(0, ['.', '..', ...(await node.names())])
        })
      },
      readlink: (path, answer) => {
        this.#run(answer, async () => {
          const node = await this.#find(path)
          if (node.kind !== 'link') throw errno('EINVAL')
          answer(0, await node.target())
        })
      },
      open: (path, flags, answer) => {
        this.#run(answer, async () => answer(0, await this.#openFile(path, flags)))
      },
      read: (_path, handle, buffer, length, position, answer) => {
        this.#run(answer, async () => {
          const bytes = await this.#handle(handle).read(length, position)
          answer(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).copy(buffer))
        })
      },
      release: (_path, handle, answer) => {
        this.#run(answer, async () => {
          const file = this.#handle(handle)
          this.#open.delete(handle)
          answer(0)
          await file.close()
        })
      },
    }
  }

  async #find(path: string): Promise<Node> {
    let at: Node = this.#root
    for (const name of path.split('/')) {
      if (name === '') continue
      if (at.kind !== 'directory') throw errno('ENOTDIR')
      const next: Node | undefined = await at.child(name)
      if (next === undefined) throw errno('ENOENT')
      at = next
    }
    return at
  }

  async #openFile(path: string, flags: number): Promise<number> {
    if ((flags & ACCESS_MODE) !== READ_ONLY) throw errno('EROFS')
    const node = await this.#find(path)
    if (node.kind !== 'file') throw errno(node.kind === 'directory' ? 'EISDIR' : 'EINVAL')
    const file = await node.open()
    const handle = this.#nextHandle
    this.#nextHandle += 1
    this.#open.set(handle, file)
    return handle
  }

  #handle(handle: number): OpenFile {
    const file = this.#open.get(handle)
    if (file === undefined) throw errno('EBADF')
    return file
  }

  /** Answers with the errno of what `work` throws; logs what no reader can have caused. */
  #run(answer: (errno: number) => void, work: () => Promise<void>): void {
    work().catch((error: unknown) => {
      const name = errnoOf(error) ?? 'EIO'
      if (name === 'EIO') this.#log.error({ error: toHoldfastError(error, 'browse') }, 'not shown')
      answer(-(ERRNOS[name] ?? constants.errno.EIO))
    })
  }
}

function errno(code: string): Error {
  return Object.assign(new Error(code), { code })
}

function statsOf(node: Node, attributes: Attributes): Stats {
  const { mode, uid, gid, size, mtimeMs } = attributes
  // fuse-native takes whole milliseconds from 1970 on.
  const time = new Date(Math.max(0, Math.floor(mtimeMs)))
  return {
    mode: KIND_BITS[node.kind] | (mode & 0o7777),
    nlink: node.kind === 'directory' ? 2 : 1,
    uid,
    gid,
    size,
    blocks: Math.ceil(size / 512),
    atime: time,
    mtime: time,
    ctime: time,
  }
}
