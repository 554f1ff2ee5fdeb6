"""Ports for programs that can't be told to take any, and for finding nobody there.

Whoever can binds port 0 instead. Several processes run tests side by side: the workers of a run,
and other runs on the machine. So each has a block of ports of its own, below those that kernels
give away. A block belongs to the process that has bound the port before its first, until it ends.
"""

from __future__ import annotations

import atexit
import os
import socket
from functools import cache

BLOCKS = range(15_000, 32_000, 500)


class Block:
    """The ports of a process, given out in a circle: what was used last comes last."""

    def __init__(self) -> None:
        for start in BLOCKS:
            self._mark = socket.socket()
            try:
                self._mark.bind(("0.0.0.0", start))
                self._mark.listen()  # or others could bind it, too
            except OSError:
                self._mark.close()
            else:
                self.ports = range(start + 1, start + BLOCKS.step)
                self._next = 0
                return
        raise OSError("no block of ports is free")

    def __enter__(self) -> Block:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave it to others."""
        self._mark.close()

    def take(self, count: int) -> range:
        """So many free ports in a row."""
        for _ in self.ports:
            if self._next + count > len(self.ports):
                self._next = 0
            ports = self.ports[self._next : self._next + count]
            self._next += count
            if all(map(is_free, ports)):
                return ports
        raise OSError("no port of this process is free")


def is_free(port: int) -> bool:
    """Whether nobody listens there; what is left of connections that have ended does not count."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, os.name == "posix")
        try:
            sock.bind(("0.0.0.0", port))
        except OSError:
            return False
        return True


@cache
def block() -> Block:
    """That of this process."""
    mine = Block()
    atexit.register(mine.close)
    return mine


def free_ports(count: int) -> range:
    """So many ports in a row on which nobody listens, and that no other process of tests takes."""
    return block().take(count)


def free_port() -> int:
    """A port on which nobody listens, and that no other process of tests takes."""
    return free_ports(1)[0]
