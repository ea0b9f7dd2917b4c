/**
 * Locks that are never stale: abstract Unix sockets, unix(7). The kernel frees the name when its
 * holder dies, however it dies. Abstract names belong to a network namespace.
 */
import { createHash } from 'node:crypto'
import { createServer, type Server } from 'node:net'

/** Takes the lock on `what` among those of its `kind`; rejects while somebody else has it. */
export function takeLock(kind: string, what: string): Promise<Server> {
  const hash = createHash('sha256').update(what).digest('hex').slice(0, 32)
  const server = createServer((connection) => connection.destroy())
  server.unref()
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(`\0holdfast-${kind}-${hash}`, () => resolve(server))
  })
}
