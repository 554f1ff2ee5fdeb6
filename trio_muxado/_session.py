"""MuxadoSession: what a user holds of a session."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from functools import partial
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import trio
from trio.lowlevel import checkpoint

from ._blame import code_for, is_end_of_stream
from ._checks import check_awaitable, check_function
from ._config import MuxadoConfig
from ._errors import (
    CloseReason,
    MuxadoError,
    NoMoreStreamsError,
    OpenStreamError,
    Origin,
)
from ._heartbeat import ping
from ._nursery import open_bare_nursery, task_name, without_cancelled
from ._protocol.checks import NONE, check_bytes, check_opening
from ._protocol.codec import MAX_DEBUG
from ._protocol.errors import ErrorCode, OpenRefused, check_code
from ._protocol.states import RECEIVE_DATA
from ._receive_channel import ReceiveChannel
from ._statistics import SessionStatistics, StreamCounts
from ._stream import MuxadoStream
from ._stream_steps import close_now, core_of, reset_now
from ._transport.peer import peer_certificate

if TYPE_CHECKING:
    from ._engine import Engine
    from ._protocol.stream import Stream

Handler: TypeAlias = Callable[[MuxadoStream], Awaitable[Any]]

MAX_BURST = 7
"""Streams that ``serve_streams`` accepts in one pass of trio's loop, at most.

