/** `holdfast doctor` */
import type { Command } from 'commander'
import { type Check, examine } from '../../daemon/doctor.js'
import { ExitCode } from '../../lib/errors.js'
import { out, print, printJson } from '../output.js'

const MARKS = { ok: out.green('ok  '), warn: out.yellow('warn'), fail: out.red('FAIL') }

export function addDoctorCommand(program: Command): void {
  program
    .command('doctor')
    .summary('check this machine and explain')
    .description(
      'Checks what holdfast needs: kernel, FUSE, privileges, memory for the capture ring, limits, the ' +
        'data plane, and the journals of all volumes; with DIR also the file system of DIR.',
    )
    .argument('[dir]', 'directory that shall be protected')
    .option('--json', 'as JSON')
    .addHelpText(
      'after',
      `
Exit codes: 0 ready (there may be warnings), 4 something is missing.

Example:
  holdfast doctor /srv/data`,
    )
    .action(async (directory: string | undefined, { json = false }: { json?: boolean }) => {
      const checks = await examine(directory)
      if (checks.some(({ level }) => level === 'fail')) process.exitCode = ExitCode.refused
      if (json) return printJson(checks)
      for (const check of checks) print(checkText(check))
    })
}

function checkText({ level, what, found, advice }: Check): string {
  const first = `${MARKS[level]}  ${out.bold(what)}: ${found}`
  return advice === undefined || level === 'ok' ? first : `${first}\n        ${advice}`
}
