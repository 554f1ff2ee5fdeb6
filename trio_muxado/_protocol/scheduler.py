"""Whose frame goes next: the highest priority first, round robin among equals.

Heartbeats stand above every priority that can be chosen.

A turn is the same number of bytes for each, so streams that always have something to send get
equal shares.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict

from .codec import MAX_PRIORITY
from .stream import Stream

ABOVE_ALL = MAX_PRIORITY + 1
"""Overtakes whatever a user or a peer has chosen; it never goes on the wire."""


class Scheduler:
    """The streams that have something to send and may."""

    __slots__ = ("_queues", "priorities")

    def __init__(self) -> None:
        # Of streams alone, in order: any of them leaves at once, when a peer resets it.
        self._queues: dict[int, OrderedDict[Stream, None]] = {}
        self.priorities: list[int] = []
        """Of the streams that wait, in rising order; empty when none does."""

    @property
    def has_one(self) -> bool:
        """One stream waits, and no other."""
        priorities = self.priorities
        return len(priorities) == 1 and len(self._queues[priorities[0]]) == 1

    def pop(self) -> Stream:
        """The stream whose turn it is, which waits no more."""
        priority = self.priorities[-1]
        queue = self._queues[priority]
        stream, _ = queue.popitem(False)
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
            queue[stream] = None

    def put_back(self, stream: Stream) -> None:
        """Give back the turn of ``stream``, which was cut short: it is the next again."""
        stream.scheduled = True
        queue = self._queues.get(stream.priority)
        if queue is None:
            self._begin(stream.priority, stream)
        else:
            queue[stream] = None
            queue.move_to_end(stream, last=False)

    def _begin(self, priority: int, stream: Stream) -> None:
        queue: OrderedDict[Stream, None] = OrderedDict()  # to name its types here takes longer
        queue[stream] = None
        self._queues[priority] = queue
        insort(self.priorities, priority)

    def remove(self, stream: Stream) -> None:
        """``stream`` has nothing to send any more: it must not be kept alive by its place."""
        if not stream.scheduled:
            return
        stream.scheduled = False
        queue = self._queues[stream.priority]
        del queue[stream]
        if not queue:
            del self._queues[stream.priority]
            del self.priorities[bisect_left(self.priorities, stream.priority)]

    def move(self, stream: Stream, priority: int) -> None:
        """Change a stream's priority; where it waits, it goes behind its new equals."""
        if priority == stream.priority:
            return  # or one that is told so again and again would never have its turn
        waits = stream.scheduled
        self.remove(stream)
        stream.priority = priority
        if waits:
            self.push(stream)
