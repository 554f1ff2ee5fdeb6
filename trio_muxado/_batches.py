"""How much the frame writer gives to the transport at a time.

Nothing can overtake a batch that the transport has begun to take, and nothing but a socket shows
that it gets on before it has all of it.  So a batch must not take long; and where the link is fast
it should be large, because each costs a call.
"""

from __future__ import annotations

LARGEST = 252 * 1024
"""Bytes; more gains nothing: a call costs little against so many bytes, and they are copied.

Linux sends packets of almost 64 KiB, whole segments: 65,483 bytes on loopback, 65,160 over
Ethernet.  Four of those hold a batch.  With 256 KiB a few hundred bytes are left over, for which a
busy socket has to be waited for and written to once more, and which the peer reads by themselves
(measured: a fifth less with 100 bulk streams)."""

FIRST = 32 * 1024
"""Bytes.  A fast link has the largest after three batches; one of 7 KB/s takes this one within the
time that closing waits for a batch.  With 16 KiB a single v1 stream over a round trip of 100 ms
needs one more until its window has grown."""

SMALLEST = 4 * 1024
"""Bytes; less would only add headers and packets that are not full."""

SHORT = 0.010
"""Seconds in which a full batch has to be taken for the next to be twice as large: what waits for
that one then still waits for a time that nobody notices."""

LONG = 0.100
"""Seconds after which the next batch is half as large; far enough from ``SHORT`` that a steady
link keeps one size."""


class BatchSize:
    """Bytes of the next batch, as the ones before it went."""

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        self.bytes = FIRST

    def taken(self, size: int, seconds: float) -> None:
        """The transport needed so many seconds for a batch of ``size`` bytes."""
        if seconds > LONG:
            self.bytes = max(SMALLEST, self.bytes // 2)
        elif size >= self.bytes and seconds < SHORT:
            self.bytes = min(LARGEST, self.bytes * 2)
