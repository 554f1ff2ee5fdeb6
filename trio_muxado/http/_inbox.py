"""What an application receives: the events of a request, a WebSocket or its lifespan."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any

import trio

LAST = frozenset(("http.disconnect", "websocket.disconnect"))
"""Events behind which nothing comes."""


class Inbox:
    """Events in order.  The last one is there again whenever an application asks once more.

    hypercorn 0.18 has a memory channel there, on which whoever sends waits for room, though the
    application may never receive again; and from which a task that is cancelled takes nothing,
    as Starlette's ``is_disconnected()`` wants to.

    Args:
      bound: events that may wait to be received; with more ``put`` waits.
      on_empty: called whenever the application has received all that there was.
    """

    def __init__(self, bound: float = math.inf, on_empty: Callable[[], None] | None = None) -> None:
        self._bound = bound
        self._on_empty = on_empty
        self._events: deque[dict[str, Any]] = deque()
        self._last: dict[str, Any] | None = None
        self._told = False
        self._receivers = trio.lowlevel.ParkingLot()
        self._senders = trio.lowlevel.ParkingLot()

    @property
    def is_empty(self) -> bool:
        """The application has received all that there was."""
        return not self._events

    async def put(self, event: dict[str, Any]) -> None:
        """Add an event when there is room; behind the last one it is dropped."""
        if event["type"] in LAST:
            self.end(event)
            return
        while self._last is None and len(self._events) >= self._bound:
            await self._senders.park()
        if self._last is None:
            self._events.append(event)
            self._receivers.unpark()

    def end(self, event: dict[str, Any]) -> None:
        """Add the last event.  Waits for no room, and lets nobody wait for it any more."""
        if self._last is None:
            self._last = event
            self._senders.unpark_all()
            self._receivers.unpark_all()

    async def receive(self) -> dict[str, Any]:
        """The ``receive`` of ASGI.

        What is there is returned at once, also to a task that is cancelled: that is how an
        application asks without waiting.
        """
        while not self._events:
            if self._last is not None:
                if self._told:
                    await trio.lowlevel.checkpoint()  # it may ask in a loop
                self._told = True
                return self._last
            await self._receivers.park()
        self._senders.unpark()
        event = self._events.popleft()
        if self._on_empty is not None and not self._events:
            self._on_empty()
        return event
