"""Stands for a program that the fork server runs: ``python -I -S program.py SOCKET ARGUMENTS``.

It hands over its streams, folder, environment and arguments, passes signals on, and ends as the
program does.  It imports next to nothing, as each program of the tests pays for it.
"""

import _socket
import marshal
import os
import signal
import sys


def main() -> None:
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    sock.connect(sys.argv[1])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sock.send(bytes([number])))
    reading, writing = os.pipe()
    handed = b"".join(fd.to_bytes(4, sys.byteorder) for fd in (0, 1, 2, reading))
    sock.sendmsg([b"\0"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, handed)])
    os.close(reading)
    # Without pathlib, which takes long to import.
    with open(writing, "wb") as request:  # noqa: PTH123
        marshal.dump((sys.argv[2:], os.getcwd(), dict(os.environ)), request)  # noqa: PTH109
    answer = sock.recv(4)
    if not answer:  # the server is gone, and has killed the program
        os.kill(os.getpid(), signal.SIGKILL)
    status = int.from_bytes(answer, "big", signed=True)
    if status < 0:  # a signal has ended it
        if status != -signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


main()
