"""Calls of the connection, each with what has to follow it.

A state change and the frame that it queues are one synchronous step.  After it the frame writer
may have something to send, and streams may have ended whose slots others wait for.  An interrupt
waits for the end of a step: half of one would leave what the tasks of the session can't go on with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio.lowlevel import enable_ki_protection

from ._protocol.states import OVER

if TYPE_CHECKING:
    from ._keepalive import Keepalive
    from ._protocol.connection import Connection
    from ._protocol.errors import ErrorCode
    from ._protocol.stream import Stream
    from ._reader import Receivers
    from ._slots import Slots
    from ._writer import FrameWriter


class Steps:
    """What users and tasks of a session do to its connection."""

    __slots__ = ("_keepalive", "_slots", "connection", "receivers", "writer")

    def __init__(
        self,
        connection: Connection,
        receivers: Receivers,
        writer: FrameWriter,
        slots: Slots,
        keepalive: Keepalive,
    ) -> None:
        self.connection: Connection = connection
        self.receivers: Receivers = receivers
        self.writer: FrameWriter = writer
        self._slots = slots
        self._keepalive = keepalive

    @enable_ki_protection
    def done(self) -> None:
        """A step is done that may have queued frames or ended streams."""
        if self.writer.sleeps:
            self.writer.wake_if_due()
        if self._slots.awaited:
            self._slots.pass_on()

    @enable_ki_protection
    def goaway(self, code: ErrorCode | int, debug: bytes) -> None:
        """Queue GOAWAY; the session goes on."""
        self.connection.goaway(code, debug)
        self.done()

    @enable_ki_protection
    def open(self, stream_type: int, priority: int) -> Stream:
        """Open a stream.  Raises what :meth:`Connection.open_stream` raises."""
        stream = self.connection.open_stream(stream_type, priority)
        if self.writer.sleeps:
            self.writer.wake()
        return stream

    @enable_ki_protection
    def send(self, stream: Stream, data: bytes, whole: bool = False) -> None:
        """Queue data, which is not empty; ``whole`` says that nothing belongs into its frame."""
        self.connection.send(stream, data)
        if whole and self.writer.alone:
            self.writer.send_now()
        elif self.writer.sleeps:
            self.writer.wake()

    @enable_ki_protection
    def end_sending(self, stream: Stream) -> None:
        """Half-close a stream."""
        self.connection.end_sending(stream)
        if stream.state in OVER:  # the peer has ended as well: nothing can break it
            self.receivers.pop(stream, None)
        if self.writer.alone:
            self.writer.send_now()
        elif self.writer.sleeps:
            self.writer.wake()

    @enable_ki_protection
    def consume(self, stream: Stream, size: int) -> None:
        """Somebody has taken that many received bytes."""
        if self.connection.consume(stream, size) and self.writer.sleeps:
            self.writer.wake_for_credit()

    @enable_ki_protection
    def close(self, stream: Stream) -> None:
        """Close a stream gracefully; nobody hears of it any more."""
        self.receivers.pop(stream, None)
        if self._slots.idle:
            self._slots.idle.pop(stream, None)
        if self.connection.close(stream):
            # Whoever waits for an answer waits for the end with it, seldom for an end alone.
            if self.writer.alone and stream.outgoing.size:
                self.writer.send_now()
            elif self.writer.sleeps:
                self.writer.wake_if_due()
            if stream.outgoing.size > stream.send_window:
                # Nobody waits, but its slot is not free before that is sent.
                self._keepalive.on_starving()
        if self._slots.awaited:
            self._slots.pass_on()

    @enable_ki_protection
    def reset(self, stream: Stream, code: ErrorCode | int) -> None:
        """Reset a stream; nobody hears of it any more."""
        self.receivers.pop(stream, None)
        if self._slots.idle:
            self._slots.idle.pop(stream, None)
        self.connection.reset(stream, code)
        self.done()