One in a pass, and a burst of requests costs a transport write for each answer.  All in one pass,
and the two sides work alternately, each waiting for the other's batch: with 64 requests at once two
processes on two cores then do a third less.  With 7 they do a tenth more than with 13 for the
same CPU time; 5 and 9 are between.
"""


class MuxadoSession(trio.abc.Listener[MuxadoStream]):
    """One side of a muxado session over any :class:`trio.abc.Stream`.

    Made by :func:`open_muxado_session`, :func:`client_session`, :func:`server_session` and the
    ``serve`` functions.  It is also a :class:`trio.abc.Listener` whose connections are the
    streams that the peer opens.
    """

    def __init__(self, engine: Engine, *, client: bool) -> None:
        self._engine = engine
        self._client = client
        if engine.config.extensions:
            engine.serve_extension = self._serve_extension

    def __repr__(self) -> str:
        role = "client" if self._client else "server"
        state = self._engine.connection.state.name.lower()
        return f"<MuxadoSession {self._engine.number} {role} {self.wire or 'undetected'} {state}>"

    @property
    def transport_stream(self) -> trio.abc.Stream:
        """The stream that carries the session: to look at, not to use."""
        return self._engine.transport

    @property
    def peer_address(self) -> Any | None:
        """The peer's address as the socket reports it; None if no socket carries the session.

        For TCP it is a tuple that begins with host and port.  It stays when the session is over.
        """
        return self._engine.peer_address

    @property
    def peer_certificate(self) -> dict[str, Any] | None:
        """The certificate that the peer presented, as :meth:`ssl.SSLSocket.getpeercert` returns it.

        None without TLS, and if the peer presented none or this side did not ask for it.
        """
        return peer_certificate(self._engine.transport)

    @property
    def config(self) -> MuxadoConfig:
        """The session's configuration."""
        return self._engine.config

    @property
    def wire(self) -> Literal["v1", "v2"] | None:
        """The protocol version; None while a server has not heard from its client."""
        wire = self._engine.connection.wire
        return None if wire is None else wire.name

    @property
    def latency(self) -> float | None:
        """Seconds of the latest heartbeat's round trip; None before the first."""
        heartbeats = self._engine.heartbeats
        return None if heartbeats is None else heartbeats.latency

    # ---- streams

    async def open_stream(self, *, type: int = NONE, priority: int = NONE) -> MuxadoStream:
        """Open a stream.  It can be used at once: there is no round trip.

        Waits while ``MuxadoConfig.max_outbound_streams`` of this side's streams are open.  On a
        server that detects the protocol version, waits until the client has sent its first bytes.
        When it is cancelled, no stream has been opened.

        Args:
          type: a number for the application, 0 to 2^32 - 1 but for the heartbeat's own; on v2
            only in typed sessions.
          priority: 0 to 2^31 - 1, higher is sent first.  v1 carries it to the peer, v2 cannot.

        Raises:
          OpenStreamError: the peer is going away or all ids are used.
          SessionClosedError, SessionEndedError: the session is over.  ``safe_to_retry`` is true
            for all three, on another session.
          TypeError: ``type`` or ``priority`` is not an int.
          ValueError: a number out of range, or a type on an untyped v2 session.
        """
        if type is not NONE or priority is not NONE:
            check_opening(type, priority)
        await checkpoint()
        slots = self._engine.slots
        if not slots.has_free():
            await slots.wait_for_slot()
        return self._open(type, priority)

    def open_stream_nowait(self, *, type: int = NONE, priority: int = NONE) -> MuxadoStream:
        """Like :meth:`open_stream`, but raises :exc:`trio.WouldBlock` instead of waiting."""
        if type is not NONE or priority is not NONE:
            check_opening(type, priority)
        engine = self._engine
        if self.can_open and (not engine.wire_known.is_set() or engine.slots.free <= 0):
            raise trio.WouldBlock
        return self._open(type, priority)

    def _open(self, type: int, priority: int) -> MuxadoStream:
        engine = self._engine
        try:
            if engine.ending.over:
                raise engine.ending.error("open_stream", safe_to_retry=True)
            if type:
                wire = engine.connection.wire
                if wire is not None and type == wire.heartbeat_type:
                    raise ValueError(f"{type:#x} is the type of heartbeats: see ping()")
            core = engine.steps.open(type, priority)
        except OpenRefused as refused:
            engine.steps.done()
            raise OpenStreamError(
                f"open_stream: {refused}",
                code=refused.code,
                initiator="remote" if refused.code is ErrorCode.REMOTE_GONE_AWAY else "local",
                debug=engine.connection.peer_debug,
                safe_to_retry=True,
                origin=Origin(engine.ending),
            ) from None
        except BaseException:
            engine.steps.done()  # the slot is free again
            raise
        received = engine.steps.receivers[core] = ReceiveChannel(engine.kept_channels)
        return MuxadoStream(self, engine, core, received)

    @property
    def can_open(self) -> bool:
        """Whether streams can still be opened, now or after a wait.

        False once the peer is going away, this side closes the session, or it is over.
        """
        return self._engine.connection.can_open and not self._engine.ending.over

    async def accept_stream(self) -> MuxadoStream:
        """Wait for the next stream that the peer opens.  Any number of tasks may wait.

        Raises:
          NoMoreStreamsError: the peer has ended the session cleanly.
          SessionEndedError: the session broke.
          SessionClosedError: this side has closed it.
        """
        engine = self._engine
        for core, received in await engine.backlog.take(1):
            if engine.connection.accept(core):
                return MuxadoStream(self, engine, core, received)
        raise self._no_more_streams()

    def _no_more_streams(self) -> MuxadoError:
        return self._engine.ending.error("accept_stream", NoMoreStreamsError)

    accept = accept_stream
    """The name that :class:`trio.abc.Listener` has for it: ``trio.serve_listeners(handler,
    [session])`` serves a session's streams."""

    def __aiter__(self) -> MuxadoSession:
        """Every stream that the peer opens, until the peer ends the session cleanly."""
        return self

    async def __anext__(self) -> MuxadoStream:
        try:
            return await self.accept_stream()
        except NoMoreStreamsError:
            raise StopAsyncIteration from None

    async def serve_streams(self, handler: Handler) -> None:
        """Run ``handler(stream)`` in a task for every stream that the peer opens.

        Returns when the session has been closed cleanly from either side and the handlers
        are done.  A stream is closed when its handler returns.  When a stream breaks (the peer
        resets it), the error ends that handler and nothing else.  Any other error of a handler
        is its own bug: the stream is reset with INTERNAL_ERROR, the other handlers are
        cancelled, and the error is raised here as it is.  The tasks have the handler's name.

        Raises:
          SessionEndedError: the session broke; running handlers were cancelled.
          TypeError: ``handler`` is not a function, or shows when it is called that it is not async.
        """
        check_function("handler", handler)
        engine = self._engine
        take = engine.backlog.take
        async with open_bare_nursery() as nursery:
            run = partial(self._run_handler, nursery.fail, handler)
            start = partial(self._start_handler, nursery.inner, run, task_name(handler))
            # The frame reader may start one as well: in this task's context, not its own.
            start_there = partial(copy_context().run, start)
            while offered := await take(MAX_BURST, start_there):
                for core, received in offered:
                    start(core, received)
            if engine.ending.broke:
                raise self._no_more_streams()

    def _start_handler(
        self,
        nursery: trio.Nursery,
        run: Handler,
        name: str,
        core: Stream,
        received: ReceiveChannel,
    ) -> None:
        if self._engine.connection.hold(core):
            stream = MuxadoStream(self, self._engine, core, received)
            nursery.start_soon(run, stream, name=name)

    async def _serve_extension(self, core: Stream, received: ReceiveChannel) -> None:
        """Run the configured handler of an extension on a stream, and raise its error."""
        self._engine.connection.hold(core)
        handler = self.config.extensions[core.type]
        stream = MuxadoStream(self, self._engine, core, received)
        failures: list[BaseException] = []
        await self._run_handler(failures.append, handler, stream)
        if failures:
            raise failures[0]

    async def _run_handler(
        self, fail: Callable[[BaseException], None], handler: Handler, stream: MuxadoStream
    ) -> None:
        """Run ``handler`` and let go of its stream; ``fail`` with what is not the stream's end."""
        try:
            work = handler(stream)
            if type(work) is not CoroutineType:
                check_awaitable("handler", handler, work)
            await work
        except BaseException as error:
            if not self._ended_with_stream(error, core_of(stream)):
                # Without the checkpoint of ``reset``, which may be cancelled.
                reset_now(stream, code_for(error))
                fail(error)
                return
        close_now(stream)  # the task ends here: no checkpoint is owed

    def _ended_with_stream(self, error: BaseException, core: Stream) -> bool:
        """Whether a handler ended because its stream did, which is logged."""
        rest, ending = without_cancelled(error), self._engine.ending
        if rest is None or not is_end_of_stream(rest, core, ending):
            return False
        ending.log_end(core, "a handler ended with its stream", error)
        return True

    def statistics(self) -> SessionStatistics:
        """What the session has done so far, and what it holds; also once it is over."""
        engine = self._engine
        connection = engine.connection
        counts = connection.counts
        live = connection.streams.live.values()
        windows = [s.receive_window.size for s in live if RECEIVE_DATA in s.allowed]
        return SessionStatistics(
            streams=StreamCounts(Counter(stream.state.name.lower() for stream in live)),
            waiting=connection.streams.waiting.used,
            opened=counts.opened,
            offered=counts.offered,
            refused=counts.refused,
            reset_by_us=counts.resets_sent,
            reset_by_peer=counts.resets_received,
            frames_sent=counts.frames_sent,
            frames_received=counts.frames_received,
            bytes_sent=engine.writer.bytes_sent,
            bytes_received=engine.reader.bytes_received,
            waited_for_window=engine.room.waited_for_window,
            waited_for_transport=engine.writer.waited,
            latency=self.latency,
            receive_windows=sum(windows),
            largest_receive_window=max(windows, default=0),
        )

    # ---- the peer, and the end

    async def ping(self) -> float:
        """Measure the round trip to the peer's session, in seconds.

        Uses the heartbeat stream, in addition to the heartbeats that are sent at intervals.

        Raises:
          HeartbeatError: the session has no heartbeats (untyped v2), or the peer stopped them.
          SessionClosedError, SessionEndedError: the session is over.
        """
        await checkpoint()
        engine = self._engine
        await engine.wire_known.wait()
        return await ping(engine.heartbeats, engine.ending)

    async def goaway(self, code: ErrorCode | int = ErrorCode.NO_ERROR, debug: bytes = b"") -> None:
        """Accept no new streams of the peer; running ones go on.

        Args:
          code: why; the peer's ``wait_closed`` reports it.  An :class:`ErrorCode`, or a number
            of the application's, 16 to 2^32 - 1.
          debug: a text for the peer's log, at most 4 KiB.

        Raises:
          SessionClosedError, SessionEndedError: the session is over.
          TypeError, ValueError: a wrong argument; the session goes on.
        """
        check_bytes("debug", debug)
        debug = bytes(debug)  # it may wait here for long
        if len(debug) > MAX_DEBUG:
            raise ValueError(f"debug must have at most {MAX_DEBUG} bytes, not {len(debug)}")
        check_code(code)
        await checkpoint()
        engine = self._engine
        await engine.wire_known.wait()
        if engine.ending.over:
            raise engine.ending.error("goaway")
        engine.steps.goaway(code, debug)

    async def drain(self) -> None:
        """Accept no new streams of the peer, and wait until all streams have ended.

        It waits for streams of extensions too, but not for heartbeats.  Stop opening streams on
        this side yourself.  Leave the ``async with`` afterwards, or call :meth:`aclose`, to end the
        session.

        Raises:
          SessionClosedError: this side has closed the session, before or while streams lived.
          SessionEndedError: the session broke before, or ended while streams lived.
        """
        await self.goaway()
        engine = self._engine
        await engine.slots.wait_until_idle()
        if engine.ending.cut_streams:
            raise engine.ending.error("drain")

    async def aclose(self) -> None:
        """End the session gracefully; when cancelled, at once.

        Sends GOAWAY and everything that streams had accepted, half-closes the transport where
        it can, and waits for the peer to end.  From the call on streams accept nothing more.  Gives
        up after ``MuxadoConfig.close_timeout`` seconds without progress.  Streams of the peer that
        nobody has accepted are refused, which is safe to retry; others that nobody has closed
        break, here and at the peer.
        """
        await self._engine.close()

    @property
    def close_reason(self) -> CloseReason | None:
        """Why the session ended; None while it lives."""
        return self._engine.ending.reason

    async def wait_closed(self) -> CloseReason:
        """Wait until the session is over, and return why; does not end it."""
        ending = self._engine.ending
        await ending.event.wait()
        assert ending.reason is not None
        return ending.reason


def engine_of(session: MuxadoSession) -> Engine:
    """What runs it: for servers and dialling, as users need nothing of it."""
    return session._engine  # pyright: ignore[reportPrivateUsage]
