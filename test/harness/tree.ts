/** A small tree with everything that archivers get wrong. */
import { bash } from './run.js'

const SCRIPT = `
  mkdir -p deep/a/b/c empty many 'with space' $'byte-\\377-name'
  for i in $(seq 1 300); do printf '%s\\n' "$i" >many/file-$i; done
  head -c 3000000 /dev/urandom >deep/a/big
  head -c 70000 /dev/urandom >deep/a/b/c/odd-length
  : >zero
  # Data, hole, data, hole.
  truncate -s 40M sparse
  head -c 65536 /dev/urandom | dd of=sparse bs=64K seek=10 conv=notrunc status=none
  head -c 65536 /dev/urandom | dd of=sparse bs=64K seek=400 conv=notrunc status=none
  truncate -s 100M all-hole
  ln deep/a/big deep/hard-1
  ln deep/a/big many/hard-2
  ln -s ../nowhere deep/dangling
  ln -s big deep/a/to-big
  ln -s "$(head -c 1000 /dev/zero | tr '\\0' x)" long-link
  mkfifo -m 0640 fifo
  mknod -m 0600 char c 1 3
  mknod -m 0660 block b 7 200
  mknod -m 0644 plain-node p
  python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'; touch -d "2002-02-02Z" socket
  chmod 6755 many/file-1; chmod 0000 many/file-2; chmod 1777 empty
  chown 1234:2345 many/file-3 deep/a; chown -h 77:88 deep/dangling
  setfattr -n user.plain -v value many/file-4
  setfattr -n user.binary -v 0x00ff0001 deep/a/b
  setfattr -n user.large -v "$(head -c 3000 /dev/zero | tr '\\0' v)" many/file-5
  setfattr -n trusted.mine -v secret many/file-6
  setfacl -m u:1234:rw,g:2345:r,m::rw many/file-7
  setfacl -d -m u:1234:rwx,g::r-x,o::--- deep/a/b
  setcap cap_net_raw+ep many/file-8
  touch -d '1969-07-20 20:17:40.123456789Z' many/file-9
  touch -h -d '2038-01-20 03:14:08.5Z' deep/a/to-big
  touch -d '2001-09-09 01:46:40Z' deep/a/b deep/a deep many .
`

/** Makes the tree in an existing directory; as root. */
export async function makeTree(dir: string): Promise<void> {
  await bash(SCRIPT, { cwd: dir })
}
