import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import t from 'tap'
import { ROOT } from './fixture.js'

/** DESIGN section 4: imports point one way only; a file imports its own layer or a later one. */
const LAYERS = [
  // Two ways for people to look at it; the browse tree shows what the command line prints.
  ['cli', 'browse'],
  ['index'],
  ['daemon'],
  ['snapshot', 'history', 'query', 'group', 'replication', 'capture'],
  ['journal'],
  ['record'],
  ['lib'],
]
/** One third-party native library, or large dependency: one importing file. */
const SINGLE = [
  'lmdb',
  'chokidar',
  'fastify',
  'pino',
  'prom-client',
  '@node-rs/crc32',
  'cli-progress',
  'croner',
  'picocolors',
  '@peculiar/x509',
  'chrono-node',
  'fuse-native',
]
const LINES_MAX = 450

const src = join(ROOT, 'src')
const files = readdirSync(src, { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.ts'))
  .map((name) => ({ name, text: readFileSync(join(src, name), 'utf8') }))

function imports(text: string): string[] {
  return [
    ...text.matchAll(/^(?:import|export)[^'";]*? from '([^']+)'|\bimport\('([^']+)'\)/gm),
  ].map(([, statically, dynamically]) => statically ?? dynamically ?? '')
}

function layer(name: string): number {
  const [first = ''] = name.split('/')
  return LAYERS.findIndex((folders) => folders.includes(first.replace(/\.[jt]s$/, '')))
}

t.test('architecture: imports point one way only', async (t) => {
  for (const { name, text } of files) {
    t.ok(layer(name) >= 0, `${name} is in a known layer`)
    for (const target of imports(text).filter((each) => each.startsWith('.'))) {
      const to = relative(src, resolve(src, dirname(name), target))
      t.ok(layer(to) >= layer(name), `${name} imports ${to}`)
    }
  }
})

t.test('architecture: one file imports each such dependency', async (t) => {
  for (const dependency of SINGLE) {
    const importers = files.filter(({ text }) => imports(text).includes(dependency))
    t.equal(importers.length, 1, `${dependency}: ${importers.map(({ name }) => name).join(', ')}`)
  }
})

t.test('architecture: files fit their purpose in a few screens', async (t) => {
  for (const { name, text } of files) {
    const lines = text.split('\n').length
    t.ok(lines <= LINES_MAX, `${name} has ${lines} lines`)
    t.match(text, /^(#!.*\n)?\/\*\*/, `${name} says what it is for`)
  }
})
