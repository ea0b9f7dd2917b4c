"""Moves money between accounts until it is killed: each account is a file, half of them in each of two
directories. Transfer n of a bank says that it begins (`begun`), takes from one account, gives to the
next, and says that it is done (`done`); each write after the one before was acknowledged. So at every
instant a bank is in one of four states of one transfer (bank.ts tells which).

usage: bank.py LEFT RIGHT ACK N: N banks. ACK, a file that is not on a volume, has 8 bytes for each: the
last transfer of which `done` was acknowledged. Says `open` when all are at it."""

import mmap
import os
import struct
import sys
import time

ACCOUNTS = 8
START = 1000
PAUSE_S = 0.001

left, right, ack, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])


def name(bank, what):
    return os.path.join(left if what in ("begun", 0, 2, 4, 6) else right, f"bank-{bank}-{what}")


def work(bank, acknowledged):
    files = {
        what: os.open(name(bank, what), os.O_WRONLY | os.O_CREAT, 0o644)
        for what in ["begun", "done", *range(ACCOUNTS)]
    }
    balances = [START] * ACCOUNTS

    def put(what, *numbers):
        os.pwrite(files[what], struct.pack(f"<{len(numbers)}q", *numbers), 0)

    for what in ["begun", "done"]:
        put(what, 0)
    for account in range(ACCOUNTS):
        put(account, START, 0)
    n = 0
    while True:
        n += 1
        source, target, amount = n % ACCOUNTS, (n + 3) % ACCOUNTS, n % 7 + 1
        put("begun", n)
        balances[source] -= amount
        put(source, balances[source], n)
        balances[target] += amount
        put(target, balances[target], n)
        put("done", n)
        struct.pack_into("<q", acknowledged, 8 * bank, n)
        if n == 1:
            os.write(ready, b".")
        time.sleep(PAUSE_S)


with open(ack, "wb+") as file:
    file.truncate(8 * count)
    shared = mmap.mmap(file.fileno(), 8 * count)
# As fast as the rest of the machine lets them: what is tested is not to wait for a CPU.
os.nice(10)
with open("/proc/self/autogroup", "w") as group:
    group.write("10")
listen, ready = os.pipe()
for k in range(count):
    if os.fork() == 0:
        work(k, shared)
seen = 0
while seen < count:
    seen += len(os.read(listen, count))
print("open", flush=True)
os.wait()
