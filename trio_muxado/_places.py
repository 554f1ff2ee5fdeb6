"""Who waits for streams to end: for the place of one, or for the last of them."""

from __future__ import annotations

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
      limit: streams of this end that may live at once; None is no bound.
      wire_known: set when it is known how to open a stream, or that none will be.
      ended: set when the session is over.
      may_open: whether the session still opens streams.
    """

    def __init__(
        self,
        streams: StreamTable,
        *,
        limit: int | None,
        wire_known: trio.Event,
        ended: trio.Event,
        may_open: Callable[[], bool],
    ) -> None:
        self._streams = streams
        self._wire_known = wire_known
        self._ended = ended
        self._may_open = may_open
        self._free = None if limit is None else trio.Semaphore(limit)
        self._taken = 0
        self._stream_ended: trio.Event | None = None  # where a task waits for it

    async def take_place(self) -> None:
        """Wait until a stream may be opened, or never can: first come, first served."""
        if not self._wire_known.is_set():
            await self._wire_known.wait()
        if self._free is None or not self._may_open():
            await trio.lowlevel.checkpoint()
        else:
            await self._free.acquire()
            self._taken += 1

    async def wait_until_idle(self) -> None:
        """Wait until no stream of either end lives, but for extensions, or the session is over."""
        while not self._ended.is_set() and not self._streams.idle:
            self._stream_ended = self._stream_ended or trio.Event()
            await self._stream_ended.wait()

    def count(self) -> None:
        """Streams may have ended: pass their places on to those that wait."""
        if self._free is not None:
            while self._taken > self._streams.outbound.taken:
                self._taken -= 1
                self._free.release()
        if self._stream_ended is not None:
            self._stream_ended.set()
            self._stream_ended = None

    def dismiss(self) -> None:
        """No stream will be opened any more: let those that wait for a place find that out."""
        if self._free is not None:
            for _ in range(self._free.statistics().tasks_waiting):
                self._free.release()
