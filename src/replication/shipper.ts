/**
 * Ships the journal to one replica: connects, finds where the replica is, sends what it lacks, and
 * hears what it has logged and applied. Goes on by itself after every break.
 *
 * Neighbours: `sender.ts` decides, `channel.ts` carries; the daemon owns it and says when the
 * journal has grown.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { Journal } from '../journal/store.js'
import { HoldfastError, toHoldfastError } from '../lib/errors.js'
import {
  CONNECTION_END_MS_MAX,
  DIFFERENCES_TOLD_MAX,
  PEER_SILENCE_MS_MAX,
  RATE_PAUSE_MS_MAX,
  SHIP_FRAMES_PER_TURN,
  SHIP_WINDOW_BYTES,
} from '../lib/limits.js'
import { higher } from '../lib/seqs.js'
import { VERSION } from '../lib/version.js'
import { formatUuid } from '../record/frame.js'
import { BaselineWishes } from './baseline-wishes.js'
import { Channel } from './channel.js'
import { type HeaderOf, type Message, PROTOCOL, versionMismatch } from './message.js'
import { chainAt } from './place.js'
import { RateLimit } from './rate.js'
import { Reconnect } from './reconnect.js'
import { unexpected } from './refusals.js'
import { Repairs } from './repairs.js'
import type { FoundDifference } from './replica-messages.js'
import { Sender } from './sender.js'
import type { Connection, ShipperOptions, ShipperState, ShipSettings } from './ship-state.js'
import { Told } from './told.js'

/** How often a baseline that has to be begun, or has failed, is looked at. */
const BASELINE_POLL_MS = 200
/** Messages that wait for their turn; a replica says so many things at a time only when it misbehaves. */
const INBOX_MESSAGES_MAX = 16

export class Shipper {
  readonly #options: ShipperOptions
  readonly #journal: Journal
  readonly #sender = new Sender({ window: SHIP_WINDOW_BYTES })
  readonly #stopped = new AbortController()
  readonly #ended: Promise<void>
  #rate: RateLimit | undefined
  #applyDelayMs: number
  #channel: Channel | undefined
  #connection: Connection = 'connecting'
  #problem: ShipperState['problem'] = null
  #connections = 0
  #bytesBefore = 0
  #wake: () => void = () => {}
  #end = 0n
  #resync = false
  #resyncs = 0
  #differences: FoundDifference[] = []
  readonly #repairs: Repairs
  readonly #wishes: BaselineWishes
  readonly #told: Told
  readonly #reconnect = new Reconnect()

  constructor(options: ShipperOptions) {
    this.#options = options
    this.#journal = Journal.open({ path: options.volume.journalPath, readOnly: true })
    this.#end = this.#journal.end().lastSeq
    this.#told = new Told(options.volume, this.#sender, this.#end)
    const log = options.log.child({ peer: options.peer })
    this.#wishes = new BaselineWishes(options.volume)
    this.#repairs = new Repairs(options.volume, this.#sender, log)
    this.#applyDelayMs = options.settings.applyDelayMs
    this.#limit(options.settings)
    this.#ended = this.#run()
  }

  get state(): ShipperState {
    const failure = this.#sender.failure
    return {
      ...this.#sender.positions,
      connection: this.#connection,
      problem: failure ?? this.#problem,
      baseline: this.#sender.baseline,
      bytesSent: this.#bytesBefore + (this.#channel?.bytesSent ?? 0),
      bytesUnderWay: this.#sender.bytesUnderWay,
      connections: this.#connections,
      resyncs: this.#resyncs,
      needs: this.#sender.needs,
      verdict: this.#sender.verdict,
      filledBytes: this.#repairs.filledBytes,
      authorised: this.#told.authorised,
    }
  }

  /** The first differences that the comparison under way, or the last one, has found. */
  get differences(): readonly FoundDifference[] {
    return this.#differences
  }

  /** A comparison begins, or has ended. */
  comparing(on: boolean): void {
    if (on) this.#differences = []
    this.#repairs.comparing = on
    this.#wake()
  }

