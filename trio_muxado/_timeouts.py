"""Timers of a session: for a transport that takes nothing, and for closing."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from ._errors import CloseReason
from ._protocol.errors import ErrorCode

if TYPE_CHECKING:
    from ._config import MuxadoConfig
    from ._slots import Slots
    from ._steps import Steps
    from ._writer import FrameWriter

logger = logging.getLogger("trio_muxado")

PROBE_INTERVAL = 5.0
"""Seconds between two looks at the streams that wait for window.  At the second one the peer is
asked whether it still has the stream, then at the fourth, the eighth, and so on."""

LONG_WAIT = 10.0
"""Seconds in ``open_stream`` after which the log says what it waits for."""

LOOKS = 4
"""How often within ``close_timeout`` the closing timer looks for progress."""


class SendTimer:
    """Ends the session when the transport has not taken a batch within ``timeout`` seconds."""

    __slots__ = ("_abort", "_excused", "_since", "_timeout", "_writer")

    gives_up = True

    def __init__(
        self, writer: FrameWriter, timeout: float, abort: Callable[[CloseReason], None]
    ) -> None:
        self._writer = writer
        self._timeout = timeout
        self._abort = abort
        self._since = 0.0
        self._excused: float | None = None  # the batch that waited when the process stood still

    @property
    def due(self) -> float:
        since = self._writer.blocked_since
        return math.inf if since is None else max(self._since, since) + self._timeout

    def stood_still(self, now: float, late: float) -> None:
        batch = self._writer.blocked_since
        if batch != self._excused:
            self._excused = batch
            self._since = now

    def ring(self, now: float) -> None:
        message = f"the transport accepted nothing for {self._timeout:g} s"
        self._abort(CloseReason(ErrorCode.WRITE_TIMEOUT, "transport", message))


class OpenTimer:
    """Says once, in the log, that tasks wait for long in ``open_stream``.

    ``describe()`` names the session.
    """

    __slots__ = ("_describe", "_logged", "_slots")

    gives_up = False

    def __init__(self, slots: Slots, describe: Callable[[], str]) -> None:
        self._slots = slots
        self._describe = describe
        self._logged = False

    @property
    def due(self) -> float:
        since = self._slots.waited_since
        return math.inf if since is None or self._logged else since + LONG_WAIT

    def stood_still(self, now: float, late: float) -> None:
        pass

    def ring(self, now: float) -> None:
        self._logged = True
        logger.info(
            "%s: open_stream waits, as max_outbound_streams (%d) of this side are open",
            self._describe(),
            self._slots.limit,
        )


class ProbeTimer:
    """Asks, for streams that the peer's window has held up for long, whether it has them.

    Go v2 closes a stream without a word to a sender whose window is used up.  Then nobody would
    tell whoever waits to send, and a stream that is closed here would keep its slot.
    """

    __slots__ = ("_steps", "due")

    gives_up = False

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self.due = math.inf

    def begin(self) -> bool:
        """A stream has begun to wait for window; whether none did before."""
        if self.due < math.inf:
            return False
        self.due = trio.current_time() + PROBE_INTERVAL
        return True

    def stood_still(self, now: float, late: float) -> None:
        pass

    def ring(self, now: float) -> None:
        connection = self._steps.connection
        if connection.probe():
            self._steps.done()
        self.due = math.inf if connection.all_sent else now + PROBE_INTERVAL


class FirstStreamTimer:
    """Ends the session of a peer that has not opened a stream ``timeout`` seconds from now."""

    gives_up = True

    def __init__(
        self,
        timeout: float,
        has_opened: Callable[[], bool],
        abort: Callable[[CloseReason], None],
    ) -> None:
        self._timeout = timeout
        self._has_opened = has_opened
        self._abort = abort
        self._excused = False
        self.due = trio.current_time() + timeout

    def stood_still(self, now: float, late: float) -> None:
        if not self._excused:
            self._excused = True
            self.due = now + self._timeout

    def ring(self, now: float) -> None:
        self.due = math.inf
        if not self._has_opened():
            message = f"the peer opened no stream within {self._timeout:g} s"
            self._abort(CloseReason(ErrorCode.STREAM_REFUSED, "local", message))


class ClosingTimer:
    """Calls ``give_up`` when closing has made no progress for ``config.close_timeout`` seconds.

    Nor may it take more than ``config.close_deadline`` seconds in all: a peer that reads a byte now
    and then would otherwise decide how long it lasts.
    """

    __slots__ = (
        "_ends",
        "_excused",
        "_flushed",
        "_give_up",
        "_interval",
        "_looks",
        "_waiting",
        "_writer",
        "due",
    )

    gives_up = True

    def __init__(
        self, writer: FrameWriter, config: MuxadoConfig, give_up: Callable[[], None]
    ) -> None:
        self._writer = writer
        self._interval = config.close_timeout / LOOKS
        self._give_up = give_up
        self._flushed = writer.flushed.is_set()
        self._excused = False
        now = trio.current_time()
        self._ends = now + config.close_deadline
        self._look_again(now)

    def _look_again(self, now: float) -> None:
        self._looks = 0  # without progress
        self._waiting = self._measure()
        self.due = min(now + self._interval, self._ends)

    def flushed(self) -> None:
        """All has been given to the transport; now the peer has to receive it."""
        if not self._flushed:
            self._flushed = True
            self._look_again(trio.current_time())

    def stood_still(self, now: float, late: float) -> None:
        self._ends += late
        if not self._excused:
            self._excused = True
            self._look_again(now)

    def ring(self, now: float) -> None:
        before, self._waiting = self._waiting, self._measure()
        self._looks += 1
        if any(now_waits < waited for waited, now_waits in zip(before, self._waiting, strict=True)):
            self._looks = 0
            self._excused = False
        if self._looks == LOOKS or now >= self._ends:
            self._give_up()
        self.due = min(now + self._interval, self._ends)

    def _measure(self) -> tuple[int, int, int]:
        """What waits in streams and in the writer, parts of batches to go, and what is unread.

        Each number that falls is progress.  Heartbeats make none: while the transport accepts
        everything, what the system holds says nothing of the streams.
        """
        writer = self._writer
        asks_system = self._flushed or writer.blocked_since is not None
        return (writer.unsent, -writer.parts, writer.unacknowledged() if asks_system else 0)
