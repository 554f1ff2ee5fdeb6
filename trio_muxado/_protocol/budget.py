"""The bytes that all receive windows of a session may take, and who gets how many of them."""

from __future__ import annotations

import math
from collections.abc import Mapping

from .limits import Limits
from .stream import Stream
from .windows import LargestWindow, ReceiveWindow

RECENT = 5.0
"""Seconds after its latest round for which a window counts as one that shares in the budget.  So
streams that were busy once take nothing from those that are."""


UNNOTICED = 8
"""Once one in so many of the windows that grow has come or gone, all are looked at again for what
each may have.  So a window costs the same, however many grow."""


GUARANTEED = 2
"""Streams of its peer that a session may have although the budget of its server is used up: one to
work with, and one that may turn out to be the heartbeat's."""


LOOKS = 64
"""Sessions that are looked at for a stream that may be refused, on average.  So what a peer can
make a server do stays the same however many sessions there are."""


class ServerBudget:
    """The bytes that the receive windows of all sessions of a server may take.

    What is promised can't be taken back.  So a session may take what leaves at least as much as it
    holds: one alone gets half, and of many that take all they can each leaves something for the
    next.  The field calls these dynamic thresholds.

    Sessions say what they hold when they want more.  What one has given back meanwhile is looked up
    where it matters: when somebody would get less than was wanted.
    """

    def __init__(self, size: int) -> None:
        self.left: int = size
        """Below zero where sessions hold no more than what is always theirs."""
        self._held: dict[ReceiveBudget, int] = {}
        self._looks_due = 0  # since all were looked at

    def note(self, budget: ReceiveBudget, held: int) -> None:
        """A session holds that many bytes, or is about to."""
        self.left += self._held.get(budget, 0) - held
        self._held[budget] = held

    def look_again(self) -> None:
        """See what each session holds by now; of many sessions not every time."""
        self._looks_due += LOOKS
        if self._looks_due >= len(self._held):
            self._looks_due = 0
            for budget in self._held:
                self.note(budget, budget.held)

    def leave(self, budget: ReceiveBudget) -> None:
        """A session is over, and nobody uses its streams any more: all goes back."""
        self.left += self._held.pop(budget, 0)
        budget.server = None


class ReceiveBudget:
    """What is promised, to whom, and what is left.

    A window begins with what the wire says, whatever is left, because the peer uses that without
    asking.  What is promised is never taken back.  So half of the budget is kept for what streams
    begin with, and the other half is for growth, in equal parts.
    """

    __slots__ = (
        "_fair_for",
        "_fair_until",
        "_growing",
        "_kept",
        "_live",
        "_most",
        "_shared",
        "_sharing",
        "_size",
        "initial_window",
        "largest",
        "left",
        "server",
    )

    def __init__(self, limits: Limits, live: Mapping[int, Stream]) -> None:
        self.left: int = limits.receive_budget
        """Below zero where the windows that streams begin with are more than the budget."""
        self.initial_window: int = 0
        """Bytes that a window begins with; set when the wire is known."""
        self._size = limits.receive_budget
        self._kept = limits.receive_budget // 2
        self.server: ServerBudget | None = None
        """Shared with other sessions, if there is one."""
        self._most = limits.max_receive_window
        self._live = live
        self.largest: LargestWindow = LargestWindow()
        self._growing: dict[Stream, None] = {}  # their windows were too small
        # Bytes that so many of them share in equal parts.  That is right while no more than so many
        # come or go, and for a while.
        self._shared = 0
        self._sharing = 0
        self._fair_for = 0
        self._fair_until = -math.inf

    @property
    def held(self) -> int:
        """Bytes that are promised, or came and are unread."""
        return self._size - self.left

    def admits(self) -> bool:
        """The server has room for the window that one more stream of the peer begins with."""
        server, wanted = self.server, self.held + self.initial_window
        assert server is not None
        server.note(self, self.held)
        if wanted > GUARANTEED * self.initial_window and wanted > server.left:
            server.look_again()
            if wanted > server.left:
                return False
        server.note(self, wanted)
        return True

    def widen(self, stream: Stream, size: int) -> int:
        """Promise a window of ``size`` bytes, as far as the budget goes; the surplus."""
        window = stream.receive_window
        surplus = self._reserve(stream, size - window.size)
        window.grow(window.size + surplus)
        return surplus

    def grow(self, stream: Stream, now: float) -> None:
        """Give a window that is too small twice its size, as far as the budget goes."""
        window = stream.receive_window
        if stream not in self._growing:
            self._growing[stream] = None
            self._shared += window.size
            self._sharing += 1
            self._fair_for -= 1
        if self._fair_for < 0 or now >= self._fair_until:
            self._share(window, now)
            self._fair_for = len(self._growing) // UNNOTICED
            self._fair_until = now + RECENT / 4
        size = min(2 * window.size, self._most, self._shared // self._sharing)
        if size <= window.size:
            window.pinched = False
            return
        largest = self.largest.size
        if window.size < largest:
            size = min(size, largest)  # or two that follow each other would never stop
        window.grow(window.size + self._reserve(stream, size - window.size))

    def stop(self, stream: Stream) -> None:
        """Nothing more comes on a stream: only what is not read yet still takes memory."""
        reserved = stream.reserved
        if reserved:
            window = stream.receive_window
            unread = stream.reserved = window.unconsumed
            self.left += reserved - unread
            if self._growing or window is self.largest.window:
                self._leave(stream)  # no call for each of many small streams

    def release(self, stream: Stream) -> None:
        """Nobody reads a stream any more: it takes nothing."""
        self.left += stream.reserved
        stream.reserved = 0
        self._leave(stream)

    def _leave(self, stream: Stream) -> None:
        """A stream receives no more, and its bytes are there for others."""
        self._fair_for -= 1
        if stream.receive_window is self.largest.window:
            self.largest.forget()
        self._growing.pop(stream, None)

    @property
    def _spare(self) -> int:
        """Bytes that windows may grow by."""
        kept = max(0, self._kept - len(self._live) * self.initial_window)
        spare = self.left - kept
        if self.server is not None:
            spare = min(spare, self._shared_spare(self.server))
        return max(0, spare)

    def _shared_spare(self, server: ServerBudget) -> int:
        """Windows that grow leave twice as much as the session holds, so that streams can begin."""
        server.note(self, self.held)
        server.look_again()
        return (server.left - 2 * self.held) // 3

    def _reserve(self, stream: Stream, size: int) -> int:
        size = max(0, min(size, self._spare))
        self.left -= size
        stream.reserved += size
        if self.server is not None:
            self.server.note(self, self.held)
        return size

    def _share(self, own: ReceiveWindow, now: float) -> None:
        """Find out what the windows that grow can have, those aside that are larger already."""
        windows = (stream.receive_window for stream in self._growing)
        sizes = [w.size for w in windows if w is own or now - w.round_since <= RECENT]
        total, number = sum(sizes) + self._spare, len(sizes)
        for size in sorted(sizes, reverse=True):
            if size * number > total:
                total -= size
                number -= 1
        self._shared, self._sharing = total, number
