"""Credit: how much may be sent on a stream, and when the other side is granted more.

Both directions of every stream have a window.  The sender's side counts what it may still
send; the receiver's side counts what it has promised to take.
"""

from __future__ import annotations

import math

MAX_WINDOW = 0x7FFFFFFF
"""Bytes; a window past 2^31 - 1 is a flow control error (as in HTTP/2, RFC 9113 6.9.1)."""

SLACK = 1.5
"""How many of the shortest rounds a round may take while the window still counts as what holds
the peer back.  With less, jitter stops the growth; with more, memory is promised that no link
fills.  A window ends at a few times what is on its way in a round trip."""

PLENTY = 2 * 1024 * 1024
"""Bytes of a window from which on ``ENOUGH`` counts.

One that is used up shows nothing any more: so much waits unread, as the application is late.  With
16 MiB that wait, what is read next is in no cache, and each read costs page faults, as the C
library gives back to the system what is free above 2 MiB (measured: half as much again of the
receiver's CPU time, where it takes 64 KiB at a time)."""

ENOUGH = 500_000_000
"""Bytes a second.  A window that lets so many through is not what holds the peer back: a side moves
hardly twice as much, and a round that was as short as the one with half of the window shows that
both sides got going.  Without this, windows double up to 8 MiB on loopback, where they fill any
socket, and a peer that waits for its socket sends in pieces: a fourth fewer bytes a second for a
quarter more of a CPU (measured)."""

_NEVER = -math.inf
"""When the first round of a window began: so long ago that it counts for nothing.  To negate it for
each stream would cost more than to look it up."""


class LargestWindow:
    """The largest receive window of a session, which smaller ones may follow.

    How short a stream's rounds could be is found out when it begins, and what they take later
    depends on all the others.  So of equal streams one may stop growing at a fraction of what
    another has, and gets a fraction of its bytes.  But as long as windows are what holds streams
    back, whatever their sizes, their rounds take the same time: one that is used up as fast as the
    largest deserves as much.
    """

    __slots__ = ("_took", "size", "window")

    def __init__(self) -> None:
        self.window: ReceiveWindow | None = None
        self.size: int = 0
        """Bytes of it; 0 where none is known."""
        self._took = 0.0  # its latest round

    def forget(self) -> None:
        """Its stream has ended."""
        self.window = None
        self.size = 0

    def is_followed_by(self, window: ReceiveWindow, took: float) -> bool:
        """A window's round is over; whether it should follow the largest."""
        if window.size < self.size:
            return took < SLACK * self._took
        self.window, self.size, self._took = window, window.size, took
        return False


class ReceiveWindow:
    """What we allow the peer to send, and what of it the application has not consumed yet.

    ``credit`` is what the peer may still send, ``unconsumed`` what came and still waits,
    and the rest of ``size`` is what was consumed and not granted again: ``ungranted``.

    How large it has to be is found out in *rounds*.  A round is over when the peer has sent more
    than all that it could send when the round began: it can only once a later grant has reached
    it, so a round takes a round trip at least.  It takes just that as long as the window is what
    holds the peer back, however often it doubles; once the link is what does, or the peer
    itself, a window of twice the size takes twice the time.
    """

    __slots__ = (
        "_initial",
        "_round_left",
        "_shortest_round",
        "credit",
        "pinched",
        "round_since",
        "size",
        "unconsumed",
    )

    def __init__(self, initial: int) -> None:
        self.size: int = initial
        self.credit: int = initial
        self.pinched: bool = False
        """The peer could send more if the window were larger."""
        self._round_left = -1  # bytes to be consumed until the round is over, which is below 0
        self.round_since: float = _NEVER
        """When the present round began."""
        self._shortest_round = math.inf
        self.unconsumed: int = 0
        self._initial = initial

    @property
    def is_low(self) -> bool:
        """The peer may wait for more: it has used up half of the window or more."""
        return 2 * self.credit <= self.size

    @property
    def ungranted(self) -> int:
        """What the next grant carries."""
        return self.size - self.credit - self.unconsumed

    def take(self, size: int) -> bool:
        """``size`` bytes are coming; False when they are more than was promised."""
        credit = self.credit - size
        if credit < 0:
            return False
        self.credit = credit
        self.unconsumed += size
        if credit <= self.size >> 2 and self.size < PLENTY:
            self.pinched = True
        return True

    def consume(self, size: int) -> int:
        """The application took ``size`` bytes; the increment to send now, mostly 0.

        Granting each read again, as the Go peers do, doubles the number of frames; waiting for the
        whole window stalls the sender.  So half of the initial window is granted at a time.  That
        never grows with the window: a peer that clamps increments to its initial window would wait
        for credit forever (Rust).
        """
        unconsumed = self.unconsumed - size
        assert 0 <= unconsumed <= self.unconsumed
        self.unconsumed = unconsumed
        self._round_left -= size
        ungranted = self.size - self.credit - unconsumed
        return self.take_grant() if 2 * ungranted >= self._initial else 0

    def end_round(self, now: float, largest: LargestWindow) -> bool:
        """The window is what holds the peer back, not the application; to ask after ``consume``.

        That is so when the peer used up nearly all of it at once, of less than ``PLENTY``, or in a
        round that took hardly longer than the shortest, or than that of the session's ``largest``
        window, and the application has taken all that came.  ``now`` is when the latest bytes
        came, in seconds on any steady clock.
        """
        if self._round_left < 0:
            took = now - self.round_since
            self._shortest_round = min(self._shortest_round, took)
            enough = self.size >= max(PLENTY, took * ENOUGH)
            if took < SLACK * self._shortest_round and not enough:
                self.pinched = True
            if largest.is_followed_by(self, took):
                self.pinched = True
            self._round_left = self.credit + self.unconsumed
            self.round_since = now
        return self.pinched and not self.unconsumed

    def discard(self) -> int:
        """Nothing that came will be read: the increment that gives all of it back."""
        self.unconsumed = 0
        return self.take_grant()

    def grow(self, size: int) -> None:
        """Promise ``size`` bytes from now on; the next grant carries the surplus."""
        assert self.size <= size <= MAX_WINDOW
        self.size = size
        self.pinched = False

    def take_grant(self) -> int:
        """Promise again all that is ungranted, and return it as an increment."""
        increment = self.ungranted
        self.credit += increment
        return increment
