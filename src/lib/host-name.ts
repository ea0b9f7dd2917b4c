/** What this host is called, where it says so itself. */
import { hostname } from 'node:os'

/** By what name this host introduces itself. */
export function hostName(): string {
  const plain = hostname()
    .replaceAll(/[^A-Za-z0-9._-]+/g, '-')
    .replace(/^[^A-Za-z0-9]+/, '')
  return plain.slice(0, 64) || 'host'
}
