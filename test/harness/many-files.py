"""many-files.py DIR DIRECTORIES FILES: DIRECTORIES directories with FILES small files each."""

import os
import sys

base, directories, files = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
half = os.fork()
for d in range(0 if half else 1, directories, 2):
    path = f"{base}/dir-{d:04}"
    os.mkdir(path)
    at = os.open(path, os.O_RDONLY)
    for f in range(files):
        fd = os.open(f"file-{f:04}", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=at)
        os.write(fd, b"small\n")
        os.close(fd)
    os.close(at)
if half:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(half, 0)[1]))
