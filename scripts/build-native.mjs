// Builds the data plane and puts it where src/lib/native.ts loads it. The file is replaced by a
// rename: a daemon that runs keeps the old one mapped, and must not see it change under its feet.
import { execFileSync } from 'node:child_process'
import { copyFileSync, renameSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const crate = fileURLToPath(new URL('../native-bindings/', import.meta.url))
execFileSync('cargo', ['build', '--release', '--locked'], { cwd: crate, stdio: 'inherit' })
const target = `${crate}holdfast.node`
copyFileSync(`${crate}target/release/libholdfast_native.so`, `${target}.new`)
renameSync(`${target}.new`, target)
