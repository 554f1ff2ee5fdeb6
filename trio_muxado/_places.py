"""Who waits for streams to end: for the place of one, or for the last of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from ._protocol.table import StreamTable


class PlaceWaiters:
    """Tasks that open streams, in order, and tasks that wait until no stream lives.

    The protocol counts the streams.  Here is who waits for the count to fall.

    Args:
      streams: the connection's streams.
      wire_known: set when it is known how to open a stream, or that none will be.
      ended: set when the session is over.
      may_open: whether the session still opens streams.
      reclaim: closes a stream of this end that is idle, if there is one.
    """

    def __init__(
        self,
        streams: StreamTable,
        *,
        wire_known: trio.Event,
        ended: trio.Event,
        may_open: Callable[[], bool],
        reclaim: Callable[[], None],
    ) -> None:
        self._streams = streams
        self._wire_known = wire_known
        self._ended = ended
        self._may_open = may_open
        self._reclaim = reclaim
        self._openers = trio.lowlevel.ParkingLot()
        self._waiting = 0  # openers that park: to ask the lot costs a call for each request
        self._promised = 0  # places of openers that were woken and have not run yet
        self._stream_ended: trio.Event | None = None  # where a task waits for it

    @property
    def free(self) -> float | int:
        """Places that nobody has, and nobody was promised."""
        outbound = self._streams.outbound
        return outbound.limit - outbound.taken - self._promised

    @property
    def openers_wait(self) -> bool:
        """Whether a task waits for a place."""
        return self._waiting > 0

    async def wait_for_place(self) -> None:
        """Wait until a stream may be opened, or never can: first come, first served.

        The place is the caller's until its next checkpoint.
        """
        if not self._wire_known.is_set():
            await self._wire_known.wait()
        await trio.lowlevel.checkpoint()
        if self.free <= 0:
            self._reclaim()
        if (self._waiting or self.free <= 0) and self._may_open():
            self._waiting += 1
            try:
                await self._openers.park()
            except BaseException:
                self._waiting -= 1
                self.count()  # before this task ran, another may have parked behind it
                raise
            self._promised -= 1

    async def wait_until_idle(self) -> None:
        """Wait until no stream of either end lives, but for heartbeats, or the session is over."""
        while not self._ended.is_set() and not self._streams.idle:
            if self._stream_ended is None:
                self._stream_ended = trio.Event()
            await self._stream_ended.wait()

    def count(self) -> None:
        """Streams may have ended: pass their places on to those that wait."""
        if self._waiting and self.free > 0:
            self._wake(self.free)
        if self._stream_ended is not None:
            self._stream_ended.set()
            self._stream_ended = None

    def dismiss(self) -> None:
        """No stream will be opened any more: let those that wait for a place find that out."""
        self._wake(math.inf)

    def _wake(self, most: float | int) -> None:
        woken = len(self._openers.unpark(count=most))
        self._waiting -= woken
        self._promised += woken
