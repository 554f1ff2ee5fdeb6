"""MuxadoStream: one stream of a session, as trio knows streams."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import trio
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

from ._blame import code_for
from ._breaks import wait_for_break
from ._checks import checked_size
from ._protocol.checks import check_bool, check_bytes, check_opening
from ._protocol.errors import ErrorCode, check_code
from ._protocol.states import SEND_END
from ._receive_channel import DEFAULT_RECEIVE
from ._send_room import COPY_SIZE, SMALL_MESSAGE
from ._stream_steps import ANSWERED, SENT, StreamSteps

if TYPE_CHECKING:
    from ._errors import MuxadoError
    from ._session import MuxadoSession

_RECLAIMED = "this side has closed the idle stream, to open another"


class MuxadoStream(StreamSteps, trio.abc.HalfCloseableStream):
    """A two-way stream of bytes inside a session, with its own flow control.

    It comes from :meth:`MuxadoSession.open_stream` or :meth:`MuxadoSession.accept_stream`.  One
    task may send while another receives; two that do the same at once get
    :exc:`trio.BusyResourceError`.  ``async with stream`` closes it.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<MuxadoStream {self.id} of {self._session!r}>"

    @property
    def id(self) -> int:
        """The stream's id, which is odd if the session's client has opened it."""
        return self._core.id

    @property
    def type(self) -> int:
        """The type that the opener gave it; 0 for none."""
        return self._core.type

    @property
    def priority(self) -> int:
        """In which order this side sends on it, from 0 to 2^31 - 1; higher goes first.

        At the opener it begins as what ``open_stream`` was given, at the acceptor as what v1
        carries, and as 0 on v2.  A change applies at once, also to data that is queued already.

        Raises:
          TypeError, ValueError: it was set to something that is not an int, or out of range.
        """
        return self._core.priority

    @priority.setter
    def priority(self, priority: int) -> None:
        check_opening(self.type, priority)
        self._engine.connection.prioritize(self._core, priority)

    @property
    def session(self) -> MuxadoSession:
        """The session that carries it."""
        return self._session

    @property
    def unsent(self) -> int:
        """Bytes that ``send_all`` has accepted and the transport has not."""
        return self._core.outgoing.size

    @property
    def idle(self) -> bool:
        """Whether this side closes the stream when another needs its slot; False by default.

        Set it on a stream that is kept for later use.  When a task waits in
        :meth:`MuxadoSession.open_stream`, the stream that has been idle for longest is closed, and
        is readable then.  Set it back to False before the stream is used again.
        """
        return self._core in self._engine.slots.idle

    @idle.setter
    def idle(self, idle: bool) -> None:
        check_bool("idle", idle)
        if not idle:
            self._engine.slots.idle.pop(self._core, None)
        elif self._closed is None and self._core.broken is None:
            self._engine.slots.offer(self._core, partial(self._close_now, _RECLAIMED))

    # ---- receiving

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return the next bytes, at least one, at most ``max_bytes``; ``b""`` at the end.

        Small pieces that wait are joined, up to 64 KiB; what arrived in one piece is returned in
        one, up to ``max_bytes`` or 256 KiB.  Cancellation loses nothing.

        Raises:
          StreamResetError: the peer reset the stream; everything that came before the reset has
            been returned first.
          SessionEndedError: the session ended before the stream did.
          StreamClosedError: the stream was closed by this side, now or before.
          TypeError, ValueError: ``max_bytes`` is not an int, or less than 1.
          trio.BusyResourceError: another task is receiving.
        """
        if max_bytes is None:
            max_bytes = DEFAULT_RECEIVE
        elif type(max_bytes) is not int or max_bytes < 1:
            max_bytes = checked_size("max_bytes", max_bytes)
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this stream")
        self._receiving = True
        try:
            if self._closed is not None:
                raise self._closed_error()
            received, core, first = self._received, self._core, None
            if received.size or received.ended or core.broken is not None:
                await checkpoint()
            else:
                try:
                    first = await received.begin_wait().receive()
                except BaseException:
                    received.give_up()
                    raise
            # Where another task has closed the stream meanwhile, nothing waits any more.
            if received.size:
                data = received.take(first, max_bytes)
                if self._exchange == SENT:
                    self._exchange = ANSWERED
                engine = self._engine
                if engine.connection.consume(core, len(data)) and engine.writer.sleeps:
                    engine.writer.wake_for_credit()
                return data
            if self._closed is not None:
                raise self._closed_error()
            # The peer's end counts, also when a reset came after it.
            if received.ended:
                return b""
            raise self._engine.ending.broken_error(self._core)
        finally:
            self._receiving = False

    def is_readable(self) -> bool:
        """Whether :meth:`receive_some` would not wait: for bytes, the end, or an error."""
        received, over = self._received, self._core.broken or self._closed
        return received.size > 0 or received.ended or over is not None

    async def wait_broken(self) -> MuxadoError:
        """Wait until the stream has broken, and return the error that says why.

        It breaks when the peer resets it or its session ends, not when the peer only ends its
        direction.  What came before can still be received.  Any number of tasks may wait.

        Raises:
          StreamClosedError: the stream was closed by this side, now or before.
        """
        await checkpoint()
        core, ending = self._core, self._engine.ending
        if self._closed is None and core.broken is None and ending.reason is None:
            await wait_for_break(self._engine.breaks, core, trio.Event())
        if self._closed is not None:
            raise self._closed_error()
        return ending.broken_error(core)

    async def _wait_over(self, or_until: trio.Event) -> bool:
        """Wait until it has broken or was closed, or ``or_until`` is set; whether it is over.

        Another task sets that instead of cancelling a wait for ``wait_broken``, which costs a scope
        and an exception.
        """
        if not self._is_over():
            await wait_for_break(self._engine.breaks, self._core, or_until)
        return self._is_over()

    def _is_over(self) -> bool:
        broken, ended = self._core.broken, self._engine.ending.reason
        return broken is not None or ended is not None or self._closed is not None

    # ---- sending

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send ``data``, which must not change until this returns.

        Returns when all but the last ``MuxadoConfig.send_buffer`` bytes are on their way; those
        follow, also when the stream is closed.  Waits for the peer's window and the transport.
        When it is cancelled, some of the data may have been sent.  Closing the stream then resets
        it: an end would make it look complete.

        Raises:
          StreamResetError: the peer reset the stream.
          SessionEndedError: the session has ended.
          StreamClosedError: the stream was closed by this side, or ``send_eof`` was called.
          TypeError: ``data`` is not bytes; nothing was sent.
          trio.BusyResourceError: another task is sending.
        """
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sending = True
        try:
            if type(data) is not bytes:
                await self._send_copies(data)
                return
            core, engine, cut = self._core, self._engine, self._cut
            if data and SEND_END in core.allowed:
                self._cut = True  # until it is queued
            small = len(data) <= SMALL_MESSAGE
            # Queued after the checkpoint: an end that follows at once goes in the same frame.
            if small:
                await checkpoint()
            else:
                await checkpoint_if_cancelled()
            if self._closed is not None or SEND_END not in core.allowed or engine.ending.closing:
                self._check_sendable()
            if data:
                self._cut = cut
                engine.steps.send(core, data, self._exchange == ANSWERED)
                self._exchange = self._exchange or SENT
            if core.outgoing.size > engine.room.size:
                await self._wait_until_accepted()
            elif not small:
                await cancel_shielded_checkpoint()
        finally:
            self._sending = False

    async def _send_copies(self, data: bytes | bytearray | memoryview) -> None:
        check_bytes("data", data)
        steps, core = self._engine.steps, self._core
        self._check_sendable()
        with memoryview(data) as view, view.cast("B") as octets:
            cut = self._cut
            self._cut = cut or len(octets) > 0  # until all of it is queued
            await checkpoint_if_cancelled()
            for start in range(0, len(octets) or 1, COPY_SIZE):
                if start:
                    self._check_sendable()  # others had their turn meanwhile
                piece = bytes(octets[start : start + COPY_SIZE])
                if piece:
                    steps.send(core, piece)
                # Whoever closes the stream between two pieces does not end it: it is not whole.
                self._cut = cut or start + len(piece) < len(octets)
                await self._wait_until_accepted()

    async def _wait_until_accepted(self) -> None:
        room, core = self._engine.room, self._core
        if core.outgoing.size <= room.size:
            return await cancel_shielded_checkpoint()
        try:
            await room.wait_until(core, room.size, self._check_sendable)
        except trio.Cancelled:
            # Where another task has closed the stream since, its end is queued after all of it.
            if self._closed is None:
                self._cut |= self._engine.connection.withdraw(core, keep=room.size) > 0
            raise

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the stream's send buffer has room.  Raises what :meth:`send_all` raises."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sending = True
        try:
            self._check_sendable()
            await checkpoint()
            self._check_sendable()
            room = self._engine.room
            await room.wait_until(self._core, room.size - 1, self._check_sendable)
        finally:
            self._sending = False

    async def send_eof(self) -> None:
        """End this direction after what was sent; the other goes on.  A second call does nothing.

        Never waits for window.  The peer treats what was sent as complete, also after a cancelled
        :meth:`send_all`.  Raises what :meth:`send_all` raises.
        """
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sending = True
        try:
            if self._closed is not None:
                raise self._closed_error()
            await checkpoint_if_cancelled()
            if self._core.broken is not None:
                raise self._engine.ending.broken_error(self._core)
            if SEND_END in self._core.allowed:
                self._cut = False
                self._engine.steps.end_sending(self._core)
            await cancel_shielded_checkpoint()
        finally:
            self._sending = False

    # ---- closing

    async def aclose(self) -> None:
        """Close the stream: what was sent still goes out, then the end; unread data is discarded.

        Tasks that wait in another method get :exc:`StreamClosedError`.  A peer that goes on sending
        gets RST.  When the task is cancelled, or a :meth:`send_all` has left data unsent, the
        stream is reset instead, with STREAM_CANCELLED: an end would make it look complete.
        """
        try:
            await checkpoint_if_cancelled()
        except trio.Cancelled:
            self._reset_now(ErrorCode.STREAM_CANCELLED)
            raise
        self._close_now()
        await cancel_shielded_checkpoint()

    async def __aexit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        """Close it, or reset it when an exception leaves the block."""
        if error is None:
            await self.aclose()
        elif self._closed is None:
            self._reset_now(code_for(error))

    async def reset(self, code: ErrorCode | int = ErrorCode.STREAM_CANCELLED) -> None:
        """End both directions at once and send the peer ``code``; nothing more goes out.

        Takes effect even when cancelled.  An end that :meth:`aclose` has queued is taken back; one
        that has been sent is followed by RST.

        Args:
          code: an :class:`ErrorCode`, or a number of the application's, 16 to 2^32 - 1.

        Raises:
          TypeError, ValueError: ``code`` is neither; the stream goes on.
        """
        check_code(code)
        self._reset_now(code)
        await checkpoint()


# For forwarding; see the end of _stream_steps.py.
wait_over = MuxadoStream._wait_over  # pyright: ignore[reportPrivateUsage]
