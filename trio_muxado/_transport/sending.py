"""Sending batches of frames: how much at a time, and with as few copies and waits as can be.

Nothing can overtake a batch that the transport has begun to take, and nothing but a socket shows
progress before it has taken all of it.  So a batch must not take long; and where the link is fast
it should be large, because each costs a call.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

import trio

from .tls import ManyRecords, tls_over_socket

if TYPE_CHECKING:
    from .._protocol.byte_queue import Buffer

LARGEST = 252 * 1024
"""Bytes; more gains nothing: a call costs little against so many bytes, and they are copied.

Linux sends packets of almost 64 KiB, whole segments: 65,483 bytes on loopback, 65,160 over
Ethernet.  Four of those hold a batch.  With 256 KiB a few hundred bytes are left over, for which a
busy socket has to be waited for and written to once more, and which the peer reads by themselves
(measured: a fifth less with 100 bulk streams)."""

LARGEST_TLS = 160 * 1024
"""Bytes, ten whole records, where the transport is no socket, so mostly TLS.  A batch is encrypted
as a whole before any of it is sent, and meanwhile the other side may have nothing to do (measured:
an eighth more than with 252 KiB; 96 KiB has the turns of its batches, and gains nothing)."""

FIRST = 32 * 1024
"""Bytes.  A fast link has the largest after three batches; one of 7 KB/s takes this one within the
time that closing waits for a batch.  With 16 KiB a single v1 stream over a round trip of 100 ms
needs one more until its window has grown."""

SMALLEST = 4 * 1024
"""Bytes; less would only add headers and packets that are not full."""

SHORT = 0.010
"""Seconds in which a full batch has to be taken for the next to be twice as large: what waits for
that one then still waits for a time that nobody notices."""

LONG = 0.100
"""Seconds after which the next batch is half as large; far enough from ``SHORT`` that a steady
link keeps one size."""

GATHER_FROM = 32 * 1024
"""Bytes of a batch from which handing its buffers to the kernel one by one costs less than the
copy that joins them (measured: in bulk, a tenth of the sender's time)."""

ENCRYPTED = b"what is encrypted already"
"""Stands for that in ``buffers``, and is never sent itself: see ``ManyRecords.write``."""

MAX_BUFFERS = 512
"""Buffers in one call.  Linux, macOS and the BSDs take 1,024 and refuse more."""


class BatchSize:
    """Bytes of the next batch, as the ones before it went; ``largest`` at most."""

    __slots__ = ("_largest", "bytes")

    def __init__(self, largest: int = LARGEST) -> None:
        self._largest = largest
        self.bytes = FIRST

    def taken(self, size: int, seconds: float) -> None:
        """The transport needed so many seconds for a batch of ``size`` bytes."""
        if seconds > LONG:
            self.bytes = max(SMALLEST, self.bytes // 2)
        elif size >= self.bytes and seconds < SHORT:
            self.bytes = min(self._largest, self.bytes * 2)


class BatchSender:
    """Sends batches on ``transport``; nothing else sends on it."""

    __slots__ = ("_socket", "_tls", "_transport", "has_socket", "parts", "sends_now")

    def __init__(self, transport: trio.abc.Stream) -> None:
        self._transport = transport
        self.parts = 0
        """Parts of batches that a socket has taken, before it took what was left of them."""
        self._socket: trio.socket.SocketType | None = None
        # Not of a class derived from it, which may change what is sent.
        if type(transport) is trio.SocketStream and hasattr(os, "writev"):
            self._socket = transport.socket
        self.has_socket = self._socket is not None
        self._tls = None if self.has_socket else tls_over_socket(transport)
        self.sends_now = self.has_socket or self._tls is not None
        """Whether ``send_now`` can send anything."""

    def send_now(self, buffers: list[Buffer], size: int) -> bool:
        """Send of so many bytes what a socket takes at once; whether that was all.

        The rest is left in ``buffers``, or over TLS what stands for it.
        """
        if self._tls is not None:
            return self._encrypt(*self._tls, buffers)
        if self._socket is None:
            return False
        if len(buffers) > MAX_BUFFERS or size < GATHER_FROM:
            buffers[:] = [b"".join(buffers)]
        return self._write(self._socket, buffers, size) == size

    def _encrypt(
        self, records: ManyRecords, sock: trio.socket.SocketType, buffers: list[Buffer]
    ) -> bool:
        data = b"".join(buffers)
        sent = records.send_now(data, sock)
        if sent is None:
            buffers[:] = [data]
        elif sent:
            buffers.clear()
        else:
            buffers[:] = [ENCRYPTED]
        return sent is True

    async def send(self, buffers: list[Buffer]) -> None:
        """Send the rest, and wait until the transport has it."""
        if self._socket is None:
            await self._transport.send_all(b"".join(buffers))
            return
        size = sum(map(len, buffers))
        while True:
            await trio.lowlevel.wait_writable(self._socket)
            size -= self._write(self._socket, buffers, size)
            if not size:
                return

    def _write(self, sock: trio.socket.SocketType, buffers: list[Buffer], size: int) -> int:
        """Write what the socket takes of ``buffers``, which have ``size`` bytes; how many it was.

        They are taken out of ``buffers``.
        """
        try:
            taken = os.writev(sock.fileno(), buffers)
        except BlockingIOError:
            return 0
        if taken == size:
            buffers.clear()
            return size
        ends = list(accumulate(map(len, buffers)))
        whole = bisect_right(ends, taken)
        cut = taken - ends[whole - 1] if whole else taken
        del buffers[:whole]
        if cut:
            buffers[0] = memoryview(buffers[0])[cut:]
        self.parts += 1
        return taken
