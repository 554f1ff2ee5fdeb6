"""Standard error as a pipe that nobody reads: a service goes on, and what it would say is lost.

A pipe that is full stops whoever writes to it, which would be the whole process here: all visitors.
"""

from __future__ import annotations

import io
import os
import select
import stat
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

PIECE = getattr(select, "PIPE_BUF", 512)
"""Bytes that a pipe takes without a wait where it takes any."""


class Stderr(io.RawIOBase):
    """Standard error, which waits for a reader until ``waits`` is False."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.name = "<stderr>"
        self.waits = True

    def fileno(self) -> int:
        """Of the pipe."""
        return self._descriptor

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        """Write all of it; or drop what does not fit in."""
        octets = memoryview(data).cast("B")
        size = len(octets)
        while octets and (self.waits or has_room(self._descriptor)):
            octets = octets[os.write(self._descriptor, octets[:PIECE]) :]
        return size


def has_room(descriptor: int) -> bool:
    """Whether a short write returns at once; True where the system does not say."""
    if not hasattr(select, "poll"):
        return True
    room = select.poll()
    room.register(descriptor, select.POLLOUT)
    return bool(room.poll(0))


def replace_stderr() -> None:
    """Have ``sys.stderr`` be one of these, where it is a pipe or a socket: until the process ends,
    since its last words may not fit in either."""
    before = sys.stderr
    try:
        descriptor = before.fileno()
        mode = os.fstat(descriptor).st_mode
    except (AttributeError, OSError, ValueError):  # there is none, or it is a program's own
        return
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        sys.stderr = io.TextIOWrapper(
            Stderr(descriptor),
            before.encoding,
            before.errors,
            write_through=True,
        )


def do_not_wait() -> None:
    """From now on nothing waits for standard error: a service is more important than its log."""
    raw = getattr(sys.stderr, "buffer", None)
    if isinstance(raw, Stderr):
        raw.waits = False
