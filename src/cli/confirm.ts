/** Questions to whoever sits at a terminal. */
import { createInterface } from 'node:readline/promises'

/** Somebody can be asked. */
export function asks(): boolean {
  return process.stdin.isTTY === true && process.stderr.isTTY === true
}

export async function goOn(): Promise<boolean> {
  const terminal = createInterface({ input: process.stdin, output: process.stderr })
  const answer = await terminal.question('Go on? [y/N] ').finally(() => terminal.close())
  return /^y(es)?$/i.test(answer.trim())
}
