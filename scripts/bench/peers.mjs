// Builds the peers that no package ships as a program: libfuse's passthrough examples.

import {
  access,
  copyFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  writeFile,
} from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { run } from './proc.mjs'

const EXAMPLES = '/usr/share/doc/libfuse3-dev/examples'

/** @param {string} file */
const exists = (file) =>
  access(file).then(
    () => true,
    () => false,
  )

/** The machine's own package sources, turned into sources of source packages. */
async function sourceLists() {
  const dir = '/etc/apt/sources.list.d'
  const names = await readdir(dir).catch(() => [])
  const files = ['/etc/apt/sources.list', ...names.map((name) => path.join(dir, name))]
  let deb822 = ''
  let oneLine = ''
  for (const file of files) {
    const text = await readFile(file, 'utf8').catch(() => '')
    if (file.endsWith('.sources')) deb822 += `${text.replace(/^Types:.*$/gm, 'Types: deb-src')}\n\n`
    if (file.endsWith('.list')) oneLine += `${text.replace(/^\s*deb\s/gm, 'deb-src ')}\n`
  }
  return { deb822, oneLine }
}

/**
 * Fetches the source of package fuse3, without touching the machine's own apt state, and returns
 * its example directory.
 * @param {string} into
 */
async function fetchFuseSource(into) {
  const { deb822, oneLine } = await sourceLists()
  const parts = path.join(into, 'sources.d')
  await mkdir(path.join(into, 'lists', 'partial'), { recursive: true })
  await mkdir(parts)
  await writeFile(path.join(parts, 'bench.sources'), deb822)
  await writeFile(path.join(into, 'bench.list'), oneLine)
  const options = [
    '-o',
    `Dir::Etc::sourcelist=${path.join(into, 'bench.list')}`,
    '-o',
    `Dir::Etc::sourceparts=${parts}`,
    '-o',
    `Dir::State::lists=${path.join(into, 'lists')}`,
  ]
  // Some of the lists may have no sources; what counts is whether fuse3 can be had.
  await run('apt-get', [...options, 'update'], { timeoutMs: 120_000 }).catch(() => '')
  await run('apt-get', [...options, 'source', '--download-only', 'fuse3'], {
    cwd: into,
    timeoutMs: 120_000,
  })
  const tar = (await readdir(into)).find((name) => /^fuse3_.*\.orig\.tar\.\w+$/.test(name))
  if (tar === undefined) throw new Error('no fuse3 source archive came')
  await run('tar', ['-xf', tar], { cwd: into })
  const tree = (await readdir(into)).find((name) => /^fuse-\d/.test(name))
  if (tree === undefined) throw new Error('no source tree in the fuse3 archive')
  return path.join(into, tree, 'example')
}

/**
 * @param {string} compiler
 * @param {string} source
 * @param {string} output
 * @param {string[]} [defines]
 */
async function compile(compiler, source, output, defines = []) {
  const flags = (await run('pkg-config', ['--cflags', '--libs', 'fuse3'])).trim().split(/\s+/)
  const common = ['-O2', '-D_FILE_OFFSET_BITS=64', ...defines]
  await run(compiler, [...common, source, '-o', output, ...flags, '-lpthread'])
}

/**
 * Path of passthrough_hp, built at first use and kept in `cache`. libfuse's own build never
 * defines HAVE_SETXATTR for this file, so that its program has no extended attributes, and so
 * is spared a getxattr per write: that one is built only when asked for.
 * @param {string} cache
 * @param {{ xattrs: boolean }} options
 */
export async function passthroughHp(cache, { xattrs }) {
  const variants = {
    passthrough_hp: ['-DHAVE_SETXATTR'],
    'passthrough_hp-noxattr': [],
  }
  const program = path.join(cache, xattrs ? 'passthrough_hp' : 'passthrough_hp-noxattr')
  if (await exists(program)) return program
  await mkdir(cache, { recursive: true })
  const scratch = await mkdtemp(path.join(os.tmpdir(), 'holdfast-bench-fuse3-'))
  try {
    const example = await fetchFuseSource(scratch)
    for (const [name, defines] of Object.entries(variants)) {
      const built = path.join(scratch, name)
      await compile('g++', path.join(example, 'passthrough_hp.cc'), built, defines)
      await copyFile(built, path.join(cache, name))
    }
    return program
  } finally {
    await rm(scratch, { recursive: true, force: true })
  }
}

/**
 * Path of passthrough_ll, from the example source that libfuse3-dev installs.
 * @param {string} cache
 */
export async function passthroughLl(cache) {
  const program = path.join(cache, 'passthrough_ll')
  if (await exists(program)) return program
  await mkdir(cache, { recursive: true })
  await compile('gcc', path.join(EXAMPLES, 'passthrough_ll.c'), program)
  return program
}
