/** uid → user name, from /etc/passwd alone: a name service may live on the volume being looked at. */
import { readFileSync } from 'node:fs'

let names: Map<number, string> | undefined

export function userName(uid: number): string {
  names ??= readNames()
  return names.get(uid) ?? `${uid}`
}

function readNames(): Map<number, string> {
  const found = new Map<number, string>()
  try {
    for (const line of readFileSync('/etc/passwd', 'utf8').split('\n')) {
      const [name, , uid] = line.split(':')
      if (name !== undefined && uid !== undefined && !found.has(Number(uid))) {
        found.set(Number(uid), name)
      }
    }
  } catch {
    // Numbers will do.
  }
  return found
}
