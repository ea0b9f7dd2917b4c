/**
 * Hooks: the programs that an operator has put into a directory to be run around a snapshot, found in
 * the order in which they run. Whoever may write to one commands root: what others than root could
 * have written is refused, with all that it stands beside, before anything is run.
 *
 * docs/HOOKS.md is the operator's side of this; `hook-session.ts` runs them.
 */
import { readdirSync, readFileSync, realpathSync, type Stats, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { z } from 'zod'
import { HoldfastError } from '../lib/errors.js'
import { parseDuration } from '../lib/format.js'
import { HOOK_TIMEOUT_MS_DEFAULT, HOOK_TIMEOUT_MS_MAX } from '../lib/limits.js'

export const PHASES = ['pre-snapshot', 'held', 'post-snapshot', 'pre-destroy', 'failure'] as const
export type Phase = (typeof PHASES)[number]

/** Of a program that says nothing else: `held` is for those that ask for it. */
const USUAL_PHASES: readonly Phase[] = ['pre-snapshot', 'post-snapshot', 'pre-destroy', 'failure']
/** A directory for programs of one phase. */
const OF_PHASE = new Map<string, readonly Phase[]>(PHASES.map((phase) => [`${phase}.d`, [phase]]))
/** Programs of qemu-ga: called with `freeze` before and with `thaw` after. */
const FREEZE_DIRECTORY = 'fsfreeze-hook.d'
const FREEZE_PHASES: readonly Phase[] = ['pre-snapshot', 'post-snapshot']
const CONFIG = 'hooks.json'
const NAME = /^[A-Za-z0-9_][A-Za-z0-9._-]*$/
/** What editors and package managers leave behind. */
const LEFT_OVER = /(~|\.(bak|orig|sample|disabled|swp|rpm(new|orig|save)|dpkg-[a-z]+|json|md|txt))$/
const op = 'hooks.find'

export interface Hook {
  /** Its path in the directory where it was found, e.g. `10-db` or `held.d/10-db`. */
  name: string
  /** What is run: no symbolic link on the way. */
  program: string
  phases: readonly Phase[]
  /** Called as qemu-ga calls its hooks. */
  freeze: boolean
  timeoutMs: number
  /** What becomes of the snapshot, or of its destruction, when it fails before. */
  onFailure: 'fail' | 'continue'
  /** Programs of one directory that are called the same: what one has done, the other undoes. */
  pair: string
}

const duration = z
  .string()
  .transform((text) => parseDuration(text))
  .pipe(z.number().min(1).max(HOOK_TIMEOUT_MS_MAX))
const Settings = z.strictObject({
  timeout: duration.optional(),
  onFailure: z.enum(['fail', 'continue']).optional(),
})
const HookSettings = Settings.extend({
  phases: z.array(z.enum(PHASES)).min(1).optional(),
  style: z.enum(['holdfast', 'fsfreeze']).optional(),
  /** Only for snapshots that one of these volumes is in. */
  volumes: z.array(z.string()).min(1).optional(),
})
const ConfigSchema = z.strictObject({
  version: z.literal(1).default(1),
  defaults: Settings.default({}),
  hooks: z.record(z.string(), HookSettings).default({}),
})
type Config = z.infer<typeof ConfigSchema>

export interface HookPlace {
  directory: string
  /** It need not exist. */
  optional: boolean
}

/**
 * The hooks of these directories, one directory after the other, each by the names of the programs,
 * for a snapshot of these volumes. HOOK_REFUSED: what is wrong, and where.
 */
export function findHooks(places: readonly HookPlace[], volumes: readonly string[]): Hook[] {
  return places.flatMap(({ directory, optional }) => {
    const known = statSync(directory, { throwIfNoEntry: false })
    if (known === undefined && optional) return []
    if (known?.isDirectory() !== true) throw refused(directory, 'is no directory', undefined)
    requireSafe(directory, known)
    const config = readConfig(directory)
    const names = programs(directory)
    for (const name of Object.keys(config.hooks)) {
      if (statSync(join(directory, name), { throwIfNoEntry: false })?.isFile() === true) continue
      throw refused(join(directory, CONFIG), `speaks of ${name}, which is not there`, undefined)
    }
    return names
      .map((name) => describe(directory, name, config))
      .filter(({ name }) => concerns(config.hooks[name]?.volumes, volumes))
  })
}

function concerns(named: readonly string[] | undefined, volumes: readonly string[]): boolean {
  return named === undefined || named.some((each) => volumes.includes(each))
}

/** By file name, whatever sub-directory it is in. */
function programs(directory: string): string[] {
  const found: [file: string, name: string][] = []
  const look = (below: string) => {
    for (const file of readdirSync(join(directory, below))) {
      if (!NAME.test(file) || LEFT_OVER.test(file)) continue
      const name = join(below, file)
      const known = statSync(join(directory, name), { throwIfNoEntry: false })
      if (known?.isFile() === true && (known.mode & 0o111) !== 0) found.push([file, name])
      if (below !== '' || known?.isDirectory() !== true) continue
      if (!OF_PHASE.has(file) && file !== FREEZE_DIRECTORY) continue
      requireSafe(join(directory, name), known)
      look(file)
    }
  }
  look('')
  const byText = (a: string, b: string) => (a < b ? -1 : Number(a > b))
  return found.sort((a, b) => byText(a[0], b[0]) || byText(a[1], b[1])).map(([, name]) => name)
}

function describe(directory: string, name: string, { defaults, hooks }: Config): Hook {
  const path = join(directory, name)
  const program = realpathSync(path)
  requireSafe(path, statSync(program))
  requireSafe(dirname(program), statSync(dirname(program)))
  const settings = { ...defaults, ...hooks[name] }
  const [below = '', file] = name.includes('/') ? name.split('/') : ['', name]
  if (below !== '' && (settings.phases ?? settings.style) !== undefined) {
    const why = `gives phases or a style to ${name}, whose directory says that`
    throw refused(join(directory, CONFIG), why, undefined)
  }
  const freeze = below === FREEZE_DIRECTORY || settings.style === 'fsfreeze'
  const usual = freeze ? FREEZE_PHASES : USUAL_PHASES
  return {
    name,
    program,
    phases: OF_PHASE.get(below) ?? settings.phases ?? usual,
    freeze,
    timeoutMs: settings.timeout ?? HOOK_TIMEOUT_MS_DEFAULT,
    onFailure: settings.onFailure ?? 'fail',
    pair: join(directory, file ?? name),
  }
}

function readConfig(directory: string): Config {
  const path = join(directory, CONFIG)
  const known = statSync(path, { throwIfNoEntry: false })
  if (known === undefined) return ConfigSchema.parse({})
  requireSafe(path, known)
  let stored: unknown
  try {
    stored = JSON.parse(readFileSync(path, 'utf8'))
  } catch (cause) {
    throw refused(path, `is no JSON: ${(cause as Error).message}`, undefined)
  }
  const parsed = ConfigSchema.safeParse(stored)
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  throw refused(path, `${issue?.path.join('.')}: ${issue?.message}`, undefined)
}

/**
 * The program of that name in a directory whose programs are run as root, without symbolic links;
 * undefined: there is none. HOOK_REFUSED as hooks are.
 */
export function safeProgram(directory: string, name: string): string | undefined {
  const path = join(directory, name)
  const known = statSync(path, { throwIfNoEntry: false })
  if (known?.isFile() !== true || (known.mode & 0o111) === 0) return undefined
  requireSafe(directory, statSync(directory))
  const program = realpathSync(path)
  requireSafe(path, known)
  requireSafe(dirname(program), statSync(dirname(program)))
  return program
}

/** Only root can have put there what is there. */
function requireSafe(path: string, { uid, gid, mode }: Stats): void {
  if (uid !== 0) {
    throw refused(
      path,
      `belongs to uid ${uid}, not to root`,
      `Look at it, then: chown root ${path}`,
    )
  }
  const others = (mode & 0o002) !== 0
  if (!others && ((mode & 0o020) === 0 || gid === 0)) return
  const who = others ? 'everybody' : `group ${gid}`
  const hint = `Look at it, then: chmod go-w ${path}`
  throw refused(path, `can be written to by ${who}; it is run as root`, hint)
}

function refused(path: string, why: string, hint: string | undefined): HoldfastError {
  return new HoldfastError('HOOK_REFUSED', `hooks: ${path} ${why}`, {
    op,
    hint: hint ?? 'See docs/HOOKS.md; --no-hooks goes without any.',
    details: { path },
  })
}
