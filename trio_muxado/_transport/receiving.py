"""Taking bytes from a transport, with as little memory as it allows."""

from __future__ import annotations

import os
from collections.abc import Awaitable
from functools import cache
from typing import Protocol

import trio

from .tls import REFILL, ManyRecords, tls_over_socket

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


def source_of(transport: trio.abc.Stream) -> Source:
    """Where the bytes of ``transport`` come from; nothing else receives from it."""
    _keep_memory()
    if hasattr(os, "readv"):
        # Not of a class derived from it, which may change what is received.
        if type(transport) is trio.SocketStream:
            return SocketSource(transport.socket)
        tls = tls_over_socket(transport)
        if tls is not None:
            records, socket = tls
            records.take_from(socket, _shared_buffer()[:REFILL])
            if records.version() == "TLSv1.3":  # in which sending never has to receive
                return TlsSource(transport, records, socket)
    return StreamSource(transport)


class Source(Protocol):
    """Where the bytes of a transport come from."""

    @property
    def may_be_cancelled(self) -> bool:
        """Nothing is lost when what ``wait`` returned is cancelled."""
        ...

    def wait(self, others_can_wait: bool) -> Awaitable[object] | None:
        """What to await before ``take``; None where there mostly is more, in bulk.

        Where others can wait, that is up to ``AT_ONCE`` times in a row.
        """

    def take(self) -> bytes | memoryview | None:
        """What came, ``b""`` at the end; None where nothing has: wait again.

        It may be overwritten by the next read of any session: whoever wants to keep something of it
        takes a copy before the next checkpoint.
        """

    def expect_more(self) -> None:
        """There mostly is more now, as in bulk."""

    def stop(self) -> None:
        """End a wait that may be cancelled, with :exc:`trio.ClosedResourceError`."""


class StreamSource:
    """Any transport, received from as every stream is."""

    __slots__ = ("_received", "_transport")

    may_be_cancelled = False

    def __init__(self, transport: trio.abc.Stream) -> None:
        self._transport = transport
        self._received = b""

    def wait(self, others_can_wait: bool) -> Awaitable[object]:
        return self._receive()

    async def _receive(self) -> None:
        self._received = bytes(await self._transport.receive_some(READ_SIZE))

    def take(self) -> bytes | None:
        received, self._received = self._received, b""
        return received

    def expect_more(self) -> None:
        """Whether there is only shows by a wait."""

    def stop(self) -> None:
        """Whoever waits is cancelled."""


class TlsSource(StreamSource):
    """TLS that this package has set up, over a socket which is read as if it were plain.

    Where a read has failed, or has made something to send, trio's stream is asked again.
    """

    __slots__ = ("_more", "_records", "_socket")

    def __init__(
        self, transport: trio.abc.Stream, records: ManyRecords, socket: trio.socket.SocketType
    ) -> None:
        super().__init__(transport)
        self._records = records
        self._socket = socket
        self._more = True  # the handshake may have read it

    def wait(self, others_can_wait: bool) -> Awaitable[object]:
        if not self._records.receives_now:
            return self._receive()
        if self._more:
            return trio.lowlevel.checkpoint()  # noqa: ASYNC105
        return trio.lowlevel.wait_readable(self._socket)  # noqa: ASYNC105

    def take(self) -> bytes | None:
        records = self._records
        if not records.receives_now:
            return super().take()
        data = records.receive_now(READ_SIZE)
        self._more = data is not None and (len(data) >= MORE_FROM or records.has_more)
        return data


class SocketSource:
    """A socket: what waits for it is trio's own, so that an idle session takes little memory."""

    __slots__ = ("_buffer", "_more", "_reads", "_socket")

    may_be_cancelled = True

    def __init__(self, socket: trio.socket.SocketType) -> None:
        self._socket = socket
        # With no checkpoint between the read and its use, one buffer serves all sessions.
        self._buffer = _shared_buffer()
        self._more = False
        self._reads = 0  # since others had their turn

    def wait(self, others_can_wait: bool) -> Awaitable[object] | None:
        if not self._more:
            self._reads = 0
            return trio.lowlevel.wait_readable(self._socket)  # noqa: ASYNC105
        if not others_can_wait or self._reads == AT_ONCE:
            self._reads = 0
            return trio.lowlevel.checkpoint()  # noqa: ASYNC105
        return None

    def take(self) -> bytes | memoryview | None:
        self._reads += 1
        buffer = self._buffer
        try:
            size = os.readv(self._socket.fileno(), (buffer,))
        except BlockingIOError:
            self._more = False
            return None
        self._more = size >= MORE_FROM
        return bytes(buffer[:size]) if size <= COPY_UP_TO else buffer[:size]

    def expect_more(self) -> None:
        self._more = True

    def stop(self) -> None:
        trio.lowlevel.notify_closing(self._socket)


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
