/** File systems in files: what volumes are made on, the same on every machine. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { run } from './run.js'
import type { Sandbox } from './sandbox.js'

export type FileSystem = 'xfs' | 'ext4' | 'btrfs'

/** What every volume is tested on. */
export const FILE_SYSTEMS: readonly FileSystem[] = ['xfs', 'ext4']

export interface ImageOptions {
  fs: FileSystem
  /** The file is sparse: only what is used takes space. */
  mib?: number
  mkfs?: readonly string[]
  /** Besides loop and noatime. */
  mountOptions?: readonly string[]
  /** Several of one file system need names. */
  name?: string
}

export interface Image {
  readonly fs: FileSystem
  /** The image's file. */
  readonly file: string
  /** Where it is mounted. */
  readonly dir: string
}

/** Makes a file system in a file and mounts it; goes away with the sandbox. */
export async function makeImage(sandbox: Sandbox, options: ImageOptions): Promise<Image> {
  const { fs, mib = 2048, mkfs = [], mountOptions = [], name = options.fs } = options
  const dir = join(sandbox.root, name)
  const file = `${dir}.img`
  mkdirSync(dir)
  await run('truncate', ['-s', `${mib}M`, file])
  await run(`mkfs.${fs}`, ['-q', ...mkfs, file])
  await run('mount', ['-o', ['loop', 'noatime', ...mountOptions].join(','), file, dir])
  return { fs, file, dir }
}
