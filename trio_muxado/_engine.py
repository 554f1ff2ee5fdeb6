"""The engine: what runs a session.

General theory of operation
---------------------------

A session is three tasks around the sans-I/O
:class:`~trio_muxado._protocol.connection.Connection`, in the nursery that its ``async with`` opens:

* the *frame reader* (``_reader.py``) waits for the transport and for nothing else.  It feeds what
  came to the connection and carries the events to the streams, synchronously: data into a stream's
  memory channel, a new stream into the backlog.
* the *frame writer* (``_writer.py``) is the only one that waits to send on it, so nobody's
  cancellation can tear a frame.  It sleeps until there is something to send, takes a batch of
  frames of all streams from the connection, and sends it in one call.
* the *keepalive* (``_keepalive.py``) sleeps until something is due: a heartbeat, or the end of
  somebody's patience.

A call of the user changes the connection's state and queues the frame in one synchronous step,
wakes the writer (``_steps.py``), and goes through a checkpoint.

The tasks are shielded.  When the task that uses the session is cancelled, its streams still work
for its clean-up code, and the session ends when its ``async with`` does.  No task raises: what goes
wrong becomes the session's ``CloseReason``, and a bug, or an error of an extension's handler,
leaves the ``async with`` as if the body had raised it: by itself, not in an exception group.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import ref

import trio

from ._backlog import Backlog
from ._breaks import Breaks, wake_for_all_breaks, wake_for_break
from ._ending import CLOSED_HERE, Ending, break_of, other_version
from ._errors import CloseReason
from ._half_open import HalfOpenTimer
from ._heartbeat import Heartbeats, Responder
from ._keepalive import Keepalive
from ._lazy_event import LazyEvent
from ._nursery import BareNursery, task_name, without_cancelled
from ._patience import run_while_running
from ._protocol import events
from ._protocol.connection import Connection
from ._protocol.errors import ErrorCode
from ._protocol.states import ACCEPTED, WAITING
from ._protocol.wire import V1, WIRES
from ._reader import FrameReader, Receivers
from ._receive_channel import Kept, ReceiveChannel, kept_channels
from ._send_room import SendRoom
from ._slots import Slots
from ._steps import Steps
from ._timeouts import ClosingTimer, FirstStreamTimer, OpenTimer, ProbeTimer, SendTimer
from ._trace import TransportTrace
from ._transport.closing import close_at_once, is_bare_tls_end, part, say_last_words
from ._transport.peer import describe, keep_alive, peer_address
from ._writer import FrameWriter

if TYPE_CHECKING:
    from ._config import MuxadoConfig
    from ._protocol.stream import Stream
    from ._protocol.wire import Wire

logger = logging.getLogger("trio_muxado")

READER, WRITER, KEEPALIVE = (task_name(each.run) for each in (FrameReader, FrameWriter, Keepalive))
"""What trio calls the tasks."""

ExtensionServer = Callable[["Stream", ReceiveChannel], Awaitable[None]]
"""Serves a stream of one of ``MuxadoConfig.extensions``."""


class Engine:
    """Moves frames between a transport and the streams of one session."""

    serve_extension: ExtensionServer
    """Set by the session, before the tasks start."""

    def __init__(
        self, transport: trio.abc.Stream, *, client: bool, config: MuxadoConfig, number: int
    ) -> None:
        self.number = number  # in this process: tells its lines from those of others
        self.transport = transport
        self.peer_address: Any = peer_address(transport)
        self.config = config
        self.connection: Connection = Connection(
            client=client,
            wire=WIRES.get(config.wire, V1 if client else None),
            limits=config,
            typed=config.typed,
            extensions=config.extensions,
        )
        connection = self.connection
        self._trace = None
        if config.tracer is not None:
            self._trace = TransportTrace(config.tracer, connection, number)
        self.ending: Ending = Ending()
        self.wire_known: LazyEvent = LazyEvent()
        self.kept_channels: Kept = kept_channels()
        self.backlog: Backlog = Backlog(config.accept_backlog)
        self.breaks: Breaks = {}
        keepalive = Keepalive(
            on_blocked=self._on_blocked,
            on_starving=self._on_starving,
            on_wait=self._on_wait,
            abort=self.abort,
        )
        self.keepalive: Keepalive = keepalive
        # What they mind seldom happens: each is made when it first does.
        self._send_timer: SendTimer | None = None
        self._open_timer: OpenTimer | None = None
        self._probe_timer: ProbeTimer | None = None
        self.room: SendRoom = SendRoom(config.send_buffer, keepalive)
        self.slots: Slots = Slots(connection, self.ending, self.wire_known, keepalive)
        self.writer: FrameWriter = FrameWriter(
            transport, connection, self.room, self.slots, keepalive, trace=self._trace
        )
        receivers: Receivers = {}
        self.steps: Steps = Steps(connection, receivers, self.writer, self.slots, keepalive)
        self.reader: FrameReader = FrameReader(
            transport,
            connection,
            receivers,
            self.writer,
            handlers=self._HANDLERS,
            owner=ref(self),
            step_done=self.steps.done,
            trace=self._trace,
        )
        self.heartbeats: Heartbeats | None = None  # where the version has them, once it is known
        self._client = client
        self._silent = False  # nothing more is said to the peer
        self._scopes: list[trio.CancelScope] = []  # of extensions, and of waits at the end
        self._was_offered = False  # a stream of the peer's application
        self._written = LazyEvent()
        self.done: LazyEvent = LazyEvent()
        """The session is over, and its transport closed."""

    # ---- the tasks

    def start(self, nursery: BareNursery) -> None:
        """Run the session's tasks in ``nursery``, until the session is over."""
        self._nursery = nursery
        if (timeout := self.config.half_open_timeout) is not None:
            self.keepalive.add(HalfOpenTimer(self.connection.streams, self._expire, timeout))
        if (wire := self.connection.wire) is not None:
            self._wire_is_known(wire)
        start_soon = nursery.inner.start_soon
        start_soon(self._run_reader, name=READER)
        start_soon(self._run_writer, name=WRITER)
        start_soon(self.keepalive.run, self._catch, name=KEEPALIVE)

    def expect_stream(self, timeout: float) -> None:
        """End the session if the peer has not opened a stream within that time."""
        self.keepalive.add(FirstStreamTimer(timeout, lambda: self._was_offered, self.abort))

    async def _run_reader(self) -> None:
        try:
            try:
                failure, cancelled = await self.reader.run(), False
            except trio.Cancelled:  # it would be the context of whatever is raised in here
                failure, cancelled = None, True
            if cancelled:  # the user is, and the session goes on meanwhile
                failure = await self.reader.run_shielded()
            self._transport_ended(failure)
            if not (self.ending.clean or self._silent):
                with trio.CancelScope(shield=True) as last_words:
                    self._scopes.append(last_words)
                    await run_while_running(self.config.close_timeout, self._say_last_words)
        except BaseException as error:
            self._catch(error)
        self.finish(CLOSED_HERE)
        self._stop_tasks()
        if self.writer.unsent_batch and not self._written.is_set():
            # Nobody closes a transport that another task is sending on.
            with trio.CancelScope(shield=True):
                await self._written.wait()
        await close_at_once(self.transport)
        self.done.set()
        if self.ending.crash is not None:
            self._nursery.fail(self.ending.crash)

    async def _say_last_words(self) -> None:
        assert self.ending.reason is not None
        # Where the peer or the transport has ended it, nothing is unread, and no GOAWAY went.
        unread = self.ending.reason.initiator == "local" and self.connection.wire is not None
        await say_last_words(self.transport, self.writer.flushed, unread=unread)

    async def _run_writer(self) -> None:
        try:
            error = await self.writer.run()
            if error is not None and self.ending.reason is None:
                self.writer.flushed.set()  # whoever waits for it: nothing more will be sent
                # What the peer sent before it stopped to listen can still be read.
                with trio.CancelScope(shield=True):
                    await run_while_running(self.config.close_timeout, self.ending.event.wait)
                self._transport_ended(error)
                self.abort(CLOSED_HERE)
        except BaseException as error:
            self._catch(error)
        finally:
            self.writer.flushed.set()
            self._written.set()

    async def _run_extension(self, core: Stream, received: ReceiveChannel) -> None:
        with trio.CancelScope(shield=True) as scope:
            self._scopes.append(scope)
            try:
                await self.serve_extension(core, received)
            except BaseException as error:
                self._catch(error)
        self._scopes.remove(scope)

    def _catch(self, error: BaseException) -> None:
        """A task of the session raised this, which ends the session unless it was cancelled."""
        crash = without_cancelled(error)
        if crash is None:
            raise error
        self.ending.crash = self.ending.crash or crash
        message = f"an error inside the session: {crash!r}"
        self.abort(CloseReason(ErrorCode.INTERNAL_ERROR, "local", message, error=crash))

    def _stop_tasks(self) -> None:
        self.writer.stop()
        self.keepalive.stop()
        for scope in self._scopes:
            scope.cancel()

    # ---- events

    def _on_opened(self, event: events.StreamOpened) -> None:
        core = event.stream
        if core.custody is WAITING and not self.ending.closing:  # so most come
            received = self.steps.receivers[core] = ReceiveChannel(self.kept_channels)
            self.backlog.put((core, received), self.reader.alone)
            self._was_offered = True
        elif core.type in self.config.extensions:
            received = self.steps.receivers[core] = ReceiveChannel(self.kept_channels)
            handler = self.config.extensions[core.type]
            self._was_offered = True
            self._nursery.inner.start_soon(self._run_extension, core, received, name=handler)
        elif core.custody is ACCEPTED:  # a heartbeat, which is answered to the end
            self.connection.hold(core)
            self.steps.receivers[core] = Responder(self.steps, self.ending, core)
        elif core.custody is WAITING:
            # This side closes since before the wire was known, so no GOAWAY could say it.
            self.connection.reset(core, ErrorCode.STREAM_REFUSED)

    def _on_broken(self, event: events.StreamBroken) -> None:
        receiver = self.steps.receivers.pop(event.stream, None)
        if receiver is not None:
            receiver.break_off()
        if self.breaks:
            wake_for_break(self.breaks, event.stream)
        self.room.wake(event.stream)
        self.slots.idle.pop(event.stream, None)

    def _on_goaway(self, event: events.GoAwayReceived) -> None:
        self.ending.peer_code = event.code
        self.reader.expect_end()
        self.slots.dismiss()

    def _on_wire(self, event: events.WireDetected) -> None:
        self._wire_is_known(event.wire)
        if self._trace is not None:
            self._trace.saw("in", b"")

    def _wire_is_known(self, wire: Wire) -> None:
        self.wire_known.set()
        if not (wire.has_syn_frame or self.config.typed):
            keep_alive(self.transport)
            return
        self.heartbeats = Heartbeats(
            self.config.heartbeat,
            self.steps,
            self.ending,
            self.keepalive,
            self.reader,
            client=self._client,
            watch_otherwise=partial(keep_alive, self.transport),
        )
        self.heartbeats.begin(wire)

    def _on_failed(self, event: events.SessionFailed) -> None:
        message = f"the peer broke the protocol: {event.message}"
        if self.connection.counts.frames_received <= 1:
            message += other_version(self.connection.wire, self.reader.first_bytes)
        self.finish(CloseReason(event.code, "local", message))

    _HANDLERS: ClassVar[Mapping[type[Any], Callable[[Any, Any], None]]] = {
        events.StreamOpened: _on_opened,
        events.StreamBroken: _on_broken,
        events.GoAwayReceived: _on_goaway,
        events.WireDetected: _on_wire,
        events.PeerEnded: lambda self, _: self._transport_ended(None),
        events.SessionFailed: _on_failed,
    }

    def _on_blocked(self) -> None:
        if self._send_timer is None:
            self._send_timer = SendTimer(self.writer, self.config.send_timeout, self.abort)
        self.keepalive.add(self._send_timer)

    def _on_wait(self) -> None:
        if self._open_timer is None:
            self._open_timer = OpenTimer(self.slots, self._describe)
        self.keepalive.add(self._open_timer)

    def _on_starving(self) -> None:
        if self._probe_timer is None:
            self._probe_timer = ProbeTimer(self.steps)
        if self._probe_timer.begin():
            self.keepalive.add(self._probe_timer)

    def _expire(self, core: Stream, code: ErrorCode, message: str) -> None:
        self.reader.dispatch(self.connection.expire(core, code, message))
        self.steps.done()

    # ---- the end

    def _describe(self) -> str:
        return f"session {self.number} with {describe(self.transport, self.peer_address)}"

    def _transport_ended(self, error: Exception | None) -> None:
        error = self.writer.reset or error  # of a reset whoever reads may hear but an end
        # A transport that breaks where nothing was cut is how some systems end a connection.
        cut = error is not None and not (is_bare_tls_end(error) or self.connection.streams.idle)
        self.finish(self.ending.because_transport_ended(error, self.connection.peer_debug, cut=cut))

    def finish(self, reason: CloseReason) -> None:
        """The session is over.  Every stream and every waiting task hears of it; nothing waits."""
        ending = self.ending
        if ending.reason is not None:
            return
        ending.reason = reason
        ending.over = True
        if not reason.clean:
            logger.info("%s ended: %s", self._describe(), reason.message)
        ending.cut_streams = not self.connection.streams.idle
        self.reader.stopped = True
        self.reader.dispatch(self.connection.end(break_of(reason)))
        self.backlog.end()
        if self.breaks:
            wake_for_all_breaks(self.breaks)
        ending.event.set()
        self.wire_known.set()
        self.slots.dismiss()
        self.slots.pass_on()
        self.writer.end()

    def abort(self, reason: CloseReason) -> None:
        """End the session at once, without a word to the peer."""
        if self.done.is_set():
            return
        self.finish(reason)
        self._silent = True
        self.reader.stop()
        self._stop_tasks()

    async def close(self) -> None:
        """End the session gracefully, in bounded time; at once when cancelled."""
        ending = self.ending
        try:
            if ending.over:
                # Another task closes it already, or it ended by itself and its last words are on
                # their way: neither is cut short, and both are bounded.
                await self.done.wait()
                return
            await trio.lowlevel.checkpoint_if_cancelled()  # then not a word is said
            ending.closing = ending.over = True
            # In one step: a stream that is refused here can't be accepted any more.
            self.backlog.end()
            for core in self.backlog.drop():  # also one that the peer has reset: it is counted
                self.steps.reset(core, ErrorCode.STREAM_REFUSED)
            for core in self.connection.refuse_unaccepted():
                self.steps.receivers.pop(core, None)  # one that waits for its type has none
            if self.connection.wire is not None and not self.connection.goaway_sent:
                self.connection.goaway(ErrorCode.NO_ERROR, b"", last=True)
            self.writer.end_now()
            self.slots.dismiss()
            timer = ClosingTimer(self.writer, self.config, partial(self.abort, CLOSED_HERE))
            self.keepalive.add(timer)
            if not self.writer.flushed.is_set():
                await self.writer.flushed.wait()
            if ending.reason is None:
                timer.flushed()
                if type(self.transport) is trio.SocketStream:  # which keeps nobody waiting
                    await part(self.transport, ending.event)
                else:
                    with trio.CancelScope() as parting:
                        self._scopes.append(parting)
                        await part(self.transport, ending.event)
        except BaseException:
            self.abort(CLOSED_HERE)
            raise
        self.abort(CLOSED_HERE)
