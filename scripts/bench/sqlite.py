"""One SQLite transaction workload: sqlite.py DIRECTORY wal|delete SECONDS

Each transaction updates one of 1000 rows and inserts one, synchronous=FULL. Prints one JSON line
like fsbench's.
"""

import json
import os
import sqlite3
import sys
import time


def transactions(db, seconds):
    done, start = 0, time.monotonic()
    while True:
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE account SET balance = balance + 1 WHERE id = ?", (done % 1000,))
        db.execute("INSERT INTO history VALUES (?, ?, ?)", (done, time.time(), "x" * 100))
        db.execute("COMMIT")
        done += 1
        spent = time.monotonic() - start
        if spent >= seconds:
            return done, spent


def main(directory, mode, seconds):
    path = os.path.join(directory, f"bench-{mode}.db")
    db = sqlite3.connect(path, isolation_level=None)
    got = db.execute(f"PRAGMA journal_mode={mode}").fetchone()[0]
    if got != mode:
        raise SystemExit(f"journal_mode is {got}, not {mode}")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER)")
    db.execute("CREATE TABLE history (id INTEGER, at REAL, filler TEXT)")
    with db:
        db.execute("BEGIN")
        db.executemany("INSERT INTO account VALUES (?, 0)", [(i,) for i in range(1000)])
        db.execute("COMMIT")
    transactions(db, min(0.2, seconds))
    done, spent = transactions(db, seconds)
    db.close()
    for suffix in ("", "-wal", "-shm", "-journal"):
        if os.path.exists(path + suffix):
            os.unlink(path + suffix)
    print(json.dumps({"ops": done, "bytes": 0, "seconds": spent}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
