"""Tasks that wait for a stream to break."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from ._protocol.stream import Stream


class Breaks:
    """Any number of tasks for each stream, also for one on which nothing more is received.

    A stream whose ends have both come is forgotten by the protocol once all of it has been sent.
    Until then the peer can reset it, and after that its session can still end.
    """

    def __init__(self) -> None:
        self._waiting: dict[Stream, trio.lowlevel.ParkingLot] = {}

    async def wait(self, stream: Stream) -> None:
        """Wait until ``wake`` or ``wake_all``.  When it is cancelled, nobody is left waiting."""
        lot = self._waiting.get(stream)
        if lot is None:
            lot = self._waiting[stream] = trio.lowlevel.ParkingLot()
        try:
            await lot.park()
        finally:
            if not lot and self._waiting.get(stream) is lot:
                del self._waiting[stream]

    def wake(self, stream: Stream) -> None:
        """The stream broke, or this side has closed it."""
        lot = self._waiting.pop(stream, None)
        if lot is not None:
            lot.unpark_all()

    def wake_all(self) -> None:
        """The session is over."""
        for stream in list(self._waiting):
            self.wake(stream)
