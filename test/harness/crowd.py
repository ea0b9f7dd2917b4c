"""crowd.py DIR PROCESSES ROUNDS: many processes in the same few directories; each checks its own."""

import mmap
import os
import sys

base, processes, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
SHARED = 4


def one(me):
    """Creates, writes, maps, renames, links and removes; True when all of it read back as written."""
    private = f"{base}/own-{me}"
    os.mkdir(private)
    log = os.open(f"{base}/log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for n in range(rounds):
        shared = f"{base}/shared-{(me + n) % SHARED}"
        text = f"{me}:{n}\n".encode() * (1 + (me * n) % 3000)
        new = f"{shared}/{me}-{n}.new"
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        os.write(fd, text)
        if n % 8 == 0:
            os.fsync(fd)
        if n % 5 == 0:
            with mmap.mmap(fd, len(text)) as m:
                m[0] = ord("#")
            text = b"#" + text[1:]
        if os.pread(fd, len(text) + 1, 0) != text:
            return False
        os.close(fd)
        os.rename(new, f"{shared}/{me}-{n}")
        os.link(f"{shared}/{me}-{n}", f"{private}/{n}")
        os.write(log, b"%d %d\n" % (me, n))
        # One name that everybody replaces, and reads whole.
        os.symlink(f"{me}-{n}", f"{private}/link")
        os.rename(f"{private}/link", f"{base}/newest")
        os.readlink(f"{base}/newest")
        if n % 3 == 0:
            os.unlink(f"{shared}/{me}-{n}")
        os.chmod(f"{private}/{n}", 0o600 | n % 64)
    kept = sum(open(f"{private}/{n}", "rb").read().strip(b"#\n") != b"" for n in range(rounds))
    return kept == rounds


for d in range(SHARED):
    os.mkdir(f"{base}/shared-{d}")
children = []
for me in range(processes):
    pid = os.fork()
    if pid == 0:
        os._exit(0 if one(me) else 1)
    children.append(pid)
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
lines = sorted(open(f"{base}/log").read().split("\n"))[1:]
whole = lines == sorted(f"{m} {n}" for m in range(processes) for n in range(rounds))
print("whole" if whole and not any(codes) else f"broken: {codes} {len(lines)}")
