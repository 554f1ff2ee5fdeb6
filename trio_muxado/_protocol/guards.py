"""Counting what a peer costs us, and remembering the streams that are gone."""

from __future__ import annotations

import math
from collections import OrderedDict

from .errors import ErrorCode, ProtocolViolation


class Allowance:
    """A token bucket: a burst of ``burst``, coming back at ``per_second``."""

    __slots__ = ("_burst", "_left", "_per_second", "_since")

    def __init__(self, burst: float, per_second: float) -> None:
        self._burst = burst
        self._per_second = per_second
        self._left = burst
        self._since = 0.0

    def spend(self, now: float) -> bool:
        """Take one; False when none is left.  ``now`` is seconds on any steady clock."""
        self._left = min(self._burst, self._left + (now - self._since) * self._per_second)
        self._since = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Quota:
    """How many streams of one kind live, and how many may; None is no bound."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int | None) -> None:
        self.limit: float | int = math.inf if limit is None else limit
        self.used: int = 0

    @property
    def bounded(self) -> bool:
        """There is a limit."""
        return self.limit != math.inf


class Tombstones:
    """The latest streams that ended from this side, and whether their RST has been sent.

    Data may still be on its way to such a stream: the first is answered with RST, the rest is
    skipped, and none of it is held against the peer.
    """

    CAPACITY = 4096
    """Streams remembered; at 100 bytes each a bound that a session never feels."""

    __slots__ = ("_reset",)

    def __init__(self) -> None:
        # Of a dict the oldest takes a walk past all that were deleted before it.
        self._reset: OrderedDict[int, bool] = OrderedDict()

    def __contains__(self, stream_id: int) -> bool:
        return stream_id in self._reset

    def add(self, stream_id: int, *, reset: bool) -> None:
        """Remember a stream; ``reset`` says that RST has been sent for it."""
        if len(self._reset) >= self.CAPACITY and stream_id not in self._reset:
            self._reset.popitem(last=False)
        self._reset[stream_id] = reset

    def forget(self, stream_id: int) -> None:
        """The id is in use again (v2 allows that)."""
        self._reset.pop(stream_id, None)

    def was_reset(self, stream_id: int) -> bool:
        """Whether an RST for this stream is on its way already."""
        return self._reset.get(stream_id, False)


def calm(what: str) -> ProtocolViolation:
    """What ends the session of a peer that makes too much work."""
    return ProtocolViolation(ErrorCode.ENHANCE_YOUR_CALM, f"the peer floods with {what}")