  /** What comparisons have found is repaired. */
  repair(): void {
    this.#repairs.want()
    this.#wake()
  }

  /** The replica starts over from what it has: everything is compared by codes, what differs moves. */
  resync(): void {
    this.#resync = true
    this.#wake()
  }

  /** From now on. */
  configure(settings: ShipSettings): void {
    this.#limit(settings)
    this.#applyDelayMs = settings.applyDelayMs
    if (this.#channel !== undefined && this.#connection === 'connected') this.#delay(this.#channel)
    this.#wake()
  }

  #limit({ rateBytes }: ShipSettings): void {
    if (rateBytes === this.#rate?.bytesPerSecond) return
    this.#rate = rateBytes === null ? undefined : new RateLimit(rateBytes)
  }

  #delay(channel: Channel): void {
    channel.send({ type: 'delay', applyMs: this.#applyDelayMs, clockMs: Date.now() })
  }

  /** The journal ends at `seq` now. */
  advanced(seq: bigint): void {
    if (seq <= this.#end) return
    this.#end = seq
    this.#wake()
  }

  /** The horizon may have changed, though the journal has not. */
  announce(): void {
    this.#wake()
  }

  /** Idempotent. */
  async close(): Promise<void> {
    this.#stopped.abort()
    this.#channel?.close(
      new HoldfastError('ABORTED', 'shipping was stopped', { op: 'replication.ship' }),
    )
    this.#wake()
    // An attempt to connect ends in its own time.
    await Promise.race([this.#ended, sleep(CONNECTION_END_MS_MAX)])
    await this.#options.transport.close()
    await this.#journal.close()
  }

  /** Connects anew: the journal was made anew. */
  restart(): void {
    this.#end = 0n
    this.#channel?.close(
      new HoldfastError('CONNECTION', 'the log starts over', { op: 'replication.ship' }),
    )
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopped
    while (!signal.aborted) {
      this.#reconnect.begin()
      try {
        await this.#connected()
      } catch (error) {
        this.#note(toHoldfastError(error, 'replication.ship'))
      }
      if (signal.aborted) break
      // Waiting for the other side costs nothing.
      if (this.#options.transport.listens) this.#reconnect.good()
      await this.#reconnect.pause(signal)
    }
    this.#set('stopped')
  }

  #note(error: HoldfastError): void {
    const { code, message } = error
    const changed = this.#problem?.message !== message
    this.#problem = { code, message }
    if (changed) {
      this.#options.log.warn({ peer: this.#options.peer, error }, 'the replica is not connected')
    }
    this.#set(error.code === 'CONNECTION' || error.code === 'PEER_SILENT' ? 'waiting' : 'refused')
  }

  #set(connection: Connection): void {
    this.#connection = connection
    this.#options.onChange(this.state)
  }

  /** One connection, from its making to its end, which is thrown. */
  async #connected(): Promise<void> {
    const { transport } = this.#options
    this.#set(transport.listens ? 'listening' : 'connecting')
    const stream = await transport.connect(this.#stopped.signal)
    const inbox: Message[] = []
    let closed: HoldfastError | undefined
    const channel = new Channel(stream, {
      onMessage: (message) => {
        if (!this.#hear(message)) {
          if (inbox.length >= INBOX_MESSAGES_MAX) throw unexpected(message)
          inbox.push(message)
        }
        this.#wake()
      },
      onClose: (error) => {
        closed = error
        this.#wake()
      },
    })
    this.#channel = channel
    this.#connections += 1
    try {
      this.#sender.begin()
      this.#hello(channel)
      const welcome = await this.#next(inbox, () => closed)
      await this.#begin(channel, welcome)
      this.#problem = null
      this.#repairs.reconnected()
      this.#set('connected')
      this.#options.log.info({ peer: this.#options.peer, state: this.state }, 'shipping')
      for (;;) {
        const news = this.#news()
        if (closed !== undefined) throw closed
        for (const message of inbox.splice(0)) this.#take(channel, message)
        if (this.#resync) this.#reset(channel, 'on request')
        await this.#followBaseline()
        await this.#repairs.step(channel)
        const shipped = await this.#ship(channel)
        if ((await this.#fill(channel)) || shipped) continue
        this.#tell(channel)
        // The end of a scan is nobody's news.
        const wishing = this.#sender.baseline || this.#wishes.further !== undefined
        const scanning = wishing || this.#repairs.isBusy
        const again = sleep(scanning ? BASELINE_POLL_MS : PEER_SILENCE_MS_MAX)
        await Promise.race([news, again])
      }
    } finally {
      this.#bytesBefore += channel.bytesSent
      this.#channel = undefined
      channel.close(closed ?? new HoldfastError('CONNECTION', 'given up', { op: 'replication' }))
    }
  }

  /** Resolves at the next thing that happens. */
  #news(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve
    })
  }

  async #next(inbox: Message[], closed: () => HoldfastError | undefined): Promise<Message> {
    for (;;) {
      const news = this.#news()
      const [message] = inbox.splice(0, 1)
      if (message?.header.type === 'refuse') throw unexpected(message)
      if (message !== undefined) return message
      const error = closed()
      if (error !== undefined) throw error
      await news
    }
  }

  #hello(channel: Channel): void {
    const { name, host } = this.#options.volume
    const { uuid, epoch } = this.#journal.meta()
    channel.send({
      type: 'hello',
      protocol: PROTOCOL,
      version: VERSION,
      host,
      volume: formatUuid(uuid),
      name,
      epoch,
      end: Number(this.#told.horizon(this.#end).end),
    })
  }

  async #begin(channel: Channel, { header, body }: Message): Promise<void> {
    if (header.type !== 'welcome') throw unexpected({ header, body })
    if (header.protocol !== PROTOCOL) throw versionMismatch(header)
    this.#delay(channel)
    this.#wishes.further = undefined
    this.#told.begin()
    await this.#options.volume.flush()
    this.#journal.refresh()
    this.#wishes.hasTree = header.tree
    this.#end = higher(this.#end, this.#journal.end().lastSeq)
    const plan = this.#sender.welcome(header, (seq) => chainAt(this.#journal, seq))
    if (plan.kind === 'resume') {
      if (plan.lost !== null) {
        const { peer, log } = this.#options
        const lost = `${plan.after + 1n} to ${plan.lost}`
        log.error({ peer, lost }, 'the replica has lost what it had acknowledged; it gets it again')
      }
      this.#wishes.goesOn(BigInt(header.applied))
      return this.#tell(channel)
    }
    this.#reset(channel, plan.reason)
  }

