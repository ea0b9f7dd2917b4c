/** Questions to daemons by their control sockets: no program in between, so they can be asked often. */
import { request } from 'node:http'

/** A request to whoever listens on a control socket; without a body it only looks. */
export async function callSocket<Reply>(
  socketPath: string,
  path: string,
  body?: unknown,
): Promise<Reply> {
  const headers = body === undefined ? {} : { 'content-type': 'application/json' }
  const method = body === undefined ? 'GET' : 'POST'
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath, path, method, headers }, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (piece: string) => {
        text += piece
      })
      response.on('end', () => {
        if (response.statusCode === 200) resolve(JSON.parse(text) as Reply)
        else reject(new Error(text))
      })
    })
    asked.on('error', reject)
    asked.end(body === undefined ? undefined : JSON.stringify(body))
  })
}
