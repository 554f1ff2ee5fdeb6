"""Heartbeats, as the known peers have them.

The requester opens one stream of the heartbeat type and keeps it.  Every interval it writes four
bytes, and the responder on the other side sends them back.  Neither is a task: the requester acts
when the session's keepalive rings, and both when the frame reader hands them something.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import trio

from ._errors import CloseReason, HeartbeatError
from ._protocol.codec import MAX_PRIORITY
from ._protocol.errors import ErrorCode, OpenRefused

if TYPE_CHECKING:
    from ._config import Heartbeat
    from ._ending import Ending
    from ._keepalive import Keepalive, Timer
    from ._protocol.stream import Stream
    from ._protocol.wire import Wire
    from ._reader import FrameReader
    from ._steps import Steps

logger = logging.getLogger("trio_muxado")

SIZE = 4
"""Bytes of a heartbeat: a u32 of the requester's choice."""

SPEAK_AFTER = 0.5
"""Seconds in which a client of v1 without heartbeats may say nothing.  Most have opened a stream by
then, which says it as well."""

OPEN_AFTER = 0.5
"""Seconds after which a server opens its heartbeat stream.  Nothing goes over it before the first
interval is over, and a session that is shorter does without: the stream, a batch with the frame
that opens it, and a read on the other side are a twelfth of what such a session costs."""

MAX_UNANSWERED = 64
"""Heartbeats that may wait for their echo, from a peer that talks but does not answer them."""

MAX_UNSENT_ECHOES = 64 * 1024
"""Bytes of echoes that may wait to be sent.  A peer that does not read them gets no more credit."""


class Responder:
    """Sends every heartbeat of the peer back, on the stream that the peer opened for them."""

    def __init__(self, steps: Steps, ending: Ending, stream: Stream) -> None:
        self._steps = steps
        self._ending = ending
        self._stream = stream
        self._part = b""  # of a heartbeat that has not come whole
        self._withheld = 0  # bytes that came and were not granted again
        # A heartbeat that waits for bulk says nothing, and users may choose the highest priority
        # that the wire carries.
        steps.connection.put_above_all(stream)

    def put(self, data: bytes, ended: bool) -> None:
        """Echo what is whole; the peer's end ends this side as well."""
        stream, steps = self._stream, self._steps
        if stream.broken is not None:
            return  # by what came after this
        received = self._part + data
        whole = len(received) - len(received) % SIZE
        if whole:
            steps.send(stream, received[:whole])
        self._part = received[whole:]
        if ended:
            steps.close(stream)
            return
        self._withheld += len(data)
        if stream.outgoing.size <= MAX_UNSENT_ECHOES:
            steps.consume(stream, self._withheld)
            self._withheld = 0

    def break_off(self) -> None:
        """The stream broke."""
        assert self._stream.broken is not None
        message = self._stream.broken.message
        self._ending.log_end(self._stream, "answering heartbeats ended", message)
        self._steps.close(self._stream)


