"""MuxadoSession: what a user holds of a session."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Literal, Protocol

import trio

from ._config import MuxadoConfig
from ._engine import Engine
from ._errors import CloseReason, NoMoreStreamsError, OpenStreamError, SessionClosedError
from ._nursery import BareNursery, leaves, open_bare_nursery, task_name, without_cancelled
from ._protocol.codec import MAX_DEBUG
from ._protocol.errors import ErrorCode, OpenRefused, check_code
from ._statistics import SessionStatistics, statistics_of
from ._stream import MuxadoStream

MAX_BURST = 7
"""Streams that ``serve_streams`` takes up in one turn of trio's loop, at most.

One a turn, and a burst of requests costs a transport write for each answer.  All in one turn,
and the two ends work by turns, each waiting for the other's batch: with 64 requests at once two
processes on two cores then do a third less.  With 7 they do a tenth more than with 13 for the
same CPU time; 5 and 9 are between.
"""

_numbers = itertools.count(1)
"""Of the sessions in this process: where many share a tracer or a log, each is known by its own."""


class _Keepalive(Protocol):
    """What measures the round trip; the heartbeat puts itself here."""

    latency: float | None

    async def ping(self) -> float: ...


class MuxadoSession(trio.abc.Listener[MuxadoStream]):
    """One end of a muxado session over any :class:`trio.abc.Stream`.

    Made by :func:`open_muxado_session`, :func:`client_session`, :func:`server_session` and the
    ``serve`` functions.  It is also a :class:`trio.abc.Listener` whose connections are the
    streams that the peer opens.
    """

    def __init__(
        self, transport_stream: trio.abc.Stream, *, client: bool, config: MuxadoConfig
    ) -> None:
        self._client = client
        self._config = config
        self._engine = Engine(
            transport_stream,
            client=client,
            config=config,
            make_stream=partial(MuxadoStream, self),
            number=next(_numbers),
        )
        self._keepalive: _Keepalive | None = None

    def __repr__(self) -> str:
        role = "client" if self._client else "server"
        state = self._engine.connection.state.name.lower()
        return f"<MuxadoSession {self._engine.number} {role} {self.wire or 'undetected'} {state}>"

    @property
    def transport_stream(self) -> trio.abc.Stream:
        """The stream that carries the session; for looking at, not for using."""
        return self._engine.transport

    @property
    def config(self) -> MuxadoConfig:
        """What the session was made with."""
        return self._config

    @property
    def wire(self) -> Literal["v1", "v2"] | None:
        """The generation of the protocol; None while a server has not heard from its client."""
        wire = self._engine.connection.wire
        return None if wire is None else wire.name

    @property
    def latency(self) -> float | None:
        """Seconds of the latest heartbeat's round trip; None before the first."""
        return None if self._keepalive is None else self._keepalive.latency

    # ---- streams

    async def open_stream(self, *, type: int = 0, priority: int = 0) -> MuxadoStream:
        """Open a stream.  It can be used at once, there is no round trip.

        Waits while ``MuxadoConfig.max_outbound_streams`` of this end's streams live, and on a
        server that detects the wire until the client has sent its first bytes.  When it is
        cancelled, no stream has been opened.

        Args:
          type: a number for the application, 0 to 2^32 - 1 but for the heartbeat's own; on v2
            only in typed sessions.
          priority: 0 to 2^31 - 1, higher is sent first.  v1 tells the peer, v2 cannot.

        Raises:
          OpenStreamError: the peer is going away or all ids are used.
          SessionClosedError, SessionEndedError: the session is over.  ``safe_to_retry`` is true
            of all three, on another session.
          ValueError: a number out of range, or a type on an untyped v2 session.
        """
        await self._engine.places.wait_for_place()
        if type:
            self._check_type(type)
        return self._open(type, priority)

    def _check_type(self, type: int) -> None:
        engine = self._engine
        wire = engine.connection.wire
        if wire is not None and type == wire.heartbeat_type:
            engine.changed()  # the place is free again
            raise ValueError(f"{type:#x} is the type of heartbeats: see ping()")

    def _open(self, type: int, priority: int) -> MuxadoStream:
        engine = self._engine
        if engine.over:
            raise engine.ended_error("open_stream", safe_to_retry=True)
        try:
            core = engine.connection.open_stream(stream_type=type, priority=priority)
        except OpenRefused as refused:
            engine.changed()  # the place is free again
            raise OpenStreamError(
                f"open_stream: {refused}",
                code=refused.code,
                initiator="remote" if refused.code is ErrorCode.REMOTE_GONE_AWAY else "local",
                debug=engine.connection.peer_debug,
                safe_to_retry=True,
            ) from None
        except ValueError:
            engine.changed()
            raise
        engine.writer.wake()
        return MuxadoStream(self, core)

    def open_stream_nowait(self, *, type: int = 0, priority: int = 0) -> MuxadoStream:
        """Like :meth:`open_stream`, but raise :exc:`trio.WouldBlock` where that would wait."""
        engine = self._engine
        if self.can_open and (not engine.wire_known.is_set() or engine.places.free <= 0):
            raise trio.WouldBlock
        if type:
            self._check_type(type)
        return self._open(type, priority)

    @property
    def can_open(self) -> bool:
        """Whether streams can still be opened, now or after a wait.

        False once the peer is going away, this end closes the session, or it is over.
        """
        return self._engine.connection.can_open and not self._engine.over

    async def accept_stream(self) -> MuxadoStream:
        """Wait for the next stream that the peer opens.  Any number of tasks may wait.

        Raises:
          NoMoreStreamsError: the peer has ended the session in good order.
          SessionEndedError: the session broke.
          SessionClosedError: this end has closed it.
        """
        (stream,) = await self._take(1)
        self._engine.connection.accept(stream._core)
        return stream

    async def _take(self, most: int) -> list[MuxadoStream]:
        streams = await self._engine.backlog.take(most)
        if not streams:
            error = self._engine.ended_error("accept_stream", NoMoreStreamsError)
            raise error from error.__cause__
        return streams

    accept = accept_stream
    """The name that :class:`trio.abc.Listener` has for it: ``trio.serve_listeners(handler,
    [session])`` serves a session's streams."""

    def __aiter__(self) -> MuxadoSession:
        """Every stream that the peer opens, until the peer ends the session in good order."""
        return self

    async def __anext__(self) -> MuxadoStream:
        try:
            return await self.accept_stream()
        except NoMoreStreamsError:
            raise StopAsyncIteration from None

    async def serve_streams(self, handler: Callable[[MuxadoStream], Awaitable[Any]]) -> None:
        """Run ``handler(stream)`` in a task for every stream that the peer opens.

        Returns when the session has been closed in good order from either end and the handlers
        are done.  A stream is closed when its handler returns.  When a stream breaks (the peer
        resets it), the error ends that handler and nothing else.  Any other error of a handler
        is its own bug: the stream is reset with INTERNAL_ERROR, the other handlers are
        cancelled, and the error is raised here as it is.  The tasks have the handler's name.

        Raises:
          SessionEndedError: the session broke; running handlers were cancelled.
        """
        hold = self._engine.connection.hold
        name = task_name(handler)
        async with open_bare_nursery() as nursery:
            start_soon = nursery.inner.start_soon
            try:
                while True:
                    for stream in await self._take(MAX_BURST):
                        hold(stream._core)
                        start_soon(self._handle, nursery, handler, stream, name=name)
            except (NoMoreStreamsError, SessionClosedError):
                pass

    async def _handle(
        self,
        nursery: BareNursery,
        handler: Callable[[MuxadoStream], Awaitable[Any]],
        stream: MuxadoStream,
    ) -> None:
        try:
            await handler(stream)
        except BaseException as error:
            # A handler's own nursery makes a group of it.
            broke = all(isinstance(leaf, trio.BrokenResourceError) for leaf in leaves(error))
            if not broke or stream._core.broken is None:
                cancelled = without_cancelled(error) is None
                stream._reset_now(
                    ErrorCode.STREAM_CANCELLED if cancelled else ErrorCode.INTERNAL_ERROR
                )
                nursery.fail(error)
                return
            self._engine.tell_end(stream._core, "a handler ended with its stream", error)
        if stream._closed is None:
            stream._close_now()  # the task ends here: no checkpoint is owed

    def statistics(self) -> SessionStatistics:
        """What the session has done so far, and what it holds; also once it is over."""
        return statistics_of(self._engine, self.latency)

    # ---- the peer, and the end

    async def ping(self) -> float:
        """Measure the round trip to the peer's session, in seconds.

        Uses the heartbeat stream, and does not count against it.

        Raises:
          HeartbeatError: the session has no heartbeats (untyped v2), or the peer stopped them.
          SessionClosedError, SessionEndedError: the session is over.
        """
        await trio.lowlevel.checkpoint()
        assert self._keepalive is not None
        return await self._keepalive.ping()

    async def goaway(self, code: ErrorCode | int = ErrorCode.NO_ERROR, debug: bytes = b"") -> None:
        """Take no new streams of the peer; those that run go on.

        Args:
          code: why; the peer's ``wait_closed`` reports it.
          debug: a text for the peer's log, at most 4 KiB.

        Raises:
          SessionClosedError, SessionEndedError: the session is over.
        """
        await trio.lowlevel.checkpoint()
        engine = self._engine
        check_code(code)
        if len(debug) > MAX_DEBUG:
            raise ValueError(f"debug text has at most {MAX_DEBUG} bytes, not {len(debug)}")
        await engine.wire_known.wait()
        if engine.over:
            raise engine.ended_error("goaway")
        engine.goaway(code, debug)

    async def drain(self) -> None:
        """Take no new streams of the peer, and wait until all streams have ended.

        Those of extensions are among them, and heartbeats are not.  What this end opens is its own
        to stop.  Leave the ``async with`` afterwards, or call :meth:`aclose`, to end the session.

        Raises:
          SessionClosedError: this end has closed the session before.
          SessionEndedError: the session broke, now or before.
        """
        await self.goaway()
        engine = self._engine
        await engine.places.wait_until_idle()
        if engine.reason is not None and not engine.reason.clean:
            raise engine.ended_error("drain")

    async def aclose(self) -> None:
        """End the session gracefully; when cancelled, at once.

        Sends GOAWAY and everything that streams had accepted, half-closes the transport where
        it can, and waits for the peer to end.  Gives up after ``MuxadoConfig.close_timeout``
        seconds without progress.  Streams of the peer that nobody has accepted are refused, which
        is safe to retry; others that nobody has closed break, here and at the peer.
        """
        await self._engine.close()

    @property
    def close_reason(self) -> CloseReason | None:
        """Why the session ended; None while it lives."""
        return self._engine.reason

    async def wait_closed(self) -> CloseReason:
        """Wait until the session is over, and return why; does not end it."""
        await self._engine.ended.wait()
        reason = self._engine.reason
        assert reason is not None
        return reason
