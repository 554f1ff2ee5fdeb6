"""Streams of the peer that wait to be accepted, in a memory channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import trio

if TYPE_CHECKING:
    from ._protocol.stream import Stream
    from ._receive_channel import ReceiveChannel

Offered: TypeAlias = "tuple[Stream, ReceiveChannel]"
"""A stream of the peer, and where what came on it waits."""

Channel: TypeAlias = "tuple[trio.MemorySendChannel[Offered], trio.MemoryReceiveChannel[Offered]]"

Start: TypeAlias = "Callable[[Stream, ReceiveChannel], None]"
"""Starts the handler of a stream; does not wait."""


class Backlog:
    """First come, first served, for any number of tasks.

    The protocol counts the streams until they are accepted, and refuses those above
    ``accept_backlog``: so the channel, which has as many slots, is never full.
    """

    __slots__ = ("_channel", "_ended", "_size", "_start", "_takers", "_waiting")

    def __init__(self, size: int) -> None:
        self._size = size
        self._channel: Channel | None = None  # a client's peer mostly opens no stream
        # Streams that ``take`` has not returned: to try one more costs an exception.
        self._waiting = 0
        self._takers = 0
        self._ended = False
        self._start: Start | None = None

    def put(self, offered: Offered, at_once: bool) -> None:
        """The peer has opened a stream.

        With ``at_once`` whoever waits, and can start it in this step, does so; else it waits in the
        channel.  That saves a pass of trio's loop; where others follow, it costs a write more, as
        their answers come a pass later.
        """
        if at_once and self._start is not None and self._takers == 1 and not self._waiting:
            self._start(*offered)
            return
        (self._channel or self._open())[0].send_nowait(offered)
        self._waiting += 1

    def end(self) -> None:
        """No more will come; what waits can still be taken."""
        self._start = None
        self._ended = True
        if self._channel is not None:
            self._channel[0].close()

    def drop(self) -> list[Stream]:
        """Forget what waits, and return it: nobody can take it any more."""
        dropped: list[Stream] = []
        while self._waiting:
            try:
                core, _ = (self._channel or self._open())[1].receive_nowait()
            except trio.EndOfChannel:
                break  # what waits was handed to tasks that have not run yet
            dropped.append(core)
            self._waiting -= 1
        return dropped

    async def take(self, most: int, start: Start | None = None) -> list[Offered]:
        """Wait for the next, and take at most ``most`` that wait; none when there will be none.

        Meanwhile ``start`` may be called with one.
        """
        receiver = (self._channel or self._open())[1]
        self._takers += 1
        self._start = start
        try:
            streams = [await receiver.receive()]
        except trio.EndOfChannel:
            return []
        finally:
            self._takers -= 1
            self._start = None
        self._waiting -= 1
        while self._waiting and len(streams) < most:
            try:
                streams.append(receiver.receive_nowait())
            except trio.WouldBlock:
                break  # what waits was handed to other tasks, which have not run yet
            self._waiting -= 1
        return streams

    def _open(self) -> Channel:
        channel: Channel = trio.open_memory_channel(self._size)  # to name the type takes longer
        self._channel = channel
        if self._ended:
            channel[0].close()
        return channel