class Heartbeats:
    """Asks the peer for echoes: at intervals, and when the user pings.

    A session is dead when *nothing at all* has come from the peer for interval and tolerance.  Any
    byte is a sign of life, also one that nobody has read yet.  What the transport accepts is none:
    it accepts much for a peer that is gone.

    Where there are to be heartbeats and can't be any, ``watch_otherwise`` is called: once they
    could not begin, and once the peer has ended them.
    """

    __slots__ = (
        "_client",
        "_config",
        "_echo",
        "_ending",
        "_keepalive",
        "_next",
        "_reader",
        "_steps",
        "_stream",
        "_timers",
        "_type",
        "_unanswered",
        "_waiting",
        "_watch_otherwise",
        "_why_none",
        "latency",
    )

    def __init__(
        self,
        config: Heartbeat | None,
        steps: Steps,
        ending: Ending,
        keepalive: Keepalive,
        reader: FrameReader,
        *,
        client: bool,
        watch_otherwise: Callable[[], None],
    ) -> None:
        self._config = config
        self._client = client
        self._steps = steps
        self._ending = ending
        self._keepalive = keepalive
        self._reader = reader
        self._watch_otherwise = watch_otherwise
        self._type: int | None = None  # of heartbeat streams; None where there are none
        self._stream: Stream | None = None  # while heartbeats can be sent
        self._timers: list[Timer] = []
        self._why_none = ""
        self._next = 0  # number of the next heartbeat
        self._unanswered = 0  # heartbeats before it that have no echo
        self._echo = b""  # part of one
        self._waiting: dict[int, _Ping] = {}  # whose round trip is measured
        self.latency: float | None = None
        """Seconds of the latest round trip."""

    def begin(self, wire: Wire) -> None:
        """The protocol version is known, and the session carries heartbeats."""
        self._type = wire.heartbeat_type
        if self._config is None:
            if self._client and wire.has_syn_frame:
                self._keepalive.add(_Once(SPEAK_AFTER, self._speak))
            return
        interval, tolerance = self._config.interval, self._config.tolerance
        interval = wire.heartbeat_interval if interval is None else interval
        tolerance = wire.heartbeat_tolerance if tolerance is None else tolerance
        begin_sending = partial(self._begin_sending, trio.current_time(), interval, tolerance)
        if self._client:  # its first frame says which version it speaks
            begin_sending()
        else:
            self._keepalive.add(_Once(min(OPEN_AFTER, interval), begin_sending))

    def _begin_sending(self, began: float, interval: float, tolerance: float) -> None:
        # A ping may have opened the stream, which may have ended since.
        if self._type is None or self._ending.over:
            return
        if self._stream is None and not self._open():
            self._watch_otherwise()
            return
        self._timers = [
            _HeartbeatDue(began, interval, self._send_at_interval),
            _PeerSilent(began, interval + tolerance, self._reader, self._keepalive.abort),
        ]
        for timer in self._timers:
            self._keepalive.add(timer)

    def _speak(self) -> None:
        # A server learns the version from the first frame, and can open no stream before.  The Go
        # client's first frame is the one that opens its heartbeat stream.
        # A server that has spoken knows it already.
        if not (self._steps.writer.bytes_sent or self._reader.bytes_received or self._stream):
            self._open()

    def _open(self) -> bool:
        assert self._type is not None
        try:
            self._stream = self._steps.open(self._type, MAX_PRIORITY)
        except OpenRefused as refused:
            self._why_none = f"heartbeats could not begin: {refused}"
            return False
        self._steps.connection.put_above_all(self._stream)
        self._steps.receivers[self._stream] = self
        return True

    async def ping(self) -> float:
        """One round trip, in seconds.  When it is cancelled, nobody is left waiting."""
        if self._type is None or (self._stream is None and not self._open()):
            raise _no_heartbeats(self._why_none)
        number = self._send()
        ping = self._waiting[number]
        try:
            await ping.answered.wait()
        finally:
            self._waiting.pop(number, None)
        if ping.latency is not None:
            return ping.latency
        if self._ending.reason is not None:
            raise self._ending.error("ping")
        raise _no_heartbeats(self._why_none)

    def _send_at_interval(self) -> None:
        # Also while an echo is missing: where ours waits in a slow link, the peer hears us.
        if self._unanswered < MAX_UNANSWERED:
            self._send()

    def _send(self) -> int:
        # Go v1 wants its own four bytes back and nothing else; a number is as good as any.
        number = self._next
        self._next = (number + 1) & 0xFFFFFFFF
        self._unanswered += 1
        self._waiting[number] = _Ping()
        assert self._stream is not None
        self._steps.send(self._stream, number.to_bytes(SIZE, "big"))
        return number

    # ---- what the frame reader hands over

    def put(self, data: bytes, ended: bool) -> None:
        """Match echoes with heartbeats; they come in the order in which those were sent."""
        assert self._stream is not None
        received = self._echo + data
        whole = len(received) - len(received) % SIZE
        for start in range(0, whole, SIZE):
            number = int.from_bytes(received[start : start + SIZE], "big")
            ahead = (self._next - number) & 0xFFFFFFFF  # 1 for the latest that was sent
            if not 0 < ahead <= self._unanswered:
                self._why_none = "the peer sent a heartbeat back that was not sent"
                logger.debug(self._why_none)
                self._end(ErrorCode.PROTOCOL_ERROR)
                return
            if ahead < self._unanswered:
                self._forget_older(ahead)
            self._unanswered = ahead - 1
            if (ping := self._waiting.pop(number, None)) is not None:
                self.latency = ping.answer()
        self._echo = received[whole:]
        if ended:
            self._why_none = "the peer has ended the heartbeat stream"
            self._end(None)
        else:
            self._steps.consume(self._stream, len(data))

    def _forget_older(self, ahead: int) -> None:
        """Let nobody wait for an echo that the peer has left out."""
        left_out: list[int] = []
        for number in self._waiting:
            if (self._next - number) & 0xFFFFFFFF <= ahead:
                break
            left_out.append(number)
        for number in left_out:
            self._why_none = "the peer left a heartbeat out"
            self._waiting.pop(number).answered.set()

    def break_off(self) -> None:
        """The heartbeat stream broke."""
        assert self._stream is not None
        broken = self._stream.broken
        assert broken is not None
        self._why_none = f"heartbeats have ended: {broken.message}"
        # A peer that goes away need not accept what crosses its GOAWAY: that is no mishap.
        if self._steps.connection.can_open or not broken.safe_to_retry:
            self._ending.log_end(self._stream, "heartbeats end", broken.message)
        self._end(None)

    def _end(self, code: ErrorCode | None) -> None:
        assert self._stream is not None
        stream, self._stream = self._stream, None
        self._type = None
        if code is None:
            self._steps.close(stream)
        else:
            self._steps.reset(stream, code)
        for timer in self._timers:
            self._keepalive.remove(timer)
        self._timers.clear()
        if self._config is not None and not self._ending.over:
            self._watch_otherwise()
        for ping in self._waiting.values():
            ping.answered.set()
        self._waiting.clear()


