"""Tasks that wait for a stream to break: any number for each.

They wait also on a stream on which nothing more is received.  The protocol forgets a stream whose
ends have both come once all of it has been sent.  Until then the peer can reset it, and after that
its session can still end.

It is a plain table, because whoever closes a stream looks first whether anybody waits at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import trio

if TYPE_CHECKING:
    from ._protocol.stream import Stream

Breaks: TypeAlias = "dict[Stream, trio.lowlevel.ParkingLot]"
"""The streams of a session for whose break tasks wait, and where."""


async def wait_for_break(breaks: Breaks, stream: Stream) -> None:
    """Wait until one of the others is called.  When it is cancelled, nobody is left waiting."""
    lot = breaks.get(stream)
    if lot is None:
        lot = breaks[stream] = trio.lowlevel.ParkingLot()
    try:
        await lot.park()
    finally:
        if not lot and breaks.get(stream) is lot:
            del breaks[stream]


def wake_for_break(breaks: Breaks, stream: Stream) -> None:
    """The stream broke, or this side has closed it."""
    lot = breaks.pop(stream, None)
    if lot is not None:
        lot.unpark_all()


def wake_for_all_breaks(breaks: Breaks) -> None:
    """The session is over."""
    for stream in list(breaks):
        wake_for_break(breaks, stream)
