"""Joining two streams: what comes on one goes out on the other, and so does how it ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import trio

from ._blame import code_for
from ._breaking import break_now
from ._checks import check_stream
from ._copying import close, end_on, has_ended, receive_on, send_now_on
from ._errors import MuxadoError, SessionClosedError, StreamResetError
from ._nursery import BareNursery, leaves, open_bare_nursery, raise_unchanged, without_cancelled
from ._patience import run_while_running
from ._protocol.checks import check_number
from ._protocol.errors import ErrorCode
from ._stream import MuxadoStream, wait_over
from ._transport.peer import lowest

ForwardedEnd: TypeAlias = Literal["eof", "broken", "idle"]
"""How a direction ended."""

PIECE = 64 * 1024
"""Bytes that are moved at a time where there is an idle timeout.  A sink has to take them within
it, or it counts as idle: more would take a slow one longer."""

LATE = 1.0
"""Seconds by which a timer has to be late to show that this process stood still, and not its
peers: what came meanwhile is moved before anybody is called idle."""

TURNS_TO_SEND = 5
"""Passes of trio's loop between the last bytes that were sent and a break, which takes with it
what has not gone out.  A session's frame writer needs three to send what it was given."""


TURNS_TO_FAIL = 2
"""Passes of trio's loop after which a send that has failed by now has raised."""


@dataclass(frozen=True)
class ForwardedDirection:
    """What became of one direction of a :func:`forward`.

    Attributes:
      bytes: how many bytes the stream that receives them accepted.
      end: ``"eof"``: everything was passed on, and the end after it.  ``"broken"``: either stream
        broke first.  ``"idle"``: ``idle_timeout`` passed first.
    """

    bytes: int
    end: ForwardedEnd


@dataclass(frozen=True)
class Forwarded:
    """What :func:`forward` did, and how it ended.

    Attributes:
      a_to_b: from the first stream to the second.
      b_to_a: from the second stream to the first.
      error: what broke the stream that broke first; None if neither did.
    """

    a_to_b: ForwardedDirection
    b_to_a: ForwardedDirection
    error: Exception | None = None

    @property
    def clean(self) -> bool:
        """Whether everything was passed on, in both directions, to a clean end."""
        return self.a_to_b.end == self.b_to_a.end == "eof"


async def forward(
    a: trio.abc.Stream, b: trio.abc.Stream, *, idle_timeout: float | None = None
) -> Forwarded:
    """Copy from each of two streams to the other until both directions have ended.

    Takes any two :class:`trio.abc.Stream`; owns both from the call on, and has closed both when it
    returns or raises.

    The end of one becomes ``send_eof`` on the other.  A stream that has none, such as one of TLS,
    is closed instead, once its own direction has ended as well: never earlier, as closing would
    end both.

    A break becomes a break, never an end.  When either stream breaks, a muxado stream is reset
    (with the code with which the other was reset; else STREAM_CANCELLED), a TCP connection by
    RST, and a TLS stream is cut without close_notify.  The same happens to both when the call is
    cancelled.  Pipes, Unix sockets and memory streams can't be broken, and are closed.  A wrapper
    of your own should show the stream that it wraps as ``transport_stream``, as
    :class:`trio.SSLStream` does: then that is broken.

    A stream of a session is watched for a break also once its direction has ended.  Of any other
    kind, a break then shows when something is sent.

    Args:
      a, b: the streams; no other task may use them.
      idle_timeout: seconds in which nothing moves in either direction, after which the streams
        are broken.  A stream that has received everything and only waits to be closed is closed
        instead.  A stream must accept 64 KiB in that time.  Time in which this process stood still
        does not count.  None waits for as long as the peers do, also for a TLS peer that neither
        ends its direction nor reads the end of ours.

    What a peer does is in the result and is not raised: :exc:`trio.BrokenResourceError`,
    :exc:`OSError`, and the end of the session, from whichever side.  Any other error is one of
    this program and is raised as it is, never in a group; both streams are broken then, with
    INTERNAL_ERROR.

    Raises:
      TypeError: ``a`` or ``b`` is not a stream, or ``idle_timeout`` not a number.
      ValueError: both are the same one, or ``idle_timeout`` is not positive.
      trio.ClosedResourceError: this program has closed one of the streams.
      trio.BusyResourceError: another task uses one of the streams.
    """
    check_stream("a", a)
    check_stream("b", b)
    if a is b:
        raise ValueError("a and b are the same stream")
    check_idle_timeout(idle_timeout)
    return await _Joint(a, b, idle_timeout).run()


