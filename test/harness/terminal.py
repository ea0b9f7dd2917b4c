"""Runs a program on a terminal of its own: copies what it draws to stdout, and stdin to its keyboard.
Ends as it does: 128 + the signal's number when a signal has ended it."""

import os
import pty
import select
import sys

pid, terminal = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])

sources = [terminal, 0]
while terminal in sources:
    for ready in select.select(sources, [], [])[0]:
        try:
            part = os.read(ready, 65536)
        except OSError:
            part = b""  # Linux: EIO when nobody has the terminal open any more.
        if not part:
            sources.remove(ready)
        else:
            os.write(1 if ready == terminal else terminal, part)

code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
sys.exit(code if code >= 0 else 128 - code)
