"""Tasks that wait for streams to end: for the slot of one, or for the last of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from ._ending import Ending
    from ._keepalive import Keepalive
    from ._lazy_event import LazyEvent
    from ._protocol.connection import Connection
    from ._protocol.stream import Stream


class Slots:
    """Tasks that wait to open a stream, in order, and tasks that wait until no stream lives.

    The protocol counts the streams.  Here is who waits for the count to fall.

    Args:
      connection: it opens streams until the peer or this side ends it.
      ending: the session's.
      wire_known: set when it is known how to open a stream, or that none will be.
    """

    __slots__ = (
        "_connection",
        "_ending",
        "_keepalive",
        "_openers",
        "_promised",
        "_stream_ended",
        "_streams",
        "_waiting",
        "_wire_known",
        "awaited",
        "idle",
        "waited_since",
    )

    def __init__(
        self,
        connection: Connection,
        ending: Ending,
        wire_known: LazyEvent,
        keepalive: Keepalive,
    ) -> None:
        self._connection = connection
        self._streams = connection.streams
        self._ending = ending
        self._wire_known = wire_known
        self._keepalive = keepalive
        self.waited_since: float | None = None
        """When tasks began to wait for slots; None while none does."""
        self.idle: dict[Stream, Callable[[], None]] = {}
        """Streams of this side that are kept for later use, and what closes each; the one that has
        been idle for longest first."""
        self._openers: trio.lowlevel.ParkingLot | None = None  # until one has to wait
        self._waiting = 0  # openers that park: to ask the lot costs a call for each request
        self._promised = 0  # slots of openers that were woken and have not run yet
        self._stream_ended: trio.Event | None = None  # where a task waits for it
        self.awaited: bool = False
        """A task waits for a stream to end.  Whoever ends one looks here: that saves a call."""

    @property
    def limit(self) -> float | int:
        """How many streams of this side may be open."""
        return self._streams.outbound.limit

    @property
    def free(self) -> float | int:
        """Slots that nobody has, and nobody was promised."""
        outbound = self._streams.outbound
        return outbound.limit - outbound.used - self._promised

    @property
    def _may_open(self) -> bool:
        return self._connection.can_open and not self._ending.over

    def offer(self, stream: Stream, close: Callable[[], None]) -> None:
        """``stream`` is idle: ``close()`` it when a task waits for a slot, now or later."""
        self.idle[stream] = close
        if self._waiting:
            self._reclaim()

    def _reclaim(self) -> None:
        """Close the stream that has been idle for longest, if there is any."""
        if self.idle:
            self.idle.pop(next(iter(self.idle)))()

    def has_free(self) -> bool:
        """Whether there is a slot that nobody waits for; it is the caller's until a checkpoint."""
        if self._waiting or self._connection.wire is None:
            return False
        outbound = self._streams.outbound  # as ``free`` counts, without a call
        return outbound.used + self._promised < outbound.limit

    async def wait_for_slot(self) -> None:
        """Wait until a stream may be opened, or never can: first come, first served.

        The slot is the caller's until its next checkpoint.  Called where ``has_free`` said no, so
        that most streams begin without a coroutine of their own; it need not be a checkpoint.
        """
        if not self._wire_known.is_set():
            await self._wire_known.wait()
        if not self.has_free() and self._may_open:
            self._reclaim()
            if self.has_free():
                return
            if self._openers is None:
                self._openers = trio.lowlevel.ParkingLot()
            self._waiting += 1
            self.awaited = True
            if self.waited_since is None:
                self.waited_since = trio.current_time()
                self._keepalive.on_wait()
            try:
                await self._openers.park()
            except BaseException:
                self._left(1)
                self.pass_on()  # before this task ran, another may have parked after it
                raise
            self._promised -= 1

    async def wait_until_idle(self) -> None:
        """Wait until no stream of either side lives, but for heartbeats, or the session is over."""
        while not self._ending.event.is_set() and not self._streams.idle:
            if self._stream_ended is None:
                self._stream_ended = trio.Event()
                self.awaited = True
            await self._stream_ended.wait()

    def pass_on(self) -> None:
        """Streams may have ended: give their slots to the tasks that wait."""
        if self._waiting and self.free > 0:
            self._wake(self.free)
        if self._stream_ended is not None:
            self._stream_ended.set()
            self._stream_ended = None
        self.awaited = self._waiting > 0

    def dismiss(self) -> None:
        """No stream will be opened any more: let those that wait for a slot find that out."""
        self._wake(math.inf)

    def _wake(self, most: float | int) -> None:
        if self._openers is None:
            return
        woken = len(self._openers.unpark(count=most))
        self._left(woken)
        self._promised += woken

    def _left(self, tasks: int) -> None:
        self._waiting -= tasks
        if not self._waiting:
            self.waited_since = None
