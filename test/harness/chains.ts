/** What counts through directories (`chain.py`), and what no instant can have shown of it. */

/** Whether no instant can have shown these numbers of process `k`, given by directory. */
export function isBroken(values: readonly bigint[], k: number): boolean {
  const inOrder = ordered(values, k)
  const grows = inOrder.some((value, n) => n > 0 && value > (inOrder[n - 1] ?? 0n))
  return grows || (inOrder[0] ?? 0n) > (inOrder.at(-1) ?? 0n) + 1n
}

/** As process `k` goes through them. */
function ordered<Value>(values: readonly Value[], k: number): Value[] {
  const turn = Math.floor(k / 2) % values.length
  const turned = [...values.slice(turn), ...values.slice(0, turn)]
  return k % 2 === 0 ? turned : turned.reverse()
}
