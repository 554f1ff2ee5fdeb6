"""Stands for a program that the warm interpreter runs: ``python -I -S warm_start.py SOCKET ...``.

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
    folder = os.getcwd()  # noqa: PTH109  (pathlib takes long to import)
    request = marshal.dumps((sys.argv[2:], folder, dict(os.environ)))
    streams = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1, 2))
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, streams)]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: sock.send(bytes([number])))
    sock.sendmsg([len(request).to_bytes(4, "big")], rights)
    sock.sendall(request)
    status = int.from_bytes(sock.recv(4) or b"\0\0\0\x46", "big", signed=True)
    if status < 0 and -status != signal.SIGKILL:  # a signal has ended it
        signal.signal(-status, signal.SIG_DFL)
    if status < 0:
        os.kill(os.getpid(), -status)
    os._exit(status)


main()
