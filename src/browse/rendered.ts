/**
 * A file that is rendered anew when it is looked at. While somebody has it open it stays as it is, so
 * that its size and its bytes always fit: a reader must never get half of a JSON object.
 */
import { BROWSE_FRESH_MS } from '../lib/limits.js'
import { type FileNode, fileAttributes, openBytes } from './node.js'

interface Rendering {
  bytes: Buffer
  atMs: number
}

export class RenderedFile implements FileNode {
  readonly kind = 'file'
  readonly #render: () => Promise<string>
  #last: Rendering | undefined
  #making: Promise<Rendering> | undefined
  #readers = 0

  constructor(render: () => Promise<string>) {
    this.#render = render
  }

  async attributes() {
    const { bytes, atMs } = await this.#current()
    return fileAttributes(bytes.length, atMs)
  }

  async open() {
    const { bytes } = await this.#current()
    this.#readers += 1
    return openBytes(
      () => bytes,
      () => {
        this.#readers -= 1
      },
    )
  }

  async #current(): Promise<Rendering> {
    const last = this.#last
    const fresh = last !== undefined && Date.now() - last.atMs < BROWSE_FRESH_MS
    if (last !== undefined && (fresh || this.#readers > 0)) return last
    this.#making ??= this.#renderNow().finally(() => {
      this.#making = undefined
    })
    return this.#making
  }

  async #renderNow(): Promise<Rendering> {
    const bytes = Buffer.from(await this.#render())
    this.#last = { bytes, atMs: Date.now() }
    return this.#last
  }
}
