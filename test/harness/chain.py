"""Counts through files in several directories until it is killed: n into the first, and when that is
acknowledged, n into the next, and so on, then n + 1. What is seen of all at one instant never grows from
one to the next, and differs by one at most; also when it was killed and goes on from what it finds.

usage: chain.py N DIRECTORY...: N processes; each goes through the directories in an order of its own, two
take each rotation, the second of them reversed. Says `counting` when all are at it, and `stall DIRECTORY MS` of a
write that took long."""

import os
import struct
import sys
import time

# Between two rounds; longer where what they are there for needs the CPUs more than they do.
PAUSE_S = float(os.environ.get("HOLDFAST_CHAIN_PAUSE_S", 0.001))
STALL_S = 0.2

count, directories = int(sys.argv[1]), sys.argv[2:]


def order(k):
    turn = k // 2 % len(directories)
    turned = directories[turn:] + directories[:turn]
    return turned if k % 2 == 0 else list(reversed(turned))


def read(fd):
    found = os.pread(fd, 8, 0)
    return struct.unpack("<Q", found)[0] if found else 0


def work(k):
    paths = [os.path.join(directory, f"chain-{k}") for directory in order(k)]
    files = [os.open(path, os.O_RDWR | os.O_CREAT, 0o644) for path in paths]
    first = n = max(0, *(read(fd) - 1 for fd in files))
    while True:
        n += 1
        for fd, path in zip(files, paths):
            begun = time.monotonic()
            os.pwrite(fd, struct.pack("<Q", n), 0)
            took = time.monotonic() - begun
            if took > STALL_S:
                print(f"stall {os.path.dirname(path)} {took * 1000:.0f}", flush=True)
        if n == first + 1:
            os.write(ready, b".")
        time.sleep(PAUSE_S)


# As fast as the rest of the machine lets them: what is tested is not to wait for a CPU.
os.nice(10)
with open("/proc/self/autogroup", "w") as group:
    group.write("10")
listen, ready = os.pipe()
for k in range(count):
    if os.fork() == 0:
        work(k)
seen = 0
while seen < count:
    seen += len(os.read(listen, count))
print("counting", flush=True)
os.wait()
