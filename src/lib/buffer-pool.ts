/**
 * Memory for what only passes through, used again and again. Each frame in memory of its own would
 * cost page faults, and collections of the whole heap, since the engine counts what is allocated.
 *
 * Invariant: memory that was given is nobody's any more; it is kept up to `bytesMax`. What is kept follows
 * what is taken: memory of other sizes makes room, so that what passes now finds its own again.
 */

/** Half of this is worth it; larger ones have it doubled as often as it takes: 1 MiB and a header fit. */
const ROOM_BYTES_MIN = 132 * 1024

function roomFor(bytes: number): number {
  let room = ROOM_BYTES_MIN
  while (room < bytes) room *= 2
  return room
}

export class BufferPool {
  readonly #bytesMax: number
  readonly #free = new Map<number, ArrayBuffer[]>()
  #freeBytes = 0

  constructor({ bytesMax }: { bytesMax: number }) {
    this.#bytesMax = bytesMax
  }

  /** Of exactly this length; what is in it is undefined. */
  take(bytes: number): Buffer<ArrayBuffer> {
    if (bytes < ROOM_BYTES_MIN / 2) return Buffer.allocUnsafeSlow(bytes)
    const room = roomFor(bytes)
    const memory = this.#pop(room) ?? this.#pop(2 * room) ?? Buffer.allocUnsafeSlow(room).buffer
    return Buffer.from(memory, 0, bytes)
  }

  #pop(room: number): ArrayBuffer | undefined {
    const memory = this.#free.get(room)?.pop()
    if (memory !== undefined) this.#freeBytes -= room
    return memory
  }

  copy(bytes: Buffer): Buffer<ArrayBuffer> {
    const copy = this.take(bytes.length)
    bytes.copy(copy)
    return copy
  }

  /** It is not used any more by whoever has taken it. What no pool has made is left alone. */
  give(...memory: ArrayBuffer[]): void {
    for (const each of memory) this.#give(each)
  }

  #give(memory: ArrayBuffer): void {
    const room = memory.byteLength
    if (room < ROOM_BYTES_MIN || room > this.#bytesMax || roomFor(room) !== room) return
    this.#makeRoom(room)
    if (this.#freeBytes + room > this.#bytesMax) return
    this.#freeBytes += room
    const alike = this.#free.get(room)
    if (alike === undefined) this.#free.set(room, [memory])
    else alike.push(memory)
  }

  /** What has other sizes goes first. */
  #makeRoom(room: number): void {
    for (const each of this.#free.keys()) {
      while (each !== room && this.#freeBytes + room > this.#bytesMax) {
        if (this.#pop(each) === undefined) break
      }
    }
  }
}
