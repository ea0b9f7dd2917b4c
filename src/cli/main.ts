#!/usr/bin/env node
/** The command line `holdfast`: wiring only; each command is a file in `commands/`. */
import { Command, CommanderError } from 'commander'
import { ExitCode } from '../lib/errors.js'
import { VERSION } from '../lib/version.js'
import { exitOnClosedPipe, print, printJson, reportError } from './output.js'
import { addCommands } from './parts.js'

async function buildProgram(called: string | undefined): Promise<Command> {
  const program = new Command('holdfast')
  program
    .description(
      'Protects live directories: every change is captured, journaled, recoverable and replayable.',
    )
    .version(VERSION, '-V, --version')
    .helpCommand('help [command]', 'help for a command')
    .configureHelp({ sortSubcommands: false, showGlobalOptions: false })
    .showHelpAfterError('(see --help)')
    .addHelpText(
      'after',
      `
Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 not found or not mounted, 4 refused, 5 damaged or differs.

Examples:
  holdfast mount /srv/data             protect a directory in place
  holdfast status data --watch         follow it
  holdfast journal tail data -f        who changes what
  holdfast snapshot create data        one instant, for later
  holdfast exec --snapshot data -- restic backup {}
  holdfast diff data "1 hour ago"       what has changed since
  holdfast restore data f --to-time …  bring a file back
  holdfast unmount data                stop protecting it
  holdfast doctor /srv/data            is this machine ready?`,
    )
  // `version` needs nothing but what is here.
  if (!['version', '-V', '--version'].includes(called ?? '')) await addCommands(program, called)
  program
    .command('version')
    .description('the version of holdfast and of what it runs on')
    .option('--json', 'as JSON')
    .action(({ json = false }: { json?: boolean }) => {
      const versions = { holdfast: VERSION, node: process.versions.node }
      if (json) printJson(versions)
      else print(`holdfast ${VERSION} (Node ${process.versions.node})`)
    })
  overrideExit(program)
  return program
}

/** Commander throws instead of exiting, in every subcommand. */
function overrideExit(command: Command): void {
  command.exitOverride()
  for (const sub of command.commands) overrideExit(sub)
}

exitOnClosedPipe()
try {
  const program = await buildProgram(process.argv[2])
  await program.parseAsync()
} catch (error) {
  if (error instanceof CommanderError) {
    // Commander has said what is wrong; help and version are no errors.
    process.exitCode = error.exitCode === 0 ? ExitCode.ok : ExitCode.usage
  } else {
    process.exitCode = reportError(error, { json: process.argv.includes('--json') })
  }
}
