"""The engine: what runs a session.

General theory of operation
---------------------------

A session is this engine, three tasks in a nursery of their own, around the sans-I/O
:class:`~trio_muxado._protocol.connection.Connection`:

* the *frame reader* (here) waits for the transport and for nothing else.  It feeds what came to
  the connection and carries the events to the streams, synchronously: data into a stream's
  queue, a new stream into the backlog.
* the *frame writer* (``_writer.py``) is the only one that sends on the transport, so nobody's
  cancellation can tear a frame.  It sleeps until there is something to send, takes a batch of
  frames of all streams from the connection, and sends it in one call.
* the *keepalive* (``_heartbeat.py``) opens the heartbeat stream and watches over the silence of
  the peer.

With ``half_open_timeout`` a fourth resets streams that stay half-open (``_half_open.py``).

A call of the user changes the connection's state and queues the frame in one synchronous step,
wakes the writer, and goes through a checkpoint.

A byte that comes goes ``Engine._read_frames``, ``Connection.receive_data``, ``Engine._on_data``,
``MuxadoStream._deliver``, ``receive_some``.  One that is sent goes ``send_all``,
``Connection.send``, ``FrameWriter.run``.

The engine runs inside a shielded cancel scope.  When the task that uses the session is
cancelled, its streams still work for its clean-up code, and the session ends when its
``async with`` does.  No task of the engine raises: what goes wrong becomes the session's
``CloseReason``, and a bug, or an error of an extension's handler, leaves the ``async with``
bare, as if the body had raised it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import trio

from ._backlog import Backlog
from ._errors import CloseReason, MuxadoError, SessionClosedError, SessionEndedError, printable
from ._half_open import reset_half_open
from ._nursery import leaves, without_cancelled
from ._places import PlaceWaiters
from ._protocol import events
from ._protocol.connection import Connection
from ._protocol.errors import ErrorCode
from ._protocol.states import WAITING
from ._protocol.stream import Broken
from ._protocol.wire import V1, WIRES
from ._reads import FRAMES_OF_BULK, receive_on
from ._trace import TransportTrace
from ._transport import close_at_once, close_gracefully, half_close, read_out, wait_while_taken
from ._writer import FrameWriter

if TYPE_CHECKING:
    from ._config import MuxadoConfig
    from ._protocol.stream import Stream
    from ._stream import MuxadoStream

Handler: TypeAlias = "Callable[[MuxadoStream], Awaitable[Any]]"

logger = logging.getLogger("trio_muxado")

CLOSED_HERE = CloseReason(ErrorCode.NO_ERROR, "local", "this end has closed the session")


class Engine:
    """Moves frames between a transport and the streams of one session."""

    def __init__(
        self,
        transport: trio.abc.Stream,
        *,
        client: bool,
        config: MuxadoConfig,
        make_stream: Callable[[Stream], MuxadoStream],
        number: int,
    ) -> None:
        self.number = number
        """The session's, in this process: what tells its lines from those of others."""
        self.transport = transport
        self.config = config
        wire = WIRES.get(config.wire)
        if wire is None and client:
            wire = V1
        self.connection = Connection(
            client=client,
            wire=wire,
            limits=config,
            typed=config.typed,
            extensions=config.extensions,
        )
        self._trace = None
        if config.tracer is not None:
            self._trace = TransportTrace(config.tracer, self.connection, number)
        self.reason: CloseReason | None = None
        """Why the session ended; None while it lives."""
        self.crash: BaseException | None = None
        """What was raised inside the engine and belongs to the user."""
        self.bytes_received = 0
        self.waited_for_window = 0.0
        """Seconds, added up over all senders."""
        self.last_heard = math.inf
        """When the latest byte of the peer came."""
        self.wire_known = trio.Event()
        self.backlog = Backlog()
        self.ended = trio.Event()
        self.places = PlaceWaiters(
            self.connection.streams,
            wire_known=self.wire_known,
            ended=self.ended,
            may_open=lambda: self.connection.can_open and not self.over,
            reclaim=self.reclaim,
        )
        self.idle: dict[MuxadoStream, None] = {}
        """Streams that are kept for later use, the one that has been for longest first."""
        self.writer = FrameWriter(
            transport,
            self.connection,
            send_timeout=config.send_timeout,
            trace=self._trace,
            took_batch=self.places.count,
            on_error=self._cannot_send,
            on_timeout=self._cannot_send_in_time,
        )
        self._make_stream = make_stream
        self._answer_heartbeats: Handler
        self._scope = trio.CancelScope(shield=True)
        self._closing = False
        self._done = trio.Event()
        self._peer_code: ErrorCode | int | None = None
        self._handlers: dict[type[Any], Callable[[Any], None]] = {
            events.DataReceived: self._on_data,
            events.StreamOpened: self._on_opened,
            events.StreamBroken: self._on_broken,
            events.GoAwayReceived: self._on_goaway,
            events.WireDetected: self._on_wire,
            events.PeerEnded: self._on_peer_ended,
            events.SessionFailed: self._on_failed,
        }
        if wire is not None:
            self.wire_known.set()

    # ---- the tasks

    async def run(
        self, keepalive: Callable[[], Awaitable[None]], answer_heartbeats: Handler
    ) -> None:
        """Run until the session has ended, and close the transport.

        ``answer_heartbeats`` handles the streams of the heartbeat's type.
        """
        self._answer_heartbeats = answer_heartbeats
        try:
            with self._scope:
                async with trio.open_nursery() as self._nursery:
                    self._nursery.start_soon(self._guard, self.writer.run, name=self.writer.run)
                    self._nursery.start_soon(self._guard, keepalive, name=keepalive)
                    patience = self.config.half_open_timeout
                    if patience is not None:
                        self._nursery.start_soon(
                            self._guard,
                            lambda: reset_half_open(self, patience),
                            name=reset_half_open,
                        )
                    await self._guard(self._read_frames)
                    if self.reason is not None and not self.reason.clean:
                        await self._linger()
                    self._nursery.cancel_scope.cancel()
        finally:
            self.finish(CLOSED_HERE)
            await close_at_once(self.transport)
            self.writer.flushed.set()  # whoever waits for it: nothing more will be sent
            self._done.set()
        if self.crash is not None:
            raise self.crash

    async def _guard(self, task: Callable[[], Awaitable[Any]]) -> None:
        try:
            await task()
        except BaseException as error:
            crash = without_cancelled(error)
            if crash is None:
                raise
            self.crash = self.crash or crash
            message = f"an error inside the session: {crash!r}"
            self.abort(CloseReason(ErrorCode.INTERNAL_ERROR, "local", message, error=crash))

    async def _read_frames(self) -> None:
        connection, handlers = self.connection, self._handlers
        receive = receive_on(self.transport)
        self.last_heard = trio.current_time()
        others_can_wait = False
        while self.reason is None:
            try:
                data = await receive(others_can_wait)
            except Exception as error:
                # A transport can be anything that is a stream, and raise anything.
                self._transport_ended(error)
                return
            if not data:
                self._transport_ended(None)
                return
            now = self.last_heard = trio.current_time()
            self.bytes_received += len(data)
            if self._trace is not None:
                self._trace.saw("in", data)
            before, frames = connection.last_data_of, connection.counts.frames_received
            for event in connection.receive_data(data, now):
                handlers[type(event)](event)
            del data  # the next may be long in coming
            self.changed()
            while connection.has_more:
                await trio.lowlevel.checkpoint()
                for event in connection.receive_data(b"", now):
                    handlers[type(event)](event)
                self.changed()
            # Whoever receives takes a piece in a turn of the loop: more for the same task would
            # only lie there, and for another one costs less without a turn in between.  Small
            # frames cost much for their bytes, so they always let others run.
            frames = connection.counts.frames_received - frames
            others_can_wait = connection.last_data_of != before and frames <= FRAMES_OF_BULK

    # ---- events

    def _on_data(self, event: events.DataReceived) -> None:
        stream, data, ended = event
        stream.owner._deliver(data, ended=ended)

    def _on_opened(self, event: events.StreamOpened) -> None:
        core = event.stream
        stream = self._make_stream(core)
        if core.custody is not WAITING:  # an extension's
            handler = self.config.extensions.get(stream.type, self._answer_heartbeats)
            serve = partial(self._serve_extension, handler, stream)
            self._nursery.start_soon(self._guard, serve, name=handler)
        else:
            self.backlog.put(stream)

    async def _serve_extension(self, handler: Handler, stream: MuxadoStream) -> None:
        self.connection.hold(stream._core)
        try:
            await handler(stream)
        except BaseException as error:
            if not all(isinstance(leaf, MuxadoError) for leaf in leaves(error)):
                stream._reset_now(ErrorCode.INTERNAL_ERROR)
                raise
            self.tell_end(stream._core, "an extension's stream ended", error)
        stream._close_now()

    def _on_broken(self, event: events.StreamBroken) -> None:
        if event.stream.owner is not None:
            event.stream.owner._deliver_break()

    def _on_goaway(self, event: events.GoAwayReceived) -> None:
        self._peer_code = event.code
        self.places.dismiss()

    def _on_wire(self, event: events.WireDetected) -> None:
        self.wire_known.set()
        if self._trace is not None:
            self._trace.saw("in", b"")

    def _on_peer_ended(self, event: events.PeerEnded) -> None:
        self._transport_ended(None)

    def _on_failed(self, event: events.SessionFailed) -> None:
        message = f"the peer broke the protocol: {event.message}"
        self.finish(CloseReason(event.code, "local", message))

    # ---- calls of streams: a step of the connection, and the writer wakes

    def changed(self) -> None:
        """The connection may have something to send, or streams may have ended."""
        if self.writer.sleeps:
            self.writer.wake_if_due()
        self.places.count()

    def goaway(self, code: ErrorCode | int, debug: bytes) -> None:
        """Queue GOAWAY; the session goes on."""
        self.connection.goaway(code, debug)
        self.changed()

    def close_stream(self, core: Stream) -> None:
        """Close a stream gracefully."""
        core.owner = None  # nothing more is told; and no cycle is left for the garbage collector
        if self.connection.close(core) and self.writer.sleeps:
            self.writer.wake_if_due()
        self.places.count()

    def reclaim(self) -> None:
        """A task waits to open a stream: close an idle one, if there is any."""
        if self.idle:
            next(iter(self.idle))._close_now("this end has closed the idle stream, to open another")

    def expire_stream(self, core: Stream, code: ErrorCode, message: str) -> None:
        """Reset a live stream in its application's stead, which is told."""
        for event in self.connection.expire(core, code, message):
            self._handlers[type(event)](event)
        self.changed()

    def reset_stream(self, core: Stream, code: ErrorCode | int) -> None:
        """Reset a stream."""
        core.owner = None
        self.connection.reset(core, code)
        self.changed()

    # ---- the end

    def _transport_ended(self, error: Exception | None) -> None:
        """The peer will send no more, for which its GOAWAY may have given the reason."""
        debug = self.connection.peer_debug
        if self._closing:
            reason = CLOSED_HERE
        elif self._peer_code is not None:
            code = self._peer_code
            name = code.name if isinstance(code, ErrorCode) else f"error {code}"
            text = printable(debug)
            message = f"the peer ended the session: {name}" + (f" ({text})" if text else "")
            reason = CloseReason(code, "remote", message, debug, error)
        elif error is None:
            message = "the peer ended the transport without GOAWAY"
            reason = CloseReason(ErrorCode.PEER_EOF, "transport", message)
        else:
            message = f"the transport broke: {error!r}"
            reason = CloseReason(ErrorCode.INTERNAL_ERROR, "transport", message, error=error)
        self.finish(reason)

    async def _cannot_send(self, error: Exception) -> None:
        # What the peer sent before it stopped to listen can still be read.
        with trio.move_on_after(self.config.close_timeout):
            await self.ended.wait()
        self._transport_ended(error)
        self._scope.cancel()

    def _cannot_send_in_time(self) -> None:
        message = f"the transport took nothing for {self.config.send_timeout} s"
        self.abort(CloseReason(ErrorCode.WRITE_TIMEOUT, "transport", message))

    def finish(self, reason: CloseReason) -> None:
        """The session is over.  Every stream and every waiting task is told; nothing waits."""
        if self.reason is not None:
            return
        self.reason = reason
        if not reason.clean:
            logger.info("session %d over %r ended: %s", self.number, self.transport, reason.message)
        ended = Broken(
            reason.code,
            "local" if reason.initiator == "local" else "remote",
            reason.message,
            ends_session=True,
        )
        for event in self.connection.end(ended):
            self._handlers[type(event)](event)
        self.backlog.end()
        self.ended.set()
        self.wire_known.set()
        self.places.dismiss()
        self.places.count()
        self.writer.end()

    def abort(self, reason: CloseReason) -> None:
        """End the session at once, without a word to the peer."""
        self.finish(reason)
        self._scope.cancel()

    def ended_error(
        self,
        what: str,
        in_order: type[MuxadoError] = SessionEndedError,
        *,
        safe_to_retry: bool = False,
    ) -> MuxadoError:
        """The error of whoever uses a session that is over.

        ``in_order`` is its class where the peer has ended the session in good order;
        ``safe_to_retry`` says that the peer has never heard of what was to be done.
        """
        reason = self.reason or CLOSED_HERE
        kind: type[MuxadoError] = SessionEndedError
        if reason.clean:
            kind = SessionClosedError if reason.initiator == "local" else in_order
        error = kind(
            f"{what}: {reason.message}",
            code=reason.code,
            initiator=reason.initiator,
            debug=reason.debug,
            safe_to_retry=safe_to_retry,
        )
        error.__cause__ = reason.error
        return error

    async def close(self) -> None:
        """End the session gracefully, in bounded time; at once when cancelled."""
        try:
            if self.over:
                # Another task closes it already, or it ended by itself and its last words are on
                # their way: neither is cut short, and both are bounded.
                await self._done.wait()
                return
            self._closing = True
            # In one step: what the peer is told that nobody has seen, nobody may be given any more.
            self.backlog.clear()
            self.connection.refuse_unseen()
            if self.connection.wire is not None and not self.connection.is_going:
                self.connection.goaway(ErrorCode.NO_ERROR, b"", last=True)
            self.writer.end()
            self.places.dismiss()
            if await self.writer.flush(self.config.close_timeout) and self.reason is None:
                await self._part()
        except BaseException:
            self.abort(CLOSED_HERE)
            raise
        self.abort(CLOSED_HERE)

    def tell_end(self, core: Stream, what: str, error: BaseException) -> None:
        """Log that ``error`` ended what ran on a stream, unless the session's end did."""
        broke_before = core.broken is not None and not core.broken.ends_session
        if self.reason is None or (broke_before and not self.ended_well):
            logger.debug("%s: %r", what, error)

    @property
    def ended_well(self) -> bool:
        """The session has ended in good order, of which the log says nothing."""
        return self.reason is not None and self.reason.clean

    @property
    def over(self) -> bool:
        """This end closes the session, or it has ended."""
        return self._closing or self.reason is not None

    def caused(self, error: BaseException) -> bool:
        """Nothing but the crash of a task of the engine, as the user's calls reported it."""
        return self.crash is not None and all(
            isinstance(leaf, MuxadoError) and leaf.__cause__ is self.crash for leaf in leaves(error)
        )

    async def _part(self) -> None:
        """Tell the peer that nothing follows, and wait for its own end.

        Whatever the peer sends to a transport that was closed makes TCP drop what is on its way.
        """
        timeout, transport = self.config.close_timeout, self.transport
        with trio.move_on_after(timeout) as patience:
            if await half_close(transport):
                await wait_while_taken(
                    self.ended, transport, patience, timeout, at_most=self.config.send_timeout
                )
            else:
                await close_gracefully(transport)

    async def _linger(self) -> None:
        """Let the GOAWAY reach the peer before the transport is closed over unread bytes."""
        assert self.reason is not None
        with trio.move_on_after(self.config.close_timeout):
            await self.writer.flushed.wait()
            # Where the peer or the transport has ended it, nothing is unread, and no GOAWAY went.
            if self.reason.initiator != "local" or self.connection.wire is None:
                return
            if await half_close(self.transport):
                await read_out(self.transport)
