/**
 * Which program a coordinator's word stands for on this host. To hold and snapshot volumes is one thing, to
 * run programs as root another: who is not root here by other means runs those that root has put into one
 * directory for that, and of these the ones that he was allowed.
 */
import { HoldfastError } from '../lib/errors.js'
import { hostName } from '../lib/host-name.js'
import { NAME } from '../lib/names.js'
import type { Rights } from '../replication/rights.js'
import { safeProgram } from '../snapshot/hooks.js'
import { groupExecDirectory } from './places.js'

const op = 'group.exec'

/** What to run. NOT_ALLOWED, NOT_FOUND, HOOK_REFUSED. */
export function findCommand(word: string, { rights, caller }: { rights: Rights; caller: string }) {
  const directory = groupExecDirectory()
  const isName = NAME.test(word)
  if (rights.mayRunAll) return (isName ? safeProgram(directory, word) : undefined) ?? word
  const self = hostName()
  if (!isName || !rights.mayRun(word)) {
    const program = isName ? word : 'PROGRAM'
    throw new HoldfastError('NOT_ALLOWED', `${caller} may not run ${word} on ${self}`, {
      op,
      hint:
        `On ${self}: put a program ${program} into ${directory}, and name it where ${caller} is ` +
        `allowed its volumes: holdfast peer allow ${caller} VOLUME… --exec ${program}`,
    })
  }
  const program = safeProgram(directory, word)
  if (program !== undefined) return program
  throw new HoldfastError('NOT_FOUND', `${self} has no program ${word} in ${directory}`, {
    op,
    hint: `Put one there on ${self}; it has to be executable, and root's.`,
  })
}
