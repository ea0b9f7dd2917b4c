/** What the browse tree uses of fuse-native, which has no types of its own. */
declare module 'fuse-native' {
  export interface Stats {
    mode: number
    nlink: number
    uid: number
    gid: number
    size: number
    blocks: number
    atime: Date
    mtime: Date
    ctime: Date
  }

  export interface Operations {
    getattr(path: string, answer: (errno: number, stats?: Stats) => void): void
    readdir(path: string, answer: (errno: number, names?: string[]) => void): void
    readlink(path: string, answer: (errno: number, target?: string) => void): void
    open(path: string, flags: number, answer: (errno: number, handle?: number) => void): void
    /** Answered with the number of bytes, or a negative errno. */
    read(
      path: string,
      handle: number,
      buffer: Buffer,
      length: number,
      position: number,
      answer: (result: number) => void,
    ): void
    release(path: string, handle: number, answer: (errno: number) => void): void
  }

  export interface Options {
    fsname: string
    subtype: string
    /** Seconds, as text: 0 would count as not given. */
    entryTimeout: string
    attrTimeout: string
    /** Longest time for one request, ms. */
    timeout: number
  }

  export default class Fuse {
    constructor(mountpoint: string, operations: Partial<Operations>, options: Options)
    mount(done: (error: Error | null) => void): void
  }
}
