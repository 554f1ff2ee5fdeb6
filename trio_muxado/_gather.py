"""Giving a batch of buffers to a transport, with as few copies as it allows."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

import trio

if TYPE_CHECKING:
    from ._protocol.byte_queue import Buffer

SendBuffers: TypeAlias = "Callable[[list[Buffer], int], Awaitable[None]]"

GATHER_FROM = 32 * 1024
"""Bytes of a batch from which handing its buffers to the kernel one by one costs less than the
copy that joins them (measured: in bulk, a tenth of the sender's time)."""

MAX_BUFFERS = 512
"""Buffers in one call.  Linux, macOS and the BSDs take 1,024 and refuse more."""


def send_buffers_on(transport: trio.abc.Stream) -> SendBuffers:
    """What sends a list of buffers, so many bytes, on ``transport``; nothing else sends on it."""

    async def send_joined(buffers: list[Buffer], size: int) -> None:
        await transport.send_all(b"".join(buffers))

    # Not of a class derived from it, which may change what is sent.
    if type(transport) is not trio.SocketStream or not hasattr(socket.socket, "sendmsg"):
        return send_joined
    sock = transport.socket

    async def send_gathered(buffers: list[Buffer], size: int) -> None:
        if len(buffers) > MAX_BUFFERS or size < GATHER_FROM:
            await send_joined(buffers, size)
            return
        while buffers:
            left = await sock.sendmsg(buffers)
            sent = 0
            while sent < len(buffers) and left >= len(buffers[sent]):
                left -= len(buffers[sent])
                sent += 1
            del buffers[:sent]
            if left:
                buffers[0] = memoryview(buffers[0])[left:]

    return send_gathered
