"""Counts in pairs of files until it is killed: n into one, and when that is acknowledged, n into the
other. What is seen of both at one instant can differ by one, and only one way.

usage: pairs.py LEFT RIGHT N: N processes, the odd ones begin with RIGHT. Says `counting` when all are at it."""

import os
import struct
import sys
import time

PAUSE_S = 0.0005

left, right, count = sys.argv[1], sys.argv[2], int(sys.argv[3])


def work(first, second):
    files = [os.open(path, os.O_WRONLY | os.O_CREAT, 0o644) for path in (first, second)]
    n = 0
    while True:
        n += 1
        for fd in files:
            os.pwrite(fd, struct.pack("<Q", n), 0)
        if n == 1:
            os.write(ready, b".")
        time.sleep(PAUSE_S)


listen, ready = os.pipe()
for k in range(count):
    if os.fork() == 0:
        pair = [os.path.join(directory, f"pair-{k}") for directory in (left, right)]
        work(*(pair if k % 2 == 0 else reversed(pair)))
seen = 0
while seen < count:
    seen += len(os.read(listen, count))
print("counting", flush=True)
os.wait()
