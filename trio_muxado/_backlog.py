"""Streams of the peer that wait to be accepted, and the tasks that wait for one."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from ._stream import MuxadoStream


class Backlog:
    """First come, first served.  The protocol bounds it, and refuses what does not fit.

    A memory channel would do the same and cost more, for every stream that a server takes up.
    """

    def __init__(self) -> None:
        self._streams: deque[MuxadoStream] = deque()
        self._takers = trio.lowlevel.ParkingLot()
        self._waiting = 0  # takers that park: to ask the lot costs a call for each stream
        self._ended = False

    def put(self, stream: MuxadoStream) -> None:
        """The peer has opened a stream."""
        self._streams.append(stream)
        if self._waiting:
            self._waiting -= 1
            self._takers.unpark()

    def clear(self) -> None:
        """Those that wait are given to nobody."""
        self._streams.clear()

    def end(self) -> None:
        """No more will come."""
        self._ended = True
        self._waiting = 0
        self._takers.unpark_all()

    async def take(self, most: int) -> list[MuxadoStream]:
        """Wait for the next, and take up to ``most`` that wait; none when there will be none."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._streams:
            await trio.lowlevel.cancel_shielded_checkpoint()
        while not self._streams:
            if self._ended:
                await trio.lowlevel.checkpoint()
                return []
            self._waiting += 1
            try:
                await self._takers.park()
            except BaseException:
                self._waiting -= 1
                raise
        streams = self._streams
        return [streams.popleft() for _ in range(min(most, len(streams)))]