class _Once:
    """Calls ``act`` after so many ``seconds``."""

    gives_up = False

    def __init__(self, seconds: float, act: Callable[[], None]) -> None:
        self._act = act
        self.due = trio.current_time() + seconds

    def stood_still(self, now: float, late: float) -> None:
        """It is due all the same."""

    def ring(self, now: float) -> None:
        self.due = math.inf
        self._act()


class _HeartbeatDue:
    gives_up = False

    def __init__(self, began: float, interval: float, send: Callable[[], object]) -> None:
        self._interval = interval
        self._send = send
        self.due = began + interval

    def stood_still(self, now: float, late: float) -> None:
        """The one that was due meanwhile is still to be sent."""

    def ring(self, now: float) -> None:
        self.due = now + self._interval
        self._send()


class _PeerSilent:
    gives_up = True

    def __init__(
        self,
        began: float,
        patience: float,
        reader: FrameReader,
        abort: Callable[[CloseReason], None],
    ) -> None:
        self._patience = patience
        self._reader = reader
        self._abort = abort
        self._since = began
        self._excused: float | None = None  # heard last when the process had stood still

    @property
    def due(self) -> float:
        return max(self._since, self._reader.last_heard) + self._patience

    def stood_still(self, now: float, late: float) -> None:
        if self._excused != self._reader.last_heard:
            self._excused = self._reader.last_heard
            self._since = now

    def ring(self, now: float) -> None:
        message = f"nothing came from the peer for {self._patience:g} s"
        self._abort(CloseReason(ErrorCode.INTERNAL_ERROR, "transport", message))


class _Ping:
    __slots__ = ("answered", "latency", "sent")

    def __init__(self) -> None:
        self.sent = trio.current_time()
        self.answered = trio.Event()
        self.latency: float | None = None

    def answer(self) -> float:
        self.latency = trio.current_time() - self.sent
        self.answered.set()
        return self.latency


async def ping(heartbeats: Heartbeats | None, ending: Ending) -> float:
    """One round trip, in seconds, on a session whose version is known."""
    if ending.over:
        raise ending.error("ping")
    if heartbeats is None:
        raise _no_heartbeats("this session has no heartbeats (v2 has them only when typed)")
    return await heartbeats.ping()


def _no_heartbeats(message: str) -> HeartbeatError:
    return HeartbeatError(message, code=ErrorCode.NO_ERROR, initiator="remote")