def check_idle_timeout(idle_timeout: object) -> None:
    """Raise what ``forward`` raises for it."""
    if idle_timeout is not None:
        check_number("idle_timeout", idle_timeout, endless=True)


class _Way:
    """One direction while it runs."""

    def __init__(self, source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
        self.source = source
        self.sink = sink
        self.moved = 0
        self.source_ended = False
        """All that came has been moved, and the sink has heard of it if it can."""
        self.waiting: trio.Event | None = None
        """Set when the other way's source has ended, for which this way waits once its own has."""
        self.half = sink if isinstance(sink, trio.abc.HalfCloseableStream) else None
        """The sink, where it can hear of the end before the other direction has ended."""
        self.sending = False  # in the sink's own send_all
        self.sink_closed = False

    @property
    def sink_waits_to_be_closed(self) -> bool:
        """It got everything, and only its close can say so."""
        return self.source_ended and self.half is None

    def ended(self, otherwise: ForwardedEnd) -> ForwardedDirection:
        whole = self.source_ended and (self.sink_closed or self.half is not None)
        return ForwardedDirection(self.moved, "eof" if whole else otherwise)


class _Joint:
    """Two streams, with a task for each direction.

    Nothing leaves these tasks: the first thing that goes wrong is kept, and cancels the rest.
    """

    def __init__(self, a: trio.abc.Stream, b: trio.abc.Stream, idle_timeout: float | None) -> None:
        self._ways = _Way(a, b), _Way(b, a)
        self._idle_timeout = idle_timeout
        self._piece = None if idle_timeout is None else PIECE
        self._moved_at = trio.current_time()
        self._running = len(self._ways)
        self._ended = trio.Event()  # both ways
        self._idle = False
        self._broke: Exception | None = None
        self._failure: BaseException | None = None

    async def run(self) -> Forwarded:
        try:
            async with open_bare_nursery() as nursery:
                for way, back in zip(self._ways, reversed(self._ways), strict=True):
                    nursery.inner.start_soon(self._serve, nursery, way, back)
                if self._idle_timeout is not None:
                    await nursery.guard(self._watch, nursery, self._idle_timeout)
            if self._failure is not None:
                raise_unchanged(self._failure)
            if self._broke is not None or self._idle:
                await self._end_early()
        except BaseException as error:
            await self._break_both(code_for(error))
            raise
        otherwise: ForwardedEnd = "idle" if self._idle else "broken"
        a_to_b, b_to_a = self._ways
        return Forwarded(a_to_b.ended(otherwise), b_to_a.ended(otherwise), self._broke)

    async def _serve(self, nursery: BareNursery, way: _Way, back: _Way) -> None:
        try:
            await self._copy(way, back)
            way.source_ended = True
            if back.waiting is not None:
                back.waiting.set()
            if not back.source_ended:
                await self._wait_for(way, back)
            await close(way.sink)
            way.sink_closed = True
        except BaseException as error:
            failure = without_cancelled(error)
            if failure is not None:
                self._went_wrong(failure)
                both_ended = way.source_ended and back.source_ended
                if self._failure is not None or not both_ended:
                    nursery.cancel()  # else the other is just being closed
        self._running -= 1
        if not self._running:
            self._ended.set()

    async def _wait_for(self, way: _Way, back: _Way) -> None:
        """Wait until the other way has ended; or hear that whoever has ended its own has gone."""
        below = lowest(way.source)
        if isinstance(below, MuxadoStream):
            # Nothing is received from it any more, so nothing else says that it broke.
            way.waiting = trio.Event()
            if await wait_over(below, way.waiting) and not back.source_ended:
                error = await _why_broken(below)
                if error is not None:
                    raise error
        if not back.source_ended:
            way.waiting = trio.Event()
            await way.waiting.wait()

    async def _copy(self, way: _Way, back: _Way) -> None:
        receive, send_now = receive_on(way.source, self._piece), send_now_on(way.sink)
        while chunk := await receive():
            self._moved_at = trio.current_time()
            if rest := send_now(chunk):
                way.sending = True
                await way.sink.send_all(rest)
                way.sending = False
                rest = b""  # a view of it would keep a source from using its buffer again
                self._moved_at = trio.current_time()
            way.moved += len(chunk)
            if has_ended(way.source):
                break
        self._moved_at = trio.current_time()
        # Nor is it an end, perhaps: who sends to a socket that was reset takes its only error, and
        # who receives is left with an end.  trio raises that error a pass of the loop later.
        for _ in range(TURNS_TO_FAIL if back.sending else 0):
            await trio.lowlevel.checkpoint()
        if self._broke is not None or self._failure is not None:
            await trio.lowlevel.checkpoint()  # which is cancelled
        if way.half is not None:
            await end_on(way.half)

    def _went_wrong(self, error: BaseException) -> None:
        """The first thing that does counts: what follows is mostly its echo."""
        if self._broke is not None or self._failure is not None:
            return
        if isinstance(error, Exception) and all(_is_of_a_peer(leaf) for leaf in leaves(error)):
            self._broke = error
        else:
            self._failure = error

    async def _watch(self, nursery: BareNursery, timeout: float) -> None:
        """Wait until both ways have ended, or nothing has moved for so long."""
        while (due := self._moved_at + timeout) > trio.current_time():
            with trio.move_on_at(due):
                await self._ended.wait()
                return
            if trio.current_time() > due + LATE:
                self._moved_at = trio.current_time()
        if self._running and self._broke is None and self._failure is None:
            self._idle = True
        nursery.cancel()

    async def _end_early(self) -> None:
        if self._broke is not None:
            for _ in range(TURNS_TO_SEND):
                await trio.lowlevel.checkpoint()
            await self._break_both(_code_of(self._broke))
            return
        for way in self._ways:
            if way.sink_waits_to_be_closed and not way.sink_closed:
                await self._close_in_time(way)
        await self._break_both(ErrorCode.STREAM_CANCELLED)

    async def _close_in_time(self, way: _Way) -> None:
        """A close of TLS waits for a peer that does not read: no longer than anything else."""
        assert self._idle_timeout is not None
        try:
            way.sink_closed = await run_while_running(self._idle_timeout, way.sink.aclose)
        except Exception as error:
            self._went_wrong(error)
            if self._failure is not None:
                raise

    async def _break_both(self, code: ErrorCode | int) -> None:
        a_to_b, b_to_a = self._ways
        try:
            if not a_to_b.sink_closed:
                await break_now(a_to_b.sink, code)
        finally:
            if not b_to_a.sink_closed:
                await break_now(b_to_a.sink, code)


async def _why_broken(stream: MuxadoStream) -> MuxadoError | None:
    """Of one that is over.  It may have been closed, which is the end of it anyway."""
    try:
        return await stream.wait_broken()
    except trio.ClosedResourceError:
        return None


def _is_of_a_peer(error: BaseException) -> bool:
    """The world did it, or whoever holds a session that carries one of the streams."""
    if isinstance(error, trio.ClosedResourceError) and not isinstance(error, SessionClosedError):
        # Another task may have closed a stream for the very break that it heard of first.
        return any(isinstance(cause, trio.BrokenResourceError) for cause in _causes(error))
    return isinstance(error, trio.BrokenResourceError | OSError | SessionClosedError)


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause = error.__cause__
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _code_of(error: Exception) -> ErrorCode | int:
    """The code of the reset that came, also from below TLS or another wrapper."""
    for leaf in leaves(error):
        for cause in (leaf, *_causes(leaf)):
            if isinstance(cause, StreamResetError):
                return cause.code
    return ErrorCode.STREAM_CANCELLED
