// The Rust crates of this repository, and running cargo in each: node scripts/crates.mjs fmt
import { execFileSync, spawnSync } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))

/** Directories with a Cargo.toml, relative to the root; new ones count before they are committed. */
export function crates() {
  const list = ['ls-files', '--cached', '--others', '--exclude-standard', '--deduplicate']
  const files = execFileSync('git', [...list, '--', ':(glob)**/Cargo.toml'], { cwd: root })
  return files.toString().trim().split('\n').filter(Boolean).map(dirname).sort()
}

export function inCrate(crate) {
  return join(root, crate)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const crate of crates()) {
    const { status } = spawnSync('cargo', process.argv.slice(2), {
      cwd: inCrate(crate),
      stdio: 'inherit',
    })
    if (status !== 0) process.exitCode = 1
  }
}
