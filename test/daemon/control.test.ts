import { statSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import t from 'tap'
import { ControlClient } from '../../src/daemon/client.js'
import { Home } from '../fixture.js'

function call(home: Home, method: string, path: string, body?: string) {
  const socketPath = join(home.runDirectory, 'data.sock')
  return new Promise<{ status: number; body: string }>((resolve, reject) => {
    const headers = { 'content-type': 'application/json' }
    const sent = request({ socketPath, method, path, headers }, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (part) => {
        text += part
      })
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body: text }))
    })
    sent.on('error', reject).end(body)
  })
}

t.test('control: everything the socket offers', async (t) => {
  const home = new Home(t)
  await home.mount()
  const client = new ControlClient('data')
  const mode = statSync(join(home.runDirectory, 'data.sock')).mode & 0o777
  t.equal(mode, 0o600)

  writeFileSync(join(home.data, 'file'), 'x')
  const { seq } = await client.flush()
  t.ok(seq >= 2)
  t.ok((await client.status()).journaled.seq >= seq)
  const marker = await client.marker('before upgrade')
  t.ok(marker.seq > seq)
  await client.flush()
  t.match(await home.ok('journal', 'tail', 'data', '-n', '1'), /marker +before upgrade/)

  const checkpoint = await client.checkpoint()
  t.ok(checkpoint.seq >= marker.seq)
  const held = await client.hold(1000)
  t.ok(held.seq >= marker.seq)
  t.equal((await client.status()).held, true)
  await t.rejects(client.hold(1000), { code: 'HOLD_TIMEOUT' }, 'it is held already')
  await t.rejects(client.release(held.hold - 1), { code: 'HOLD_EXPIRED' }, 'by somebody else')
  t.equal((await client.status()).held, true)
  t.ok((await client.release(held.hold)).heldNs > 0)
  await t.rejects(client.release(held.hold), { code: 'HOLD_EXPIRED' })

  t.match(await client.metrics(), /holdfast_captured_seq\{volume="data"\} \d+/)
  t.match(await client.setRetention({ maxBytes: 1 << 20, maxAgeMs: null }), { maxBytes: 1 << 20 })
  t.equal((await client.status()).journal.retainBytes, 1 << 20)
  const pruned = await client.prune({ toSeq: seq })
  t.ok(pruned.horizon >= 0)
  t.match(await client.recapture('test'), { objects: Number, errors: 0 })
  await client.stop()
  await t.rejects(client.status(), { code: 'VOLUME_NOT_RUNNING' })
})

t.test('control: refuses what it does not know, with code and hint', async (t) => {
  const home = new Home(t)
  await home.mount()
  const bad = await call(home, 'POST', '/v1/hold', '{"maxMs": 99999999}')
  t.equal(bad.status, 400)
  t.match(JSON.parse(bad.body), { code: 'USAGE', op: 'control.hold', message: /maxMs/ })
  const extra = await call(home, 'POST', '/v1/stop', '{"farce": true}')
  t.match(JSON.parse(extra.body), { code: 'USAGE', message: /farce/ })
  const broken = await call(home, 'POST', '/v1/stop', '{')
  t.equal(broken.status, 400)
  t.match(JSON.parse(broken.body), { code: 'USAGE' })
  const unknown = await call(home, 'GET', '/v2/status')
  t.equal(unknown.status, 404)
  t.match(JSON.parse(unknown.body), { code: 'NOT_FOUND', hint: /CONTROL\.md/ })
  t.ok(home.isMounted())
  await home.unmount()
})
