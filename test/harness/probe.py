"""probe.py DIR: does what applications do in DIR, as root, and prints what came of it as JSON.

Run on a plain directory and on a volume: both must print the same.
"""

import ctypes
import errno
import fcntl
import json
import mmap
import os
import shutil
import signal
import stat
import struct
import subprocess
import sys
import time

NOBODY = 65534

def outcome(call, *args, **keywords):
    """What a call returns, or the name of its error."""
    try:
        result = call(*args, **keywords)
        return result if isinstance(result, (int, str, list, bool)) else "ok"
    except OSError as e:
        return errno.errorcode[e.errno]


def child(call):
    """Runs `call` in a process of its own; returns what it returned."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(r)
        try:
            os.write(w, json.dumps(call()).encode())
        except BaseException as e:  # noqa: BLE001: shown to the parent
            os.write(w, json.dumps(repr(e)).encode())
        os._exit(0)
    os.close(w)
    with os.fdopen(r, "rb") as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return json.loads(text)


def as_nobody(call, groups=()):
    def run():
        os.setgroups(list(groups))
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        return call()

    return child(run)


def put(name, content=b"content", mode=0o644):
    with open(name, "wb") as f:
        f.write(content)
    os.chmod(name, mode)


def write_at(name, content, at=0, flags=0):
    fd = os.open(name, os.O_WRONLY | flags)
    try:
        return os.pwrite(fd, content, at)
    finally:
        os.close(fd)


def mode(name):
    return oct(stat.S_IMODE(os.stat(name).st_mode))


def sh(command):
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    return [done.returncode, done.stdout]


def mapped():
    put("map", b"\0" * 40960)
    fd = os.open("map", os.O_RDWR)
    m = mmap.mmap(fd, 40960)
    r, w = os.pipe()

    def other():
        theirs = mmap.mmap(os.open("map", os.O_RDWR), 40960)
        for i in range(10):
            theirs[i * 4096] = i + 1
        os.write(w, b"x")
        while theirs[100] == 0:
            time.sleep(0.001)
        theirs.flush()
        return theirs[100]

    pid = os.fork()
    if pid == 0:
        os._exit(other())
    os.read(r, 1)
    seen = [m[i * 4096] for i in range(10)]
    m[100] = 77
    answer = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    by_read = list(os.pread(fd, 40960, 0)[::4096])
    write_at("map", b"by write", 8192)
    by_map = m[8192:8200].decode()
    os.ftruncate(fd, 4096)
    pid = os.fork()
    if pid == 0:
        m[20000]  # beyond the end
        os._exit(0)
    return [seen, answer, by_read, by_map, os.WTERMSIG(os.waitpid(pid, 0)[1])]


def inotify():
    libc = ctypes.CDLL(None, use_errno=True)
    os.mkdir("watched")
    watch = libc.inotify_init1(os.O_NONBLOCK)
    libc.inotify_add_watch(watch, b"watched", 0xFFF)
    sh("cd watched; echo a >a; echo b >>a; cat a; chmod 600 a; mv a b; ln b c; rm b; mkdir d; rmdir d")
    events, raw, at = [], os.read(watch, 65536), 0
    while at < len(raw):
        _, mask, _, size = struct.unpack_from("iIII", raw, at)
        events.append([hex(mask), raw[at + 16 : at + 16 + size].rstrip(b"\0").decode()])
        at += 16 + size
    return events


def locks():
    put("lock")
    mine = os.open("lock", os.O_RDWR)
    seen = []

    def try_flock():
        return outcome(fcntl.flock, os.open("lock", os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)

    def try_posix():
        fd = os.open("lock", os.O_RDWR)
        query = struct.pack("hhqqi", fcntl.F_WRLCK, 0, 0, 10, 0)
        holder = struct.unpack("hhqqi", fcntl.fcntl(fd, fcntl.F_GETLK, query))
        return [
            outcome(fcntl.lockf, fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5),
            outcome(fcntl.lockf, fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 500),
            holder[0],
            holder[4] == os.getppid(),
        ]

    fcntl.flock(mine, fcntl.LOCK_EX)
    seen.append(child(try_flock))
    fcntl.flock(mine, fcntl.LOCK_UN)
    seen.append(child(try_flock))
    fcntl.lockf(mine, fcntl.LOCK_EX, 10, 0)
    seen.append(child(try_posix))
    os.close(os.open("lock", os.O_RDONLY))  # drops all of this process's POSIX locks
    seen.append(child(try_posix))
    ofd = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)
    fcntl.fcntl(mine, 37, ofd)  # F_OFD_SETLK
    other = os.open("lock", os.O_RDWR)
    seen.append(outcome(fcntl.fcntl, other, 37, ofd))
    os.close(mine)
    seen.append(outcome(fcntl.fcntl, other, 37, ofd))
    # A wait for a lock ends when the holder's process does.
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        fcntl.flock(os.open("lock", os.O_RDWR), fcntl.LOCK_EX)
        os.write(tell, b"x")
        time.sleep(0.2)
        os._exit(0)
    os.read(ready, 1)
    fcntl.flock(other, fcntl.LOCK_EX)
    os.waitpid(pid, 0)
    return seen


def interrupted():
    put("wait")
    holder = os.open("wait", os.O_RDWR)
    fcntl.flock(holder, fcntl.LOCK_EX)

    def wait():
        def raise_(*_):
            raise InterruptedError(errno.EINTR, "signal")

        signal.signal(signal.SIGALRM, raise_)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        return outcome(fcntl.flock, os.open("wait", os.O_RDWR), fcntl.LOCK_EX)

    seen = [child(wait)]
    # A timer fires all the time: nothing is lost, nothing is done twice.
    count = 0

    def busy():
        def tick(*_):
            nonlocal count
            count += 1

        signal.signal(signal.SIGALRM, tick)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        fd = os.open("ticked", os.O_RDWR | os.O_CREAT | os.O_APPEND)
        for i in range(2000):
            os.write(fd, b"%07d\n" % i)
            if i % 100 == 0:
                os.fsync(fd)
                os.mkdir("tick")
                os.rename("tick", "tock")
                os.rmdir("tock")
        signal.setitimer(signal.ITIMER_REAL, 0)
        text = os.pread(fd, 100_000, 0)
        return [count > 0, text == b"".join(b"%07d\n" % i for i in range(2000))]

    seen.append(child(busy))
    # Stopped and continued, then killed in the middle of it.
    pid = os.fork()
    if pid == 0:
        fd = os.open("stopped", os.O_RDWR | os.O_CREAT)
        block = b"x" * (1 << 20)
        while True:
            os.pwrite(fd, block, 0)
    for _ in range(5):
        time.sleep(0.02)
        os.kill(pid, signal.SIGSTOP)
        os.listdir(".")
        put("while-stopped")
        os.kill(pid, signal.SIGCONT)
    os.kill(pid, signal.SIGKILL)
    seen.append(os.WTERMSIG(os.waitpid(pid, 0)[1]))
    seen.append(set(open("stopped", "rb").read()) == {ord("x")})
    return seen


def direct():
    fd = os.open("direct", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    page = mmap.mmap(-1, 8192)
    page.write(b"direct".ljust(8192, b"."))
    seen = [os.pwrite(fd, page, 4096), os.fstat(fd).st_size]
    back = mmap.mmap(-1, 4096)
    seen += [os.preadv(fd, [back], 4096), back[:8].decode()]
    write_at("direct", b"cached", 4096)
    seen += [os.preadv(fd, [back], 4096), back[:8].decode()]
    os.pwrite(fd, page, 4096)
    cached = os.open("direct", os.O_RDONLY)
    return seen + [os.pread(cached, 8, 4096).decode(), os.preadv(fd, [back], 1 << 20)]


def link_open(fd, name):
    """linkat(2) of an open file; Python follows the link only when it is given a directory."""
    here = os.open(".", os.O_RDONLY)
    try:
        os.link(f"/proc/self/fd/{fd}", name, src_dir_fd=here, follow_symlinks=True)
    finally:
        os.close(here)


def nameless():
    fd = os.open("nameless", os.O_RDWR | os.O_CREAT)
    os.unlink("nameless")
    seen = [os.write(fd, b"still here"), os.fstat(fd).st_nlink, os.pread(fd, 99, 6).decode()]
    os.ftruncate(fd, 3)
    os.fchmod(fd, 0o600)
    seen += [os.fstat(fd).st_size, outcome(link_open, fd, "again")]
    seen.append(open(f"/proc/self/fd/{fd}").read())
    temporary = os.open(".", os.O_RDWR | os.O_TMPFILE, 0o640)
    os.write(temporary, b"made whole")
    link_open(temporary, "named")
    seen += [open("named").read(), os.fstat(temporary).st_nlink]
    os.mkdir("gone")
    here = os.open(".", os.O_RDONLY)
    os.chdir("gone")
    os.rmdir("../gone")
    seen += [outcome(os.getcwd), outcome(put, "new"), os.listdir("."), outcome(os.mkdir, "x")]
    os.fchdir(here)
    return seen


def programs():
    seen = [outcome(shutil.copy, "/bin/sleep", "sleep")]
    running = subprocess.Popen(["./sleep", "30"])
    # Its start ends with the exec: from then on it is busy.
    seen += [outcome(os.open, "sleep", os.O_WRONLY), outcome(os.truncate, "sleep", 0)]
    seen.append(outcome(os.rename, "sleep", "renamed"))
    running.kill()
    running.wait()
    seen.append(outcome(write_at, "renamed", b"x"))
    shutil.copy("/bin/true", "true")
    held = os.open("true", os.O_WRONLY)
    seen.append(outcome(subprocess.call, ["./true"]))
    os.close(held)
    seen.append(outcome(subprocess.call, ["./true"]))
    put("script", b"#!/bin/sh\necho from $0 $1\n", 0o755)
    seen.append(sh("./script argument"))
    os.chmod("script", 0o644)
    return seen + [outcome(subprocess.call, ["./script"])]


def sealed():
    put("immutable")
    put("appending")
    os.mkdir("closed")
    put("closed/file")
    sh("chattr +i immutable closed; chattr +a appending")
    seen = [
        outcome(write_at, "immutable", b"x"),
        outcome(os.unlink, "immutable"),
        outcome(os.rename, "immutable", "other"),
        outcome(os.link, "immutable", "other"),
        outcome(os.chmod, "immutable", 0o600),
        outcome(os.truncate, "immutable", 0),
        outcome(os.utime, "immutable"),
        outcome(os.setxattr, "immutable", "user.x", b"x"),
        outcome(os.unlink, "closed/file"),
        outcome(put, "closed/new"),
        outcome(write_at, "closed/file", b"may be written"),
        outcome(write_at, "appending", b"x"),
        outcome(write_at, "appending", b"more", 0, os.O_APPEND),
        outcome(os.truncate, "appending", 0),
        outcome(os.unlink, "appending"),
        sh("lsattr -d immutable appending closed | cut -d ' ' -f 1 | tr -d e-"),
    ]
    sh("chattr -i immutable closed; chattr -a appending")
    return seen + [outcome(write_at, "immutable", b"x"), open("appending").read()]


def privileges():
    shutil.copy("/usr/bin/id", "id")
    os.chmod("id", 0o4755)
    seen = [as_nobody(lambda: sh("./id -u"))]
    for name, bits in (("uid", 0o4777), ("gid", 0o2777), ("both", 0o6777), ("lock", 0o2767)):
        put(name, mode=bits)
        as_nobody(lambda: write_at(name, b"x"))  # noqa: B023: runs at once
        seen.append(mode(name))
        put(name, mode=bits)
        as_nobody(lambda: os.truncate(name, 2))  # noqa: B023: runs at once
        seen.append(mode(name))
        put(name, mode=bits)
        os.chown(name, 5, 5)
        seen.append(mode(name))
        put(name, mode=bits)
        write_at(name, b"root keeps them")
        seen.append(mode(name))
    put("secret", b"for root only", 0o600)
    shutil.copy("/bin/cat", "cat")
    seen.append(as_nobody(lambda: sh("./cat secret 2>&1")))
    seen.append(sh("setcap cap_dac_read_search+ep cat && getcap cat"))
    seen.append(as_nobody(lambda: sh("./cat secret")))
    write_at("cat", b"\x7f")
    return seen + [sh("getcap cat"), as_nobody(lambda: sh("./cat secret 2>&1"))]


def permissions():
    put("private", b"private", 0o600)
    seen = [as_nobody(lambda: outcome(os.open, "private", os.O_RDONLY))]
    sh(f"setfacl -m u:{NOBODY}:rw private")
    seen.append(as_nobody(lambda: [outcome(write_at, "private", b"P"), open("private").read()]))
    sh("setfacl -m m::r private")
    seen.append(as_nobody(lambda: outcome(os.open, "private", os.O_RDWR)))
    os.chmod("private", 0o660)
    seen.append(sh("getfacl -cn private"))
    os.mkdir("shared")
    sh(f"chmod 2775 shared; chgrp 4242 shared; setfacl -d -m u:{NOBODY}:rwx,o::- shared")

    def inside():
        os.umask(0o077)
        put_plain("shared/file")
        os.mkdir("shared/dir")
        s = os.stat("shared/file")
        return [mode("shared/file"), mode("shared/dir"), s.st_uid, s.st_gid]

    def put_plain(name):
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT, 0o666))

    seen.append(as_nobody(lambda: outcome(put_plain, "shared/file")))
    seen.append(as_nobody(inside, groups=[4242]))
    seen.append(sh("getfacl -cn shared/file shared/dir"))
    os.mkdir("sticky")
    os.chmod("sticky", 0o1777)
    put("sticky/of-root")
    seen.append(as_nobody(lambda: outcome(os.unlink, "sticky/of-root")))
    seen.append(as_nobody(lambda: [outcome(put_plain, "sticky/own"), outcome(os.unlink, "sticky/own")]))
    seen.append(as_nobody(lambda: outcome(os.chown, "sticky/of-root", 1, 1)))
    seen.append(as_nobody(lambda: outcome(os.mknod, "sticky/null", stat.S_IFCHR | 0o666, 259)))
    return seen + [as_nobody(lambda: outcome(os.utime, "sticky/of-root"))]


def channels():
    os.mkfifo("fifo")
    pid = os.fork()
    if pid == 0:
        with open("fifo", "wb") as f:
            f.write(b"through the queue")
        os._exit(0)
    seen = [open("fifo").read()]
    os.waitpid(pid, 0)
    os.mknod("null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    seen += [outcome(put, "null"), open("null").read()]
    put("from", bytes(range(256)) * 1024)
    source, target = os.open("from", os.O_RDONLY), os.open("to", os.O_RDWR | os.O_CREAT)
    seen.append(os.copy_file_range(source, target, 100_000, 5))
    seen.append(os.sendfile(target, source, 5, 100_000))
    os.truncate("to", 1 << 20)
    os.posix_fallocate(target, 900_000, 5000)
    os.pwrite(target, b"end", 800_000)
    seen += [os.lseek(target, 0, os.SEEK_HOLE) > 0, os.lseek(target, 400_000, os.SEEK_DATA) <= 800_000]
    return seen + [os.stat("to").st_size, os.pread(target, 6, 100_000).hex()]


def names():
    seen = [outcome(put, "n" * 255), outcome(put, "n" * 256), outcome(put, b"\xff\xfe\x01 \n")]
    os.symlink("loop", "loop")
    seen += [outcome(os.stat, "loop"), outcome(os.mkdir, "loop"), outcome(os.rmdir, "loop")]
    os.mkdir("crowd")
    for i in range(3000):
        os.close(os.open(f"crowd/{i}", os.O_CREAT))
    listed = 0
    for entry in os.scandir("crowd"):  # removes what it lists
        os.unlink(entry.path)
        listed += 1
    seen += [listed, outcome(os.rmdir, "crowd")]
    return seen + [sorted(os.listdir(b"."))[-1].hex(), outcome(os.rename, "n" * 255, "loop/x")]


def main():
    os.umask(0o022)
    os.chdir(sys.argv[1])
    for probe in (mapped, inotify, locks, interrupted, direct, nameless, programs, sealed,
                  privileges, permissions, channels, names):  # fmt: skip
        os.mkdir(probe.__name__)
        os.chdir(probe.__name__)
        print(json.dumps({probe.__name__: probe()}))
        os.chdir("..")


main()
