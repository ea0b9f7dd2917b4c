/**
 * Where the frames of all replicas of a process lie while they pass through its main thread: one pool
 * for those that go out, one for those that come in.
 */
import { BufferPool } from '../lib/buffer-pool.js'
import { RECEIVE_MEMORY_BYTES_MAX, SEND_MEMORY_BYTES_MAX } from '../lib/limits.js'

/** A connection gives it back when the stream has taken it. */
export const sendMemory = new BufferPool({ bytesMax: SEND_MEMORY_BYTES_MAX })
/** A replica's log gives it back when the frame is stored. */
export const receiveMemory = new BufferPool({ bytesMax: RECEIVE_MEMORY_BYTES_MAX })
