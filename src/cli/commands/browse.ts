/** `holdfast browse` */
import type { Command } from 'commander'
import { launchBrowse } from '../../browse/launch.js'
import { browsePath, stopBrowse } from '../../browse/place.js'
import { checkMachine } from '../../daemon/preflight.js'
import { print, printJson } from '../output.js'

interface BrowseFlags {
  stop?: boolean
  foreground?: boolean
  json?: boolean
}

export function addBrowseCommand(program: Command): void {
  program
    .command('browse')
    .summary('volumes, snapshots and versions as files')
    .description(
      'Shows at PATH what holdfast knows, as ordinary read-only files for ls, cp, less and scripts: ' +
        "each volume's status, the tail of its journal, its snapshots, the versions of each file by " +
        'time, and any moment that its history keeps. For root only. PATH is an empty directory, or ' +
        'is made; it stays until --stop or umount.',
    )
    .argument('<path>', 'where to show it')
    .option('--stop', 'end it')
    .option('--foreground', 'stay in the foreground, until interrupted')
    .option('--json', 'print where it is as JSON')
    .addHelpText(
      'after',
      `
Examples:
  holdfast browse /run/holdfast/tree
  ls -l /run/holdfast/tree/data/versions/etc/app.conf/
  tail -f /run/holdfast/tree/data/journal.tail
  ls /run/holdfast/tree/data/at/2026-11-22T14:03:12Z/
  holdfast browse --stop /run/holdfast/tree`,
    )
    .action(async (given: string, flags: BrowseFlags) => {
      checkMachine()
      const path = browsePath(given)
      if (flags.stop === true) {
        await stopBrowse(path)
        if (flags.json === true) printJson({ path })
        else print(`the browse tree at ${path} is gone`)
        return
      }
      if (flags.foreground === true) await runInForeground(path)
      const pid = await launchBrowse(path)
      if (flags.json === true) printJson({ path, pid })
      else print(`browse tree at ${path}; begin with ${path}/README`)
    })
}

/** Loaded here only, as it brings libfuse with it. */
async function runInForeground(path: string): Promise<never> {
  const { runBrowse } = await import('../../browse/run.js')
  const { makeLogger } = await import('../../lib/log.js')
  const browse = await runBrowse(path, makeLogger({ fd: 2, base: { browse: path } }))
  process.exit(await browse.ended)
}
