import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { CLI, Home, until } from '../fixture.js'

/** Node has no datagram Unix sockets: Python is the service manager here. */
const LISTENER = `
import os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
while True:
    print(s.recv(4096).decode().replace("\\n", " "), flush=True)
`

t.test('foreground: tells the service manager, logs JSON lines, stops at SIGTERM', async (t) => {
  const home = new Home(t)
  const socket = join(home.path, 'notify')
  const listener = spawn('python3', ['-c', LISTENER, socket])
  t.teardown(() => listener.kill('SIGKILL'))
  let told = ''
  listener.stdout.setEncoding('utf8').on('data', (text: string) => {
    told += text
  })
  await until(() => existsSync(socket), 'the listener')
  const daemon = spawn(process.execPath, [CLI, 'mount', home.data, '--foreground'], {
    env: { ...process.env, NOTIFY_SOCKET: socket },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let log = ''
  daemon.stderr.setEncoding('utf8').on('data', (text: string) => {
    log += text
  })
  const ended = once(daemon, 'exit')
  await until(() => told.includes('READY=1'), 'READY=1')
  t.ok(home.isMounted())
  t.equal((await home.status()).state, 'protected')
  daemon.kill('SIGTERM')
  const [code] = await ended
  t.equal(code, 0)
  t.notOk(home.isMounted())
  await until(() => told.includes('STOPPING=1'), 'STOPPING=1')
  const lines = log
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  t.match(
    lines.map(({ msg }) => msg),
    ['volume opened', 'protected', 'asked to stop', 'stopped in order'],
  )
})

t.test('foreground: a refusal ends it with the exit code and the error', async (t) => {
  const home = new Home(t)
  const { code, stderr } = await home.holdfast('mount', join(home.path, 'none'), '--foreground')
  t.equal(code, 4)
  t.match(stderr, /does not exist \[NOT_A_DIRECTORY\]/)
})