  /** The replica forgets its log, and a baseline follows. */
  #reset(channel: Channel, reason: string): void {
    const { log, peer } = this.#options
    log.info({ peer, reason, codes: this.#wishes.hasTree }, 'a baseline begins')
    this.#resync = false
    this.#resyncs += 1
    this.#journal.refresh()
    const end = this.#journal.end()
    this.#wishes.begins(end.lastSeq)
    channel.send({ type: 'reset', at: this.#sender.reset(end) })
    this.#repairs.want()
    this.#options.onChange(this.state)
  }

  /** What a connected replica says besides its acknowledgements. */
  #take(channel: Channel, message: Message): void {
    const { header } = message
    switch (header.type) {
      case 'again':
        // It may have heard of what this log does not have yet: then there is nothing to send.
        if (header.logged?.seq === Number(this.#sender.positions.sent)) return
        this.#options.log.warn({ peer: this.#options.peer, header }, 'the replica asks again')
        if (this.#sender.again(header, (seq) => chainAt(this.#journal, seq))) return
        // Where it is can no longer be gone on from: what then is decided at the next welcome.
        channel.close(
          new HoldfastError('CONNECTION', 'it lacks what is gone', { op: 'replication' }),
        )
        return
      case 'baseline':
        this.#wishes.further = header.after === null ? undefined : BigInt(header.after)
        return
      default:
        throw unexpected(message)
    }
  }

  /** Says how far the journal goes, when no frame has said it. */
  #tell(channel: Channel): void {
    const news = this.#told.news(this.#end)
    if (news === undefined) return
    const { end, authorised } = news
    channel.send({ type: 'advance', end: Number(end), authorised: Number(authorised) })
  }

  /** While a replica waits for a baseline's end, sees to it that one is under way. */
  async #followBaseline(): Promise<void> {
    const problem = await this.#wishes.follow(this.#sender)
    if (problem === null) {
      if (this.#problem?.code === 'BASELINE') this.#problem = null
    } else if (this.#problem?.message !== problem) {
      this.#problem = { code: 'BASELINE', message: problem }
      this.#options.log.error({ peer: this.#options.peer, problem }, 'no baseline')
      this.#options.onChange(this.state)
    }
  }

  /** Sends what there is room for; false when there is nothing to do but wait. */
  async #ship(channel: Channel): Promise<boolean> {
    const { sent } = this.#sender.positions
    const idle = sent >= this.#end || this.#options.volume.frozen()
    if (idle || !this.#sender.hasRoom) return false
    const pause = this.#rate?.pauseMs ?? 0
    if (pause > 0) {
      await sleep(Math.min(pause, RATE_PAUSE_MS_MAX))
      return true
    }
    this.#journal.refresh()
    let frames = 0
    let told = this.#told.horizon(this.#end)
    for (const frame of this.#journal.passing(sent + 1n)) {
      if (!channel.isOpen) return false
      const next = this.#sender.positions.sent + 1n
      if (frame.firstSeq !== next) {
        this.#reset(channel, `the journal has ${frame.firstSeq} after ${next - 1n}`)
        return true
      }
      // The journal may have grown beyond what was announced here.
      if (frame.lastSeq > this.#end) this.#end = frame.lastSeq
      // A replica's own log may end before what it knows of its primary's.
      told = { ...told, end: higher(told.end, this.#end) }
      const unsent = this.#options.volume.bytesAfter(frame.lastSeq)
      channel.send(
        { type: 'frame', end: Number(told.end), authorised: Number(told.authorised), unsent },
        frame.bytes,
      )
      this.#sender.sentFrame(frame)
      this.#rate?.spend(frame.bytes.length)
      frames += 1
      await channel.pace()
      if (!this.#sender.hasRoom || frames >= SHIP_FRAMES_PER_TURN) break
      if ((this.#rate?.pauseMs ?? 0) > 0) break
    }
    if (frames > 0) this.#told.said(told)
    if (frames > 0) this.#options.onChange(this.state)
    // Nothing read although the journal has grown: what was announced is not visible yet.
    else await sleep(1)
    return true
  }

  /** Sends what the replica lacks past the journal; false when there is nothing to. */
  async #fill(channel: Channel): Promise<boolean> {
    if (this.#options.volume.frozen() || (this.#rate?.pauseMs ?? 0) > 0) return false
    const bytes = await this.#repairs.fill(channel, { limited: this.#rate !== undefined })
    if (bytes === 0) return false
    this.#rate?.spend(bytes)
    this.#options.onChange(this.state)
    return true
  }

  /** Takes what comes at any time; false: it is an answer that somebody waits for. */
  #hear({ header, body }: Message): boolean {
    switch (header.type) {
      case 'ack':
        this.#ack(header)
        return true
      case 'difference': {
        const { type: _, ...difference } = header
        if (this.#differences.length < DIFFERENCES_TOLD_MAX) this.#differences.push(difference)
        return true
      }
      case 'need':
        this.#repairs.need(body)
        return true
      default:
        return false
    }
  }

  #ack(header: HeaderOf<'ack'>): void {
    const { applied } = this.#sender.positions
    this.#sender.ack(header)
    // The replica's tree has come further over this connection: it was a good one.
    if (!this.#sender.baseline && this.#sender.positions.applied > applied) this.#reconnect.good()
    this.#options.onChange(this.state)
  }
}
