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

    @property
    def first(self) -> Stream:
        """The stream whose turn it is."""
        return self._queues[self.priorities[-1]][0]

    def end_turn(self, *, again: bool) -> None:
        """The first has had its turn: it goes behind its equals, or waits no more."""
        priority = self.priorities[-1]
        queue = self._queues[priority]
        if again:
            queue.rotate(-1)
            return
        queue.popleft().scheduled = False
        if not queue:
            del self._queues[priority]
            self.priorities.pop()

    def push(self, stream: Stream) -> None:
        """Give ``stream`` a turn, behind all of its priority that wait already."""
        if stream.scheduled:
            return
        stream.scheduled = True
        queue = self._queues.get(stream.priority)
        if queue is None:
            self._queues[stream.priority] = deque((stream,))
            insort(self.priorities, stream.priority)
        else:
            queue.append(stream)

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
