/** One volume in a browse tree: status, tail of the journal, snapshots, versions, any moment. */
import { stripVTControlCharacters } from 'node:util'
import { jsonText } from '../cli/output.js'
import { statusText } from '../cli/render-status.js'
import type { Volume } from '../daemon/registry.js'
import { listSnapshots } from '../daemon/snapshots.js'
import type { Status } from '../daemon/status.js'
import { toHoldfastError } from '../lib/errors.js'
import type { Logger } from '../lib/log.js'
import { seqIn } from '../snapshot/certificate.js'
import { timeShown } from './names.js'
import {
  type DirectoryNode,
  directory,
  directoryAttributes,
  link,
  type Node,
  textFile,
} from './node.js'
import { Past } from './past.js'
import { RenderedFile } from './rendered.js'
import { JournalTail } from './tail.js'
import { VersionsTree } from './versions-tree.js'
import { SharedViews } from './views.js'

export class VolumeTree {
  readonly #volume: Volume
  readonly #past: Past
  readonly #views: SharedViews
  readonly #tail: JournalTail
  readonly root: DirectoryNode

  constructor(volume: Volume, log: Logger) {
    const { name } = volume.config
    this.#volume = volume
    this.#past = new Past(name)
    this.#views = new SharedViews(name, log)
    this.#tail = new JournalTail(name)
    const parts = { past: this.#past, views: this.#views, tail: this.#tail }
    const children = {
      status: new RenderedFile(() => this.#statusText()),
      'status.json': new RenderedFile(() => this.#statusJson()),
      'journal.tail': this.#tail.text,
      'journal.jsonl': this.#tail.json,
      snapshots: directory(() => this.#snapshots()),
      versions: new VersionsTree(parts).root,
      at: this.#moments(),
    }
    this.root = directory(() => children, Date.parse(volume.config.created))
  }

  async #statusText(): Promise<string> {
    const status = await this.#status()
    const { name, mountpoint } = this.#volume.config
    if (status === undefined) return `volume  ${name}  ${mountpoint}\nstate   stopped\n`
    return `${stripVTControlCharacters(statusText(status))}\n`
  }

  async #statusJson(): Promise<string> {
    const { name, uuid, mountpoint, backing } = this.#volume.config
    const status = (await this.#status()) ?? { name, uuid, state: 'stopped', backing, mountpoint }
    return `${jsonText(status)}\n`
  }

  /** undefined: the volume is not mounted. */
  async #status(): Promise<Status | undefined> {
    try {
      return await this.#past.status()
    } catch (error) {
      if (toHoldfastError(error, 'browse').code === 'VOLUME_NOT_RUNNING') return undefined
      throw error
    }
  }

  #snapshots(): Record<string, Node> {
    const { name: volume, uuid } = this.#volume.config
    const snapshots = listSnapshots(volume)
    const certificates = snapshots.map((each): [string, Node] => {
      const text = `${JSON.stringify(each, null, 2)}\n`
      return [`${each.name}.json`, textFile(text, Date.parse(each.created))]
    })
    const links = snapshots.map((each): [string, Node] => {
      const seq = BigInt(seqIn(each, uuid) ?? 0)
      return [each.name, link(() => this.#views.lease(seq, each.name), Date.parse(each.created))]
    })
    // A snapshot may be called like the certificate of another one: it goes first.
    return Object.fromEntries([...certificates, ...links])
  }

  /** Lists nothing: any seq, and any time, is a name in it. */
  #moments(): DirectoryNode {
    return {
      kind: 'directory',
      attributes: async () => directoryAttributes(),
      names: async () => [],
      child: async (name) => {
        const seq = await this.#momentCalled(name)
        return seq === undefined ? undefined : link(() => this.#views.lease(seq, null))
      },
    }
  }

  /** undefined for what is no name of a moment that is kept. */
  async #momentCalled(name: string): Promise<bigint | undefined> {
    const seq = /^(?:seq-)?(\d{1,15})$/.exec(name)?.[1]
    const timeMs = seq === undefined ? timeShown(name) : undefined
    if (seq === undefined && (timeMs === undefined || timeMs > Date.now())) return undefined
    try {
      const found = seq === undefined ? await this.#past.seqAt(timeMs ?? 0) : BigInt(seq)
      await this.#past.requireMoment(found)
      return found
    } catch (error) {
      const { code } = toHoldfastError(error, 'browse')
      if (code === 'HISTORY_RANGE' || code === 'HISTORY_OFF') return undefined
      throw error
    }
  }

  /** Lets go of what nobody has used for a while. */
  async look(): Promise<void> {
    await this.#views.look()
    await this.#tail.rest()
  }

  /** Idempotent. */
  async close(): Promise<void> {
    await Promise.all([this.#views.close(), this.#tail.close()])
  }
}
