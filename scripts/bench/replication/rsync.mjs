// rsync over the same veth: the daemon without encryption, and over ssh, which encrypts as
// holdfast's link does.

import { mkdir, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { run, sleep } from '../proc.mjs'

const PORT = 873
const SSH_PORT = 2222

/**
 * @typedef {object} Rsync
 * @property {(from: string, name: string) => Promise<void>} daemon copies a tree into the module's
 *   directory `name`
 * @property {(from: string, name: string) => Promise<void>} checksum the same, comparing all data
 * @property {(from: string, name: string) => Promise<void>} ssh as `daemon`, over ssh
 * @property {string} root where the copies are
 */

/**
 * @param {{ primary: import('./hosts.mjs').Host, replica: import('./hosts.mjs').Host }} hosts
 * @returns {Promise<Rsync>}
 */
export async function startRsync({ primary, replica }) {
  const root = path.join(replica.root, 'rsync')
  await mkdir(root)
  const config = path.join(replica.work, 'rsyncd.conf')
  const lines = ['use chroot = no', 'uid = root', 'gid = root', '[copies]', `path = ${root}`]
  await writeFile(config, `${lines.join('\n')}\nread only = no\nnumeric ids = yes\n`)
  replica.start('rsync', 'rsync', [
    ...['--daemon', '--no-detach', `--config=${config}`],
    ...[`--port=${PORT}`, `--address=${replica.address}`],
  ])
  const key = await startSsh(replica)
  await sleep(500)
  const shell =
    `ssh -i ${key} -p ${SSH_PORT} -o BatchMode=yes -o StrictHostKeyChecking=no ` +
    '-o UserKnownHostsFile=/dev/null -o LogLevel=ERROR'
  return {
    root,
    daemon: async (from, name) => {
      await primary.run('rsync', ['-aHAX', `${from}/`, `${replica.address}::copies/${name}/`])
    },
    checksum: async (from, name) => {
      const to = `${replica.address}::copies/${name}/`
      await primary.run('rsync', ['-aHAX', '--checksum', `${from}/`, to])
    },
    ssh: async (from, name) => {
      const to = `root@${replica.address}:${root}/${name}/`
      await primary.run('rsync', ['-aHAX', '-e', shell, `${from}/`, to])
    },
  }
}

/** An sshd of our own on the replica's host; returns the key that it lets in. */
async function startSsh(replica) {
  const at = (name) => path.join(replica.work, name)
  for (const name of ['hostkey', 'key']) {
    await run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', at(name)])
  }
  await mkdir('/run/sshd', { recursive: true })
  const options = [
    `Port=${SSH_PORT}`,
    `ListenAddress=${replica.address}`,
    `HostKey=${at('hostkey')}`,
    `AuthorizedKeysFile=${at('key.pub')}`,
    'PermitRootLogin=prohibit-password',
    'StrictModes=no',
    'PidFile=none',
    'UsePAM=no',
  ]
  replica.start('sshd', '/usr/sbin/sshd', [
    ...['-D', '-e', '-f', '/dev/null'],
    ...options.flatMap((option) => ['-o', option]),
  ])
  return at('key')
}
