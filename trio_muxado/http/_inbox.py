"""The events that an application receives: of a request, a WebSocket or its lifespan."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any

import trio

LAST = frozenset(("http.disconnect", "websocket.disconnect"))
"""Events after which nothing comes."""


class Inbox:
    """A queue of events.  The last one is returned again and again.

    hypercorn 0.18 uses a memory channel instead.  There a sender waits for room even if the
    application never receives again, and a cancelled task receives nothing, which Starlette's
    ``is_disconnected()`` relies on.

    Args:
      bound: the number of events that may wait to be received; with more, ``put`` waits.
      on_empty: called whenever the application has received all events so far.
    """

    def __init__(self, bound: float = math.inf, on_empty: Callable[[], None] | None = None) -> None:
        self._bound = bound
        self._on_empty = on_empty
        self._events: deque[dict[str, Any]] = deque()
        self._last: dict[str, Any] | None = None
        self._last_received = False
        self._receivers = trio.lowlevel.ParkingLot()
        self._senders = trio.lowlevel.ParkingLot()

    @property
    def is_empty(self) -> bool:
        """The application has received all events so far."""
        return not self._events

    async def put(self, event: dict[str, Any]) -> None:
        """Add an event once there is room; after the last one it is dropped."""
        if event["type"] in LAST:
            self.end(event)
            return
        while self._last is None and len(self._events) >= self._bound:
            await self._senders.park()
        if self._last is None:
            self._events.append(event)
            self._receivers.unpark()

    def end(self, event: dict[str, Any]) -> None:
        """Add the last event.  Never waits, and wakes the tasks that wait in ``put``."""
        if self._last is None:
            self._last = event
            self._senders.unpark_all()
            self._receivers.unpark_all()

    async def receive(self) -> dict[str, Any]:
        """The ``receive`` of ASGI.

        An event that is there is returned at once, even in a cancelled scope: that is how an
        application polls.
        """
        while not self._events:
            if self._last is not None:
                if self._last_received:
                    await trio.lowlevel.checkpoint()  # it may ask in a loop
                self._last_received = True
                return self._last
            await self._receivers.park()
        self._senders.unpark()
        event = self._events.popleft()
        if self._on_empty is not None and not self._events:
            self._on_empty()
        return event
