/**
 * The recipes of docs/backup, run as they are written: code blocks of a page by heading or language,
 * with the paths of an operator's machine turned into those of the test's sandbox.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { HOLDFAST, projectFile } from './files.js'
import { attempt, type RunResult } from './run.js'
import type { Sandbox } from './sandbox.js'

const PASSWORD = 'correct horse battery staple'
const RUN_MS_MAX = 240_000

export interface Block {
  heading: string
  language: string
  text: string
}

/** The code blocks of a page. */
export function blocksOf(page: string): Block[] {
  const blocks: Block[] = []
  let heading = ''
  const text = readFileSync(projectFile(`docs/backup/${page}.md`), 'utf8')
  for (const [, title, language, code] of text.matchAll(/^#+ (.*)$|^```(\w+)\n([\s\S]*?)^```$/gm)) {
    if (title !== undefined) heading = title
    else blocks.push({ heading, language: language ?? '', text: code ?? '' })
  }
  return blocks
}

/** A machine whose /srv/data, /backup, /restore, /etc/holdfast and /run/holdfast are in the sandbox. */
export class Machine {
  readonly #root: string
  readonly #data: string

  constructor({ root }: Sandbox, data: string) {
    this.#root = root
    this.#data = data
    for (const name of ['bin', 'backup', 'restore', 'etc', 'home']) mkdirSync(join(root, name))
    for (const name of ['restic', 'borg']) {
      writeFileSync(this.path(`/etc/holdfast/${name}.password`), PASSWORD)
    }
    // A snapshot that is to be looked at afterwards gets a name, and stays.
    const script = `#!/bin/sh
      if [ "$1" = exec ] && [ -n "$KEEP_SNAPSHOT" ]; then
        shift; set -- exec --keep --name "$KEEP_SNAPSHOT" "$@"
      fi
      exec ${process.execPath} ${HOLDFAST} "$@"`
    writeFileSync(join(root, 'bin', 'holdfast'), script, { mode: 0o755 })
  }

  /** What a path, or every path in a text, is here. */
  path(text: string): string {
    return text
      .replaceAll(/\/(backup|restore)(?=[/\s"]|$)/gm, `${this.#root}/$1`)
      .replaceAll('/usr/bin/holdfast', '\0')
      .replaceAll(/\/run\/holdfast(?=[/ ]|$)/gm, '\x01')
      .replaceAll('/srv/data', this.#data)
      .replaceAll('/var/cache', join(this.#root, 'home'))
      .replaceAll('/etc/holdfast', `${this.#root}/etc`)
      .replaceAll('\x01', join(this.#root, 'run'))
      .replaceAll('\0', join(this.#root, 'bin', 'holdfast'))
  }

  /** Runs a script with what the page says under "Set-up" before it. */
  attempt(
    script: string,
    { page, keep = '' }: { page: string; keep?: string },
  ): Promise<RunResult> {
    const before = blocksOf(page).find(({ heading }) => heading === 'Set-up')?.text ?? ''
    const home = join(this.#root, 'home')
    const env = {
      PATH: `${join(this.#root, 'bin')}:${process.env.PATH}`,
      HOME: home,
      XDG_CACHE_HOME: join(home, 'cache'),
      BORG_BASE_DIR: home,
      KEEP_SNAPSHOT: keep,
      // Else bash takes its pipes, which are sockets, for a remote shell's, and reads its start files.
      SHLVL: '1',
    }
    const text = this.path(`${before}\n${script}`)
    const options = { env, cwd: '/', timeoutMs: RUN_MS_MAX }
    return attempt('bash', ['-euo', 'pipefail', '-c', text], options)
  }

  /** The same; it must succeed. Returns what it said, errors included. */
  async run(script: string, options: { page: string; keep?: string }): Promise<string> {
    const { code, stdout, stderr } = await this.attempt(script, options)
    if (code !== 0) throw new Error(`${script}: ended with ${code}\n${stdout}\n${stderr}`)
    return stdout + stderr
  }

  /** The script under a heading of a page. */
  script(page: string, heading: string): string {
    const found = blocksOf(page).find((each) => each.heading === heading)
    if (found === undefined) throw new Error(`${page}.md has no script under ${heading}`)
    return found.text
  }
}
