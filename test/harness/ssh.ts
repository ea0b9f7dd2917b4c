/**
 * A real sshd on a host of the tests: its own configuration, host key and authorized key, all in the
 * sandbox; and a configuration file with which ssh reaches it.
 */
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { appendFileSync, chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { until } from './faults.js'
import { HOLDFAST } from './files.js'
import type { Host } from './hosts.js'
import { attempt, run, start } from './run.js'
import type { Sandbox } from './sandbox.js'

const PORT = 2222
/** sshd insists on it, whatever its configuration says. */
const PRIVSEP = '/run/sshd'

export class Sshd {
  readonly #host: Host
  readonly #dir: string
  #server: ChildProcess | undefined
  log = ''

  private constructor(host: Host, dir: string) {
    this.#host = host
    this.#dir = dir
  }

  /** Keys and configuration; then starts it. */
  static async start(sandbox: Sandbox, host: Host): Promise<Sshd> {
    const dir = join(sandbox.root, `ssh-${host.name}`)
    const bin = join(dir, 'bin')
    mkdirSync(bin, { recursive: true })
    mkdirSync(PRIVSEP, { recursive: true, mode: 0o755 })
    const sshd = new Sshd(host, dir)
    for (const key of ['host', 'client', 'stranger']) {
      await run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', sshd.at(key)])
    }
    writeFileSync(sshd.at('authorized_keys'), readFileSync(sshd.at('client.pub')), { mode: 0o600 })
    sshd.program('holdfast', `exec ${process.execPath} ${HOLDFAST} "$@"`)
    const env = { ...host.env, HOLDFAST_TEST_ROOT: sandbox.root, PATH: `${bin}:/usr/bin:/bin` }
    writeFileSync(
      sshd.at('sshd_config'),
      [
        `Port ${PORT}`,
        `ListenAddress ${host.address}`,
        `HostKey ${sshd.at('host')}`,
        `AuthorizedKeysFile ${sshd.at('authorized_keys')}`,
        'PidFile none',
        'UsePAM no',
        'StrictModes no',
        'PasswordAuthentication no',
        'PermitRootLogin yes',
        'MaxStartups 100',
        `SetEnv ${Object.entries(env)
          .map(([name, value]) => `${name}=${value}`)
          .join(' ')}`,
        '',
      ].join('\n'),
    )
    for (const [config, known, key] of [
      ['config', 'known_hosts', 'client'],
      ['config-unknown', 'no_known_hosts', 'client'],
      ['config-stranger', 'known_hosts', 'stranger'],
    ] as const) {
      writeFileSync(
        sshd.at(config),
        [
          'Host *',
          `  Port ${PORT}`,
          '  User root',
          `  IdentityFile ${sshd.at(key)}`,
          '  IdentitiesOnly yes',
          `  UserKnownHostsFile ${sshd.at(known)}`,
          '  GlobalKnownHostsFile /dev/null',
          '  StrictHostKeyChecking yes',
          '',
        ].join('\n'),
      )
    }
    const key = readFileSync(sshd.at('host.pub'), 'utf8').trim()
    writeFileSync(sshd.at('known_hosts'), `[${host.address}]:${PORT} ${key}\n`)
    await sshd.listen()
    return sshd
  }

  at(name: string): string {
    return join(this.#dir, name)
  }

  /** Puts a program where the host's shell finds it. */
  program(name: string, script: string): void {
    const path = join(this.#dir, 'bin', name)
    writeFileSync(path, `#!/bin/bash\n${script}\n`)
    chmodSync(path, 0o755)
  }

  /** What may log in besides. */
  authorize(line: string): void {
    appendFileSync(this.at('authorized_keys'), `${line}\n`)
  }

  async listen(): Promise<void> {
    const args = ['-D', '-e', '-f', this.at('sshd_config')]
    const server = start('nsenter', [...this.#host.inside, '/usr/sbin/sshd', ...args])
    this.#server = server
    server.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.log += text
    })
    const before = this.log.length
    await until(() => this.log.slice(before).includes('Server listening'), 'sshd to listen')
  }

  /** Ends the server; connections go on. */
  async stop(): Promise<void> {
    const server = this.#server
    if (server === undefined || server.exitCode !== null) return
    const closed = once(server, 'close')
    server.kill('SIGTERM')
    await closed
  }

  /** Processes that ssh has started on this host. */
  async ends(): Promise<number[]> {
    const { stdout } = await attempt('pgrep', ['-f', 'main.js replica serve --stdio'])
    const pids = stdout
      .split('\n')
      .filter((line) => line !== '')
      .map(Number)
    return pids.filter((pid) => {
      try {
        const environment = readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0')
        return environment.includes(`HOLDFAST_RUN_DIR=${this.#host.env.HOLDFAST_RUN_DIR}`)
      } catch {
        return false
      }
    })
  }
}
