"""MuxadoStream: one stream of a session, as trio knows streams."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

import trio
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

from ._errors import MuxadoError, StreamClosedError, StreamResetError
from ._protocol.byte_queue import ByteQueue
from ._protocol.errors import ErrorCode, check_code
from ._protocol.states import SEND_END
from ._solo import Solo

if TYPE_CHECKING:
    from ._protocol.stream import Stream
    from ._session import MuxadoSession

_DEFAULT_RECEIVE = 256 * 1024
"""Bytes that ``receive_some()`` returns at most; as much as arrives in one read of the
transport, so that bulk is not cut into more pieces than it came in."""

_ENOUGH = 64 * 1024
"""Bytes from which a chunk is returned as it is: joining it with the next costs another copy."""

_SMALL = 8 * 1024
"""Bytes of a message that is queued last in ``send_all``, and not first.  In bulk, where a stream
that was woken should have its next chunk in the batch that follows, that would cost a sixth of what
100 streams of v1 carry (measured)."""

_COPY_SIZE = 256 * 1024
"""Bytes of a mutable buffer that ``send_all`` copies at a time."""


class MuxadoStream(trio.abc.HalfCloseableStream):
    """A two-way stream of bytes inside a session, flow-controlled for itself.

    Streams come from :meth:`MuxadoSession.open_stream` and
    :meth:`MuxadoSession.accept_stream`.  One task may send while another receives; two that do
    the same at once get :exc:`trio.BusyResourceError`.  ``async with stream`` closes it.
    """

    __slots__ = (
        "_breaking",
        "_closed",
        "_core",
        "_ended",
        "_engine",
        "_received",
        "_receiver",
        "_sender",
        "_session",
        "_starved_since",
    )

    def __init__(self, session: MuxadoSession, core: Stream) -> None:
        self._session = session
        self._engine = session._engine
        self._core = core
        # Bounded by the receive window: whoever fills it never waits.
        self._received = ByteQueue()
        self._ended = False  # the peer's FIN has come
        self._closed: str | None = None  # what this end did
        self._starved_since: float | None = None  # a sender waits, and the window is used up
        self._breaking: trio.Event | None = None  # where tasks wait for that
        self._sender = Solo("sending on this stream")
        self._receiver = Solo("receiving from this stream")
        core.owner = self

    def __repr__(self) -> str:
        return f"<MuxadoStream {self.id} of {self._session!r}>"

    @property
    def id(self) -> int:
        """The stream's id: odd where the session's client opened it, even where its server did."""
        return self._core.id

    @property
    def type(self) -> int:
        """The type that the opener gave it; 0 for none."""
        return self._core.type

    @property
    def priority(self) -> int:
        """In which order this end sends on it, 0 to 2^31 - 1: higher goes first.

        At the opener it begins as what ``open_stream`` was given, at the acceptor as what v1 has
        told, and as 0 on v2, which does not tell it.  Setting it counts from now on, also for
        what waits already.  The peer is not told.

        Raises:
          ValueError: it was set to a number out of range.
        """
        return self._core.priority

    @priority.setter
    def priority(self, priority: int) -> None:
        self._engine.connection.prioritize(self._core, priority)

    @property
    def session(self) -> MuxadoSession:
        """The session that carries it."""
        return self._session

    @property
    def unsent(self) -> int:
        """Bytes that ``send_all`` has accepted and that have not left for the transport yet."""
        return self._core.outgoing.size

    @property
    def idle(self) -> bool:
        """Whether this end closes the stream as soon as it needs its slot for another; False.

        Set it on a stream of this end that is kept for later use.  When a task waits in
        :meth:`MuxadoSession.open_stream`, now or later, the stream that has been idle for longest
        is closed in favour of it: it is readable then, and its methods raise
        :exc:`StreamClosedError`.  Set it back to False, and ask :meth:`is_readable`, before it is
        used again.
        """
        return self in self._engine.idle

    @idle.setter
    def idle(self, idle: bool) -> None:
        if idle and self._closed is None:
            self._engine.idle[self] = None
            if self._engine.places.openers_wait:
                self._engine.reclaim()
        else:
            self._engine.idle.pop(self, None)

    # ---- receiving

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return the next bytes, at least one, at most ``max_bytes``; ``b""`` at the end.

        Small pieces that have arrived are joined, up to 64 KiB; what came at once is returned at
        once, without ``max_bytes`` up to 256 KiB.  Cancellation loses nothing.

        Raises:
          StreamResetError: the peer reset the stream; everything that came before the reset has
            been returned first.
          SessionEndedError: the session ended before the stream did.
          StreamClosedError: the stream was closed by this end, now or before.
          trio.BusyResourceError: another task is receiving.
        """
        if max_bytes is None:
            limit = _DEFAULT_RECEIVE
        elif (limit := operator.index(max_bytes)) < 1:
            raise ValueError("max_bytes must be at least 1")
        receiver, received, core = self._receiver, self._received, self._core
        if receiver.held:
            raise receiver.busy()
        receiver.held = True
        try:
            if self._closed is not None:
                raise self._closed_error()
            if received.size or self._ended or core.broken is not None:
                await checkpoint()
            else:
                await receiver.wait()
            if self._closed is not None:
                raise self._closed_error()
            if received.size:
                data = received.take_bytes(limit, _ENOUGH)
                engine = self._engine
                if engine.connection.consume(core, len(data)) and engine.writer.sleeps:
                    engine.writer.wake_for_credit()
                return data
            # The peer's end counts, also when a reset came behind it.
            if self._ended:
                return b""
            error = self._broken_error()
            raise error from error.__cause__
        finally:
            receiver.held = False

    def is_readable(self) -> bool:
        """Whether :meth:`receive_some` would not wait: for bytes, the end, or an error.

        Neither waits nor takes anything.  Bytes that the session has not read yet don't count.
        """
        return (
            self._received.size > 0
            or self._ended
            or self._core.broken is not None
            or self._closed is not None
        )

    async def wait_broken(self) -> MuxadoError:
        """Wait until the stream has broken, and return the error that says why; takes nothing.

        It has broken when the peer has reset it, or when its session has ended; what came before
        that can still be received.  It has not when the peer has only ended its direction.  Any
        number of tasks may wait, also while others send and receive.

        Raises:
          StreamClosedError: the stream was closed by this end, now or before.
        """
        await trio.lowlevel.checkpoint()
        while self._closed is None and self._core.broken is None:
            if self._breaking is None:
                self._breaking = trio.Event()
            await self._breaking.wait()
        if self._closed is not None:
            raise self._closed_error()
        return self._broken_error()

    # ---- what the session's frame reader and writer tell; none of it waits

    def _deliver(self, data: bytes, *, ended: bool) -> None:
        if data:
            self._received.put(data)
        self._ended = ended
        if self._receiver.waiting is not None:
            self._receiver.wake()

    def _deliver_break(self) -> None:
        self._receiver.wake()
        self._sender.wake()
        if self._breaking is not None:
            self._breaking.set()
        if self._engine.idle:
            self._engine.idle.pop(self, None)

    def _collected(self) -> None:
        core = self._core
        if core.outgoing.size <= self._engine.config.send_buffer:
            self._sender.wake()
        elif core.send_window.available:
            self._stop_starving()
        elif self._starved_since is None:
            self._starved_since = trio.current_time()

    # ---- sending

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send ``data``; it belongs to the stream from the call on and may be changed after.

        Returns when all but the last ``MuxadoConfig.send_buffer`` bytes are on their way; those
        follow, also when the stream is closed.  Waits for the peer's window and the transport.
        When it is cancelled, some of the data may have been sent.

        Raises:
          StreamResetError: the peer reset the stream.
          SessionEndedError: the session has ended.
          StreamClosedError: the stream was closed by this end, or ``send_eof`` was called.
          trio.BusyResourceError: another task is sending.
        """
        sender = self._sender
        if sender.held:
            raise sender.busy()
        sender.held = True
        try:
            if type(data) is not bytes:
                await self._send_copies(data)
                return
            core, engine = self._core, self._engine
            small = len(data) <= _SMALL
            if small:
                # Queued behind the checkpoint: an end that follows at once goes in the same frame,
                # as the writer can't come between them.
                await checkpoint()
            if self._closed is not None or SEND_END not in core.allowed:
                raise self._unsendable_error()
            if not small:
                await checkpoint_if_cancelled()
            if data:  # what _queue does, without its call
                engine.connection.send(core, data)
                if engine.writer.sleeps:
                    engine.writer.wake()
            if core.outgoing.size > engine.config.send_buffer:
                await self._wait_until_accepted()
            elif not small:
                await cancel_shielded_checkpoint()
        finally:
            sender.held = False

    async def _send_copies(self, data: bytes | bytearray | memoryview) -> None:
        self._check_sendable()
        await checkpoint_if_cancelled()
        with memoryview(data) as view, view.cast("B") as octets:
            for start in range(0, len(octets) or 1, _COPY_SIZE):
                piece = bytes(octets[start : start + _COPY_SIZE])
                if start:
                    self._check_sendable()  # others had their turn meanwhile
                if piece:
                    self._queue(piece)
                await self._wait_until_accepted()

    def _queue(self, data: bytes) -> None:
        engine = self._engine
        engine.connection.send(self._core, data)
        if engine.writer.sleeps:
            engine.writer.wake()

    async def _wait_until_accepted(self) -> None:
        bound = self._engine.config.send_buffer
        if self._core.outgoing.size <= bound:
            await cancel_shielded_checkpoint()
            return
        try:
            while self._core.outgoing.size > bound:
                await self._wait_for_room()
        except trio.Cancelled:
            self._engine.connection.withdraw(self._core, keep=bound)
            raise

    async def _wait_for_room(self) -> None:
        if not self._core.send_window.available:
            self._starved_since = trio.current_time()
        try:
            await self._sender.wait()
        finally:
            self._stop_starving()
        self._check_sendable()

    @property
    def _starved_for(self) -> float:
        """Seconds that a sender has waited for window by now."""
        return 0.0 if self._starved_since is None else trio.current_time() - self._starved_since

    def _stop_starving(self) -> None:
        if self._starved_since is not None:
            self._engine.waited_for_window += self._starved_for
            self._starved_since = None

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the stream's send buffer has room.  Raises what :meth:`send_all` raises."""
        sender = self._sender
        if sender.held:
            raise sender.busy()
        sender.held = True
        try:
            self._check_sendable()
            await checkpoint()
            self._check_sendable()
            while self._core.outgoing.size >= self._engine.config.send_buffer:
                await self._wait_for_room()
        finally:
            sender.held = False

    async def send_eof(self) -> None:
        """End this direction behind what was sent; the other goes on.  Again: does nothing.

        Never waits for window.  Raises what :meth:`send_all` raises.
        """
        sender = self._sender
        if sender.held:
            raise sender.busy()
        sender.held = True
        try:
            if self._closed is not None:
                raise self._closed_error()
            await checkpoint_if_cancelled()
            if self._core.broken is not None:
                raise self._broken_error()
            if SEND_END in self._core.allowed:
                self._engine.connection.end_sending(self._core)
                if self._engine.writer.sleeps:
                    self._engine.writer.wake()
            await cancel_shielded_checkpoint()
        finally:
            sender.held = False

    def _check_sendable(self) -> None:
        if self._closed is not None or SEND_END not in self._core.allowed:
            raise self._unsendable_error()

    def _unsendable_error(self) -> MuxadoError:
        if self._closed is not None:
            return self._closed_error()
        if self._core.broken is not None:
            return self._broken_error()
        return StreamClosedError(
            "send_eof was called on this stream", code=ErrorCode.NO_ERROR, initiator="local"
        )

    # ---- closing

    async def aclose(self) -> None:
        """Close the stream: what was sent still goes out, then the end; the rest is discarded.

        Whoever waits in another method gets :exc:`StreamClosedError`.  A peer that goes on
        sending gets RST.  When cancelled, the stream is reset instead, with STREAM_CANCELLED
        and without what waited to be sent.
        """
        self._close_now()
        try:
            await checkpoint()
        except trio.Cancelled:
            self._reset_now(ErrorCode.STREAM_CANCELLED)
            raise

    async def reset(self, code: ErrorCode | int = ErrorCode.STREAM_CANCELLED) -> None:
        """End both directions at once and tell the peer ``code``; nothing more goes out.

        A plain number goes on the wire as it is.  Takes effect even when cancelled.
        """
        check_code(code)
        self._reset_now(code)
        await checkpoint()

    def _close_now(self, why: str = "this end has closed the stream") -> None:
        self._close(why)
        self._engine.close_stream(self._core)

    def _reset_now(self, code: ErrorCode | int) -> None:
        self._close("this end has reset the stream")
        self._engine.reset_stream(self._core, code)

    def _close(self, message: str) -> None:
        if self._closed is None:
            self._closed = message
            if self._received.size:
                self._received.drop()
            if self._receiver.waiting is not None:
                self._receiver.wake()
            if self._sender.waiting is not None:
                self._sender.wake()
            if self._breaking is not None:
                self._breaking.set()
            if self._engine.idle:
                self._engine.idle.pop(self, None)

    # ---- errors

    def _broken_error(self) -> MuxadoError:
        broken = self._core.broken
        assert broken is not None
        if broken.ends_session:
            return self._engine.ended_error(f"stream {self.id}", safe_to_retry=broken.unprocessed)
        return StreamResetError(
            f"stream {self.id}: {broken.message}",
            code=broken.code,
            initiator=broken.by,
            safe_to_retry=broken.unprocessed,
        )

    def _closed_error(self) -> StreamClosedError:
        assert self._closed is not None
        error = StreamClosedError(self._closed, code=ErrorCode.NO_ERROR, initiator="local")
        broken = self._core.broken
        # What another task may have closed it for, before this one could hear of it.
        if broken is not None and (broken.ends_session or broken.by == "remote"):
            error.__cause__ = self._broken_error()
        return error
