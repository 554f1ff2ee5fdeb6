"""Giving a batch of buffers to a transport, with as few copies and waits as it allows."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from ._protocol.byte_queue import Buffer

GATHER_FROM = 32 * 1024
"""Bytes of a batch from which handing its buffers to the kernel one by one costs less than the
copy that joins them (measured: in bulk, a tenth of the sender's time)."""

MAX_BUFFERS = 512
"""Buffers in one call.  Linux, macOS and the BSDs take 1,024 and refuse more."""


class BatchSender:
    """Sends batches on ``transport``; nothing else sends on it."""

    def __init__(self, transport: trio.abc.Stream) -> None:
        self._transport = transport
        self.parts = 0
        """Parts of batches that a socket has taken, before it took what was left of them."""
        self._socket: trio.socket.SocketType | None = None
        # Not of a class derived from it, which may change what is sent.
        if type(transport) is trio.SocketStream and hasattr(os, "writev"):
            self._socket = transport.socket

    def send_now(self, buffers: list[Buffer], size: int) -> bool:
        """Send of so many bytes what a socket takes at once; whether that was all.

        The rest is left in ``buffers``.
        """
        if self._socket is None:
            return False
        if len(buffers) > MAX_BUFFERS or size < GATHER_FROM:
            buffers[:] = [b"".join(buffers)]
        return self._write(self._socket, buffers)

    async def send(self, buffers: list[Buffer]) -> None:
        """Send the rest, and wait until the transport has it."""
        if self._socket is None:
            await self._transport.send_all(b"".join(buffers))
            return
        while True:
            await trio.lowlevel.wait_writable(self._socket)
            if self._write(self._socket, buffers):
                return

    def _write(self, sock: trio.socket.SocketType, buffers: list[Buffer]) -> bool:
        try:
            left = os.writev(sock.fileno(), buffers)
        except BlockingIOError:
            return False
        sent = 0
        while sent < len(buffers) and left >= len(buffers[sent]):
            left -= len(buffers[sent])
            sent += 1
        del buffers[:sent]
        if left:
            buffers[0] = memoryview(buffers[0])[left:]
        if buffers:
            self.parts += 1
            return False
        return True
