// Runs every check and counts: a linter is one check, a test suite counts its own.
// node scripts/check.mjs [name…]: only the checks whose name contains one of the words.
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { crates, inCrate } from './crates.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))
const only = process.argv.slice(2)
// Each process of Node would read all of its certificates, which nothing here asks for.
delete process.env.NODE_EXTRA_CA_CERTS

/** @typedef {{ passed: number, failed: number }} Count */

/** Of TAP, what passed inside a file is not worth a line. */
const TAP_NOISE = /^\s+(ok \d|1\.\.\d|# Subtest|# time=|$)/

/** @returns {Promise<{ code: number, output: string }>} */
function run(command, args, { cwd = root, noise = undefined } = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd, stdio: ['ignore', 'pipe', 'pipe'] })
    let output = ''
    createInterface({ input: child.stdout }).on('line', (line) => {
      output += `${line}\n`
      if (!noise?.test(line)) process.stdout.write(`${line}\n`)
    })
    child.stderr.setEncoding('utf8').on('data', (text) => {
      output += text
      process.stderr.write(text)
    })
    child.on('error', (error) => resolve({ code: 127, output: String(error) }))
    child.on('close', (code) => resolve({ code: code ?? 1, output }))
  })
}

/** A check that passes or fails as one. */
const one = ({ code }) => (code === 0 ? { passed: 1, failed: 0 } : { passed: 0, failed: 1 })

/** `test result: ok. 3 passed; 0 failed; …`, once per test binary. */
function cargoCount({ code, output }) {
  const count = { passed: 0, failed: 0 }
  for (const [, passed, failed] of output.matchAll(
    /test result: \S+ (\d+) passed; (\d+) failed/g,
  )) {
    count.passed += Number(passed)
    count.failed += Number(failed)
  }
  // It did not even compile, or a test process died.
  if (code !== 0 && count.failed === 0) count.failed = 1
  return count
}

/** `# { total: 12, pass: 11, fail: 1 }`, the last one: of the whole run. */
function tapCount({ code, output }) {
  const summary = [...output.matchAll(/^# \{ (.*) \}$/gm)].at(-1)?.[1] ?? ''
  const value = (name) => Number(new RegExp(`\\b${name}: (\\d+)`).exec(summary)?.[1] ?? 0)
  const count = { passed: value('pass'), failed: value('fail') }
  if (code !== 0 && count.failed === 0) count.failed = 1
  return count
}

/** What is dead only under cfg(test) is not dead: napi-rs leaves its functions out there. */
async function clippy(crate) {
  const strict = ['-D', 'warnings']
  const lint = (...args) => run('cargo', ['clippy', '--release', '--quiet', ...args], crate)
  const plain = await lint('--', ...strict)
  return plain.code === 0 ? lint('--all-targets', '--', ...strict, '-A', 'dead_code') : plain
}

const bin = (name) => `${root}node_modules/.bin/${name}`
const checks = [
  ['format and lint (biome)', () => run(bin('biome'), ['check', '.']), one],
  ['types (tsc)', () => run(bin('tsc'), ['-p', 'tsconfig.json', '--noEmit']), one],
  ...crates().flatMap((crate) => [
    [`${crate}: cargo fmt`, () => run('cargo', ['fmt', '--check'], { cwd: inCrate(crate) }), one],
    [`${crate}: cargo clippy`, () => clippy({ cwd: inCrate(crate) }), one],
    [
      `${crate}: cargo test`,
      () => run('cargo', ['test', '--release', '--quiet'], { cwd: inCrate(crate) }),
      cargoCount,
    ],
  ]),
  ['tap', () => run(bin('tap'), ['--reporter=tap'], { noise: TAP_NOISE }), tapCount],
]

const total = { passed: 0, failed: 0 }
const rows = []
for (const [name, action, count] of checks) {
  if (only.length > 0 && !only.some((word) => name.includes(word))) continue
  console.log(`\n== ${name}`)
  const begun = performance.now()
  const { passed, failed } = count(await action())
  const seconds = ((performance.now() - begun) / 1000).toFixed(1)
  rows.push(
    `${failed === 0 ? 'ok  ' : 'FAIL'} ${name}: ${passed} passed, ${failed} failed, ${seconds} s`,
  )
  total.passed += passed
  total.failed += failed
}
console.log(`\n${rows.join('\n')}\n`)
console.log(`${total.passed} passed, ${total.failed} failed`)
process.exitCode = total.failed === 0 && total.passed > 0 ? 0 : 1
