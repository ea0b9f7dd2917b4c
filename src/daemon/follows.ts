/**
 * What this host follows by connecting itself: `follows.json` in the directory of its replicas, and
 * a follower for each.
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { HoldfastError } from '../lib/errors.js'
import { writeFileDurably } from '../lib/files.js'
import type { Logger } from '../lib/log.js'
import { type Follow, Follower, type FollowState, followAddress } from '../replication/follower.js'
import type { Identity } from '../replication/identity.js'
import type { Peers } from '../replication/peers.js'
import type { ReplicaHost } from '../replication/serve.js'
import { parseAddress } from '../replication/tls.js'

const FILE = 'follows.json'

export const FollowSchema = z.strictObject({
  peer: z.string().min(1),
  volume: z.string().min(1).max(256),
  address: z.string().nullable().default(null),
})
const FileSchema = z.strictObject({ version: z.literal(1), follows: z.array(FollowSchema) })

export interface FollowsOptions {
  host: ReplicaHost
  identity: Identity
  peers: Peers
  log: Logger
}

export class Follows {
  readonly #options: FollowsOptions
  readonly #followers: Follower[]

  /** Goes on with what was followed before. UNKNOWN_FORMAT. */
  constructor(options: FollowsOptions) {
    this.#options = options
    this.#followers = this.#read().map((follow) => this.#begin(follow))
  }

  get status(): FollowState[] {
    return this.#followers.map(({ state }) => state)
  }

  /** Follows a volume of a peer, or changes where. PEER_NOT_FOUND, USAGE. */
  async add(follow: Follow): Promise<void> {
    parseAddress(followAddress(follow, this.#options.peers.get(follow.peer)))
    await this.#end(follow)
    this.#followers.push(this.#begin(follow))
    this.#write()
  }

  /** NOT_REPLICATED. */
  async remove(follow: Pick<Follow, 'peer' | 'volume'>): Promise<void> {
    if (await this.#end(follow)) return this.#write()
    const message = `${follow.volume} of ${follow.peer} is not followed`
    throw new HoldfastError('NOT_REPLICATED', message, {
      op: 'replica.follow',
      hint: 'See what is: holdfast replica list',
    })
  }

  /** Idempotent. */
  async close(): Promise<void> {
    await Promise.all(this.#followers.map((follower) => follower.close()))
  }

  #begin(follow: Follow): Follower {
    return new Follower({ ...this.#options, follow })
  }

  /** False: there is none like it. */
  async #end({ peer, volume }: Pick<Follow, 'peer' | 'volume'>): Promise<boolean> {
    const at = this.#followers.findIndex(
      ({ follow }) => follow.peer === peer && follow.volume === volume,
    )
    if (at < 0) return false
    const [follower] = this.#followers.splice(at, 1)
    await follower?.close()
    return true
  }

  get #path(): string {
    return join(this.#options.host.root, FILE)
  }

  #read(): Follow[] {
    if (!existsSync(this.#path)) return []
    try {
      return FileSchema.parse(JSON.parse(readFileSync(this.#path, 'utf8'))).follows
    } catch (cause) {
      const message = `${this.#path} is not what this holdfast writes`
      throw new HoldfastError('UNKNOWN_FORMAT', message, {
        op: 'replica.follow',
        cause,
        hint: 'Correct it, or remove it and follow again.',
      })
    }
  }

  #write(): void {
    const follows = this.#followers.map(({ follow }) => follow)
    writeFileDurably(this.#path, `${JSON.stringify({ version: 1, follows }, null, 2)}\n`)
  }
}
