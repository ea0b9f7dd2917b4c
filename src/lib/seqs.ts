/** Positions are bigints, which Math.min and Math.max do not take. */

export function lower(a: bigint, b: bigint): bigint {
  return a < b ? a : b
}

export function higher(a: bigint, b: bigint): bigint {
  return a > b ? a : b
}
