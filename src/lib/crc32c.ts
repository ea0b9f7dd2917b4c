/**
 * CRC-32C (Castagnoli) of frames and records. The one file that imports `@node-rs/crc32`: an
 * implementation other than the data plane's, so that each checks the other.
 */
import { crc32c as nodeRsCrc32c } from '@node-rs/crc32'

/** CRC-32C of `bytes`, continued from `seed` (0 to start). */
export function crc32c(bytes: Uint8Array, seed = 0): number {
  return nodeRsCrc32c(bytes, seed)
}
