/** `holdfast recapture` */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Command } from 'commander'
import { ControlClient } from '../../daemon/client.js'
import { findVolume } from '../../daemon/registry.js'
import { HoldfastError } from '../../lib/errors.js'
import { formatBytes, formatCount } from '../../lib/format.js'
import { interruptSignal, print, printJson, remark } from '../output.js'

const POLL_MS = 200

export function addRecaptureCommand(program: Command): void {
  program
    .command('recapture')
    .summary('capture the state of the whole tree anew')
    .description(
      'Walks the tree and writes the state of every object to the journal, while applications go ' +
        'on. After it the journal alone (from there on) describes the tree. Needed after doubt; ' +
        'after power loss holdfast does what is needed by itself.',
    )
    .argument('<volume>', 'name, mountpoint or directory of the volume')
    .option('--no-wait', 'return at once; follow it with holdfast status')
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExample:\n  holdfast recapture data')
    .action(async (which: string, flags: { wait: boolean; json?: boolean }) => {
      const client = new ControlClient(findVolume(which).config.name)
      let recapture = await client.recapture('on request')
      const signal = interruptSignal()
      while (flags.wait && recapture.needed) {
        if (signal.aborted) {
          throw new HoldfastError('ABORTED', 'not waiting any longer; the re-capture goes on', {
            op: 'recapture',
            hint: `Follow it: holdfast status ${client.name} --watch`,
          })
        }
        if (process.stderr.isTTY === true) {
          process.stderr.write(
            `\r${formatCount(recapture.objects)} objects, ${formatBytes(recapture.bytes)}   `,
          )
        }
        await sleep(POLL_MS, undefined, { signal }).catch(() => {})
        recapture = (await client.status()).recapture
      }
      if (process.stderr.isTTY === true) remark('')
      if (flags.json === true) return printJson(recapture)
      if (!flags.wait) return print('re-capture started')
      const { objects, imaged, bytes } = recapture
      print(
        `captured ${formatCount(imaged)} of ${formatCount(objects)} objects, ${formatBytes(bytes)}`,
      )
    })
}
