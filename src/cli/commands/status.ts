/** `holdfast status`, `holdfast list` */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Command } from 'commander'
import { ControlClient } from '../../daemon/client.js'
import { runningDaemon } from '../../daemon/lock.js'
import { findVolume, listVolumes, type Volume } from '../../daemon/registry.js'
import { settleJournal } from '../../daemon/settle.js'
import type { Status } from '../../daemon/status.js'
import { Journal } from '../../journal/store.js'
import { requireReadable } from '../../journal/verify.js'
import { HoldfastError } from '../../lib/errors.js'
import { formatBytes, formatCount } from '../../lib/format.js'
import { interruptSignal, out, print, printJson, table } from '../output.js'
import { statusText } from '../render-status.js'

const WATCH_MS = 1000
const CLEAR = '\u001b[H\u001b[2J'

export function addStatusCommands(program: Command): void {
  program
    .command('status')
    .summary('how a volume is doing')
    .description(
      'Shows positions (captured, journaled) and their lag, rates, the fill of the capture ring, the ' +
        'journal, and whether the volume is protected. Without VOLUME: all running ones.',
    )
    .argument('[volume]', 'name, mountpoint or directory of the volume')
    .option('--watch', 'again every second, until interrupted')
    .option('--json', 'as JSON; with --watch one object per line')
    .addHelpText(
      'after',
      `
Exit codes: 0 protected, 3 not mounted, 5 mounted but not protected now (re-capturing, blocked).

Examples:
  holdfast status data
  holdfast status --watch
  holdfast status data --json | jq .lag.bytes`,
    )
    .action(async (which: string | undefined, flags: { watch?: boolean; json?: boolean }) => {
      const signal = flags.watch === true ? interruptSignal() : undefined
      do {
        const statuses = await readStatuses(which)
        show(statuses, { which, watch: signal !== undefined, json: flags.json === true })
        if (signal !== undefined) await sleep(WATCH_MS, undefined, { signal }).catch(() => {})
      } while (signal !== undefined && !signal.aborted)
    })

  program
    .command('list')
    .alias('ls')
    .summary('all volumes of this machine')
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExample:\n  holdfast list')
    .action(async ({ json = false }: { json?: boolean }) => {
      const rows = await Promise.all(listVolumes().map(describeVolume))
      if (json) return printJson(rows)
      if (rows.length === 0) return print('no volumes; make one: holdfast mount DIR')
      const cells = rows.map(({ name, state, mountpoint, journalBytes, seq }) => [
        out.bold(name),
        state === 'protected' ? out.green(state) : out.yellow(state),
        seq === null ? '-' : formatCount(seq),
        journalBytes === null ? '-' : formatBytes(journalBytes),
        mountpoint,
      ])
      const head = ['NAME', 'STATE', 'SEQ', 'JOURNAL', 'MOUNTPOINT'].map((text) => out.dim(text))
      print(table([head, ...cells]))
    })
}

async function readStatuses(which: string | undefined): Promise<Status[]> {
  const volumes =
    which === undefined
      ? listVolumes().filter(({ config }) => runningDaemon(config.name) !== undefined)
      : [findVolume(which)]
  if (volumes.length === 0) {
    throw new HoldfastError('VOLUME_NOT_RUNNING', 'no volume is mounted', {
      op: 'status',
      hint: 'See what there is: holdfast list',
    })
  }
  return Promise.all(volumes.map(({ config }) => new ControlClient(config.name).status()))
}

interface ShowOptions {
  which: string | undefined
  watch: boolean
  json: boolean
}

function show(statuses: Status[], { which, watch, json }: ShowOptions): void {
  const one = which === undefined ? undefined : statuses[0]
  if (json) printJson(one ?? statuses, { line: watch })
  else {
    if (watch && process.stdout.isTTY === true) process.stdout.write(CLEAR)
    print(statuses.map(statusText).join('\n\n'))
  }
  // A script can tell without parsing; `list` and `--json` say more.
  process.exitCode = statuses.every(({ state }) => state === 'protected') ? 0 : 5
}

async function describeVolume(volume: Volume) {
  const { config, stateDirectory } = volume
  const { name, uuid, backing, mountpoint } = config
  const base = { name, uuid, backing, mountpoint, stateDirectory }
  if (runningDaemon(name) === undefined) {
    return { ...base, state: 'stopped', ...(await journalExtent(volume)) }
  }
  try {
    const { state, captured, journal } = await new ControlClient(name).status()
    return { ...base, state, seq: captured.seq, journalBytes: journal.usedBytes }
  } catch {
    return { ...base, state: 'not answering', seq: null, journalBytes: null }
  }
}

/** What the journal of a stopped volume says; nulls when it cannot be read. */
async function journalExtent(volume: Volume) {
  try {
    const path = await settleJournal(volume)
    await requireReadable(path)
    const journal = Journal.open({ path, readOnly: true })
    try {
      return { seq: Number(journal.end().lastSeq), journalBytes: journal.usedBytes() }
    } finally {
      await journal.close()
    }
  } catch {
    return { seq: null, journalBytes: null }
  }
}
