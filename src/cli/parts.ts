/**
 * The commands and the files that add them: one is loaded when it is called, so that none pays for what
 * only others import. All are loaded where the answer speaks of all: help, a command that does not exist.
 */
import type { Command } from 'commander'

interface Part {
  names: readonly string[]
  load: () => Promise<(program: Command) => void>
}

/** In the order of --help. */
const PARTS: readonly Part[] = [
  {
    names: ['mount', 'unmount', 'umount'],
    load: async () => (await import('./commands/mount.js')).addMountCommands,
  },
  {
    names: ['status', 'list', 'ls'],
    load: async () => (await import('./commands/status.js')).addStatusCommands,
  },
  {
    names: ['journal'],
    load: async () => (await import('./commands/journal.js')).addJournalCommands,
  },
  {
    names: ['recapture'],
    load: async () => (await import('./commands/recapture.js')).addRecaptureCommand,
  },
  {
    names: ['snapshot'],
    load: async () => (await import('./commands/snapshot.js')).addSnapshotCommands,
  },
  {
    names: ['history'],
    load: async () => (await import('./commands/history.js')).addHistoryCommands,
  },
  { names: ['exec'], load: async () => (await import('./commands/exec.js')).addExecCommand },
  { names: ['diff'], load: async () => (await import('./commands/diff.js')).addDiffCommand },
  {
    names: ['restore'],
    load: async () => (await import('./commands/restore.js')).addRestoreCommand,
  },
  { names: ['browse'], load: async () => (await import('./commands/browse.js')).addBrowseCommand },
  { names: ['peer'], load: async () => (await import('./commands/peer.js')).addPeerCommands },
  { names: ['group'], load: async () => (await import('./commands/group.js')).addGroupCommands },
  {
    names: ['replicate', 'wait'],
    load: async () => (await import('./commands/replicate.js')).addReplicateCommands,
  },
  {
    names: ['verify', 'resync'],
    load: async () => (await import('./commands/verify.js')).addVerifyCommands,
  },
  {
    names: ['replica'],
    load: async () => (await import('./commands/replica.js')).addReplicaCommands,
  },
  { names: ['doctor'], load: async () => (await import('./commands/doctor.js')).addDoctorCommand },
]

/** Adds the command called `name`, or all when there is none of that name. */
export async function addCommands(program: Command, name: string | undefined): Promise<void> {
  const called = PARTS.filter(({ names }) => name !== undefined && names.includes(name))
  for (const { load } of called.length > 0 ? called : PARTS) (await load())(program)
}
