/** The root of a browse tree: one directory for each volume of this host, found anew at every look. */
import { listVolumes } from '../daemon/registry.js'
import type { Logger } from '../lib/log.js'
import { type DirectoryNode, directory, type Node, textFile } from './node.js'
import { VolumeTree } from './volume-tree.js'

const README = `What holdfast knows, as files. Everything here is read-only and made when it is looked at.

  VOLUME/status, status.json    how the volume is doing
  VOLUME/journal.tail           the last changes as text; grows (tail -f); journal.jsonl: as JSON
  VOLUME/snapshots/NAME         the tree as it was at the snapshot; NAME.json: its certificate
  VOLUME/versions/PATH/         the versions of the file PATH, named by time, seq and who made them
  VOLUME/at/MOMENT              the tree at any moment that is kept: a seq (812345), or a time
                                (2026-11-22T14:03:12Z). Lists nothing: name the moment.

Names that are no UTF-8, and those with control characters or backslashes, have these bytes escaped
(\\377, \\n, \\\\) below versions/. Below snapshots/ and at/ all names are as they are.
A time of a version is UTC. What lies in versions/ before a file was renamed is under its old name;
names that were removed long ago are not listed, but can be entered.
`

export class BrowseTree {
  readonly #log: Logger
  /** By UUID: a name may be given to another volume. */
  readonly #volumes = new Map<string, VolumeTree>()
  readonly root: DirectoryNode

  constructor(log: Logger) {
    this.#log = log
    this.root = directory(() => this.#children())
  }

  #children(): Record<string, Node> {
    const children: Record<string, Node> = { README: textFile(README) }
    for (const volume of listVolumes()) {
      const { uuid, name } = volume.config
      const known = this.#volumes.get(uuid) ?? new VolumeTree(volume, this.#log)
      this.#volumes.set(uuid, known)
      children[name] = known.root
    }
    return children
  }

  async look(): Promise<void> {
    for (const volume of this.#volumes.values()) await volume.look()
  }

  /** Idempotent. */
  async close(): Promise<void> {
    await Promise.all([...this.#volumes.values()].map((each) => each.close()))
  }
}
