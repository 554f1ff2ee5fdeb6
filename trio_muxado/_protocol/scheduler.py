"""Whose frame goes next: the highest priority first, round robin among equals.

Heartbeats stand above every priority that can be chosen.

A turn is the same number of bytes for each, so streams that always have something to send get
equal shares.
"""

from __future__ import annotations

from bisect import insort
from collections import deque

from .codec import MAX_PRIORITY
from .stream import Stream

ABOVE_ALL = MAX_PRIORITY + 1
"""Overtakes whatever a user or a peer has chosen; it never goes on the wire."""


class Scheduler:
    """The streams that have something to send and may."""

    def __init__(self) -> None:
        self._queues: dict[int, deque[Stream]] = {}
        self.priorities: list[int] = []
        """Of the streams that wait, in rising order; empty when none does."""

    def pop(self) -> Stream:
        """The stream whose turn it is, which waits no more."""
        priority = self.priorities[-1]
        queue = self._queues[priority]
        stream = queue.popleft()
        stream.scheduled = False
        if not queue:
            del self._queues[priority]
            self.priorities.pop()
        return stream

    def push(self, stream: Stream) -> None:
        """Give ``stream``, which does not wait, a turn behind all of its priority that do."""
        stream.scheduled = True
        priority = stream.priority
        queue = self._queues.get(priority)
        if queue is None:
            self._begin(priority, stream)
        else:
            queue.append(stream)

    def put_back(self, stream: Stream) -> None:
        """Give back the turn of ``stream``, which was cut short: it is the next again."""
        stream.scheduled = True
        queue = self._queues.get(stream.priority)
        if queue is None:
            self._begin(stream.priority, stream)
        else:
            queue.appendleft(stream)

    def _begin(self, priority: int, stream: Stream) -> None:
        self._queues[priority] = deque((stream,))
        insort(self.priorities, priority)

    def remove(self, stream: Stream) -> None:
        """``stream`` has nothing to send any more: it must not be kept alive by its place."""
        if not stream.scheduled:
            return
        stream.scheduled = False
        queue = self._queues[stream.priority]
        queue.remove(stream)
        if not queue:
            del self._queues[stream.priority]
            self.priorities.remove(stream.priority)

    def move(self, stream: Stream, priority: int) -> None:
        """Change a stream's priority; where it waits, it goes behind its new equals."""
        if priority == stream.priority:
            return  # or one that is told so again and again would never have its turn
        waits = stream.scheduled
        self.remove(stream)
        stream.priority = priority
        if waits:
            self.push(stream)
