"""A tree over bare TCP, as tar writes and reads it: bare.py receive|send ADDRESS PORT DIRECTORY

No checks, no encryption, no resume, nothing durable: as fast as two hosts can copy here at all.
"""

import socket
import subprocess
import sys


def receive(address, port, directory):
    with socket.create_server((address, port)) as server:
        print("listening", file=sys.stderr, flush=True)
        connection, _ = server.accept()
        with connection:
            subprocess.run(["tar", "-xf", "-", "-C", directory], stdin=connection, check=True)


def send(address, port, directory):
    with socket.create_connection((address, port)) as connection:
        subprocess.run(["tar", "-cf", "-", "-C", directory, "."], stdout=connection, check=True)
        connection.shutdown(socket.SHUT_WR)
        # The other side closes when its tar has ended.
        connection.recv(1)


if __name__ == "__main__":
    role, address, port, directory = sys.argv[1:]
    {"receive": receive, "send": send}[role](address, int(port), directory)
