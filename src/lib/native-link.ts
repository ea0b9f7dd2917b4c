/** Links between hosts, as the data plane does them: TLS over a connected socket, with threads of its own. */

export interface NativeLinkOptions {
  /** Descriptor of a connected socket; it stays the caller's, to be closed at once. */
  fd: number
  /** This side was connected to. */
  server: boolean
  /** PEM. */
  certificate: string
  /** PEM. */
  key: string
  handshakeMs: number
}

/** Numbers of the events; native-bindings/src/binding/link.rs. */
export const LinkEvent = {
  /** The handshake is done; the text is the peer's fingerprint. */
  secured: 0,
  /** So many bytes of the memory to fill are filled. */
  read: 1,
  /** What was to be written is with the kernel. */
  written: 2,
  /** The peer sends no more. */
  ended: 3,
  /** It is to be closed; the text says why. */
  failed: 4,
  /** The last one: nobody uses any memory any more. */
  closed: 5,
} as const

export interface NativeLink {
  /** Memory to fill, once more after each `read`. Until then, or `closed`, it is left alone. */
  read(memory: Buffer): void
  /**
   * Pieces to write, once more after each `written`; they are left alone likewise. True: they are with
   * the kernel already. `end`: nothing comes after them.
   */
  write(pieces: Buffer[], end: boolean): boolean
  /** Ends both directions, whatever is under way. Idempotent. */
  close(): void
  /** After `closed`: gives back its thread's stack, for which the garbage collector sees no reason. */
  join(): void
}

export type NativeLinkClass = new (
  options: NativeLinkOptions,
  onEvent: (event: number, bytes: number, text: string) => void,
) => NativeLink
