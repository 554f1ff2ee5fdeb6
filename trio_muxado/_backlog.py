"""Streams of the peer that wait to be accepted, in a memory channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import trio

if TYPE_CHECKING:
    from ._protocol.stream import Stream
    from ._receive_channel import ReceiveChannel

Offered: TypeAlias = "tuple[Stream, ReceiveChannel]"
"""A stream of the peer, and where what came on it waits."""


class Backlog:
    """First come, first served, for any number of tasks.

    The protocol counts the streams until they are accepted, and refuses those above
    ``accept_backlog``: so the channel, which has as many slots, is never full.
    """

    def __init__(self, size: int) -> None:
        self._send, self._receive = trio.open_memory_channel[Offered](size)
        self._waiting = (
            0  # streams that ``take`` has not returned: to try one more costs an exception
        )

    def put(self, offered: Offered) -> None:
        """The peer has opened a stream."""
        self._send.send_nowait(offered)
        self._waiting += 1

    def end(self) -> None:
        """No more will come; what waits can still be taken."""
        self._send.close()

    async def take(self, most: int) -> list[Offered]:
        """Wait for the next, and take at most ``most`` that wait; none when there will be none."""
        try:
            streams = [await self._receive.receive()]
        except trio.EndOfChannel:
            return []
        self._waiting -= 1
        while self._waiting and len(streams) < most:
            try:
                streams.append(self._receive.receive_nowait())
            except trio.WouldBlock:
                break  # what waits was handed to other tasks, which have not run yet
            self._waiting -= 1
        return streams
