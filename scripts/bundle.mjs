// Makes dist/program/ of what tsc has made in dist/src/: each program with what it imports in a few files,
// because loading some hundred costs more time than most commands need.
// What has native code, or is loaded only when it is wanted, stays a package.
import { readdirSync, rmSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const root = fileURLToPath(new URL('..', import.meta.url))
const source = `${root}dist/src/`
const STAY = [
  'lmdb',
  'fuse-native',
  '@node-rs/crc32',
  'chrono-node',
  '@peculiar/x509',
  'reflect-metadata',
]

/** Those of src/lib/code.ts, and the command line. */
const programs = readdirSync(source, { recursive: true })
  .filter((name) => /(^|\/)(main|scheduled|[a-z]+-(worker|child))\.js$/.test(name))
  .map((name) => ({ in: source + name, out: name.replace(/\.js$/, '') }))

rmSync(`${root}dist/program`, { recursive: true, force: true })
await build({
  entryPoints: [...programs, { in: `${source}index.js`, out: 'lib/index' }],
  outdir: `${root}dist/program`,
  // As deep as what was in dist/src/*/: paths relative to a file stay true.
  chunkNames: 'lib/[name]-[hash]',
  bundle: true,
  splitting: true,
  format: 'esm',
  platform: 'node',
  target: 'node20',
  external: STAY,
  sourcemap: 'linked',
  sourcesContent: false,
  legalComments: 'none',
  // For packages that are not ECMAScript modules.
  banner: {
    js: "import { createRequire as holdfastRequire } from 'node:module';const require = holdfastRequire(import.meta.url);",
  },
  logLevel: 'warning',
})
