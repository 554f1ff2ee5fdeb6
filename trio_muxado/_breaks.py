"""Tasks that wait for streams to break: any number for each.

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

Breaks: TypeAlias = "dict[Stream, list[trio.Event]]"
"""The streams of a session for whose break tasks wait, and what wakes those."""


async def wait_for_break(breaks: Breaks, stream: Stream, event: trio.Event) -> None:
    """Wait until ``event`` is set, by one of the others or by whom the task waits for as well.

    When it is cancelled, nothing of it is left.
    """
    waiting = breaks.setdefault(stream, [])
    waiting.append(event)
    try:
        await event.wait()
    finally:
        waiting.remove(event)
        if not waiting and breaks.get(stream) is waiting:
            del breaks[stream]


def wake_for_break(breaks: Breaks, stream: Stream) -> None:
    """The stream broke, or this side has closed it."""
    for event in breaks.pop(stream, ()):
        event.set()


def wake_for_all_breaks(breaks: Breaks) -> None:
    """The session is over."""
    for stream in list(breaks):
        wake_for_break(breaks, stream)
