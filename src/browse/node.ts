/**
 * What a browse tree consists of: directories, files and links that are made when they are looked
 * at. `fuse.ts` serves them to the kernel; everything else makes them.
 */

export interface Attributes {
  /** Permission bits. */
  mode: number
  uid: number
  gid: number
  size: number
  mtimeMs: number
}

/** Bytes of an open file. */
export interface OpenFile {
  /** At most `length` bytes from `position`; none at the end. */
  read(length: number, position: number): Promise<Uint8Array>
  /** Idempotent. */
  close(): Promise<void>
}

export interface DirectoryNode {
  kind: 'directory'
  attributes(): Promise<Attributes>
  names(): Promise<string[]>
  /** undefined: there is nothing of this name. A directory may have more than it lists. */
  child(name: string): Promise<Node | undefined>
}

export interface FileNode {
  kind: 'file'
  attributes(): Promise<Attributes>
  open(): Promise<OpenFile>
}

export interface LinkNode {
  kind: 'link'
  attributes(): Promise<Attributes>
  target(): Promise<string>
}

export type Node = DirectoryNode | FileNode | LinkNode

const DIRECTORY = { mode: 0o555, uid: 0, gid: 0, size: 4096 }
const FILE = { mode: 0o444, uid: 0, gid: 0 }
/** Of what has no time of its own. */
const startedMs = Date.now()

type Children = Record<string, Node>

/** A directory whose children are made each time it is looked at. */
export function directory(
  children: () => Children | Promise<Children>,
  mtimeMs = startedMs,
): DirectoryNode {
  return {
    kind: 'directory',
    attributes: async () => ({ ...DIRECTORY, mtimeMs }),
    names: async () => Object.keys(await children()),
    child: async (name) => {
      const all = await children()
      return Object.hasOwn(all, name) ? all[name] : undefined
    },
  }
}

export function directoryAttributes(mtimeMs = startedMs): Attributes {
  return { ...DIRECTORY, mtimeMs }
}

export function fileAttributes(size: number, mtimeMs = startedMs): Attributes {
  return { ...FILE, size, mtimeMs }
}

/** A file that is what `text` says. */
export function textFile(text: string, mtimeMs = startedMs): FileNode {
  const bytes = Buffer.from(text)
  return {
    kind: 'file',
    attributes: async () => fileAttributes(bytes.length, mtimeMs),
    open: async () => openBytes(() => bytes),
  }
}

export function openBytes(bytes: () => Uint8Array, close = () => {}): OpenFile {
  let open = true
  return {
    read: async (length, position) => bytes().subarray(position, position + length),
    close: async () => {
      if (open) close()
      open = false
    },
  }
}

/** A symbolic link. `target` is found when it is followed: its length is not known before. */
export function link(target: () => Promise<string>, mtimeMs = startedMs): LinkNode {
  return {
    kind: 'link',
    attributes: async () => ({ mode: 0o777, uid: 0, gid: 0, size: 0, mtimeMs }),
    target,
  }
}
