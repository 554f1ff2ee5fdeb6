"""Messages over a stream."""

from __future__ import annotations

import trio

from ._messages import PREFIX, Message, MessageError, decode, size_of

CONTROL_TYPE = 0xFFFFFF01
"""Of the agent's first stream, which lives as long as the session: an extension of the relay's."""

READY = b"\x00"
"""The agent's first byte on a stream: its service is there, and what follows is the service's."""

HELLO_TIMEOUT = 10.0
"""Seconds for a message that the other side owes."""


async def receive_message(stream: trio.abc.ReceiveStream) -> Message:
    """The next message, and nothing behind it.

    Raises:
      MessageError: what came is none, or the stream ended before it was whole.
    """
    size = size_of(await _exactly(stream, PREFIX))
    return decode(await _exactly(stream, size))


async def _exactly(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = await stream.receive_some(size - len(data))
        if not chunk:
            raise MessageError(f"the stream ended after {len(data)} of {size} bytes")
        data += chunk
    return bytes(data)
