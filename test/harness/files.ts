/** Where things of the project are, for compiled tests in dist/test/. */
import { fileURLToPath } from 'node:url'

/** A file of the project by its path from the project's root. */
export function projectFile(path: string): string {
  return fileURLToPath(new URL(`../../../${path}`, import.meta.url))
}

export const HOLDFAST = projectFile('dist/program/cli/main.js')

/** One of the test tools: treecmp, fsdiff, fsload. */
export function tool(name: 'treecmp' | 'fsdiff' | 'fsload'): string {
  return projectFile(`test/tools/target/release/${name}`)
}
