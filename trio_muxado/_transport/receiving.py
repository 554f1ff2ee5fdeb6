"""Taking bytes from a transport, with as little memory as it allows."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from functools import cache
from typing import TypeAlias

import trio

from .tls import read_ahead

Receive: TypeAlias = "Callable[[bool], Awaitable[bytes | memoryview]]"

READ_SIZE = 256 * 1024
"""Bytes asked of the transport at a time: enough that a busy one is read in few calls."""

COPY_UP_TO = 8 * 1024
"""Bytes of a read that are cheaper to copy at once than to be cut up as a view."""

MORE_FROM = 64 * 1024
"""Bytes of a read after which the next is tried without asking whether there is more: in bulk there
mostly is, and to find out costs two calls of the system."""

AT_ONCE = 4
"""Reads in a row, of 1 MiB together at most, before other tasks run in any case.  With 100
bulk streams a pass of trio's loop for each read costs a tenth to a fourth of all bytes (measured).
"""

FRAMES_OF_BULK = 64
"""Frames of a read after which the next may follow at once: 256 KiB in pieces of 4 KiB.  With all
that follow in a row that is no more than a connection handles in one pass."""

_FREED_ONCE = 1024 * 1024
"""Bytes of a block that is freed once: see ``_keep_memory``."""

_buffer_of_run: trio.lowlevel.RunVar[memoryview] = trio.lowlevel.RunVar("trio_muxado reads")


def receive_on(transport: trio.abc.Stream) -> Receive:
    """What waits for the next bytes of ``transport``; nothing else receives from it.

    What it returns may be overwritten by the next read of any session: whoever wants to keep
    something of it takes a copy before the next checkpoint.  Where others can wait,
    it mostly is no checkpoint itself while there is more in bulk, ``AT_ONCE`` times in a row.
    """
    _keep_memory()

    async def receive_new(others_can_wait: bool) -> bytes | memoryview:
        return bytes(await transport.receive_some(READ_SIZE))

    if not hasattr(os, "readv"):
        return receive_new
    # Not of a class derived from it, which may change what is received.
    if type(transport) is not trio.SocketStream:
        read_ahead(transport, _shared_buffer())
        return receive_new
    sock, buffer = transport.socket, _shared_buffer()
    more = False
    reads = 0  # since others had their turn

    async def receive_shared(others_can_wait: bool) -> bytes | memoryview:
        nonlocal more, reads
        while True:
            if not more:
                reads = 0
                await trio.lowlevel.wait_readable(sock)
            elif not others_can_wait or reads == AT_ONCE:
                reads = 0
                await trio.lowlevel.checkpoint()
            reads += 1
            # With no checkpoint between the read and its use, one buffer serves all sessions.
            try:
                size = os.readv(sock.fileno(), (buffer,))
            except BlockingIOError:
                more = False
                continue
            more = size >= MORE_FROM
            return bytes(buffer[:size]) if size <= COPY_UP_TO else buffer[:size]

    return receive_shared


def _shared_buffer() -> memoryview:
    """The buffer into which all sessions of this ``trio.run`` read."""
    try:
        return _buffer_of_run.get()
    except LookupError:
        buffer = memoryview(bytearray(READ_SIZE))
        _buffer_of_run.set(buffer)
        return buffer


@cache
def _keep_memory() -> None:
    """Let the C library keep what a bulk transfer frees, for its next read to use.

    glibc gives back to the system what is free at the end of its heap once that is more than twice
    the largest block that was ever mapped and freed.  Blocks of our reads' size pass that again
    and again, and each then costs a page fault per 4 KiB: in bulk a seventh of the receiver's time
    (measured).  A larger block, freed once and never touched, moves the bound to 2 MiB.
    """
    bytes(_FREED_ONCE)
