"""A session and its streams: the door.  No call waits, calls back, or looks at a clock."""

from __future__ import annotations

from collections.abc import Collection

from .byte_queue import Buffer
from .checks import check_opening
from .codec import TYPE_SIZE, check_priority
from .counts import Counts
from .errors import ErrorCode, OpenRefused, ProtocolViolation
from .events import Event, SessionFailed, StreamBroken, WireDetected
from .inbound import Inbound
from .limits import Limits
from .outbox import Outbox
from .scheduler import ABOVE_ALL
from .session import Session
from .states import (
    ACCEPT,
    CLOSE,
    CLOSED_LOCAL,
    HOLD,
    OVER,
    RECEIVE_DATA,
    SEND_END,
    SESSION_END,
    SessionInput,
    SessionState,
)
from .stream import BreakReason, Stream
from .streams import Streams
from .wire import DETECTION_SIZE, Wire, detect

_MAX_VIOLATION_TEXT = 256
"""Bytes of our explanation in a GOAWAY; enough for a sentence, small for every peer."""


class Connection:
    """One end of a muxado session.

    Args:
      client: this side opens the streams with odd ids.
      wire: the protocol version, or None for a server that detects it from the first bytes.
      limits: the bounds that the peer is held to.
      typed: a v2 stream's first four bytes are its type (v1 carries types by itself).
      extensions: the types of extension streams that are served, besides the heartbeat's, which
        always is; others are refused.
    """

    wire: Wire | None
    """The protocol version; None until it is detected."""

    # What there is once it is known:
    _wire: Wire
    _outbox: Outbox
    _inbound: Inbound

    def __init__(
        self,
        *,
        client: bool,
        wire: Wire | None,
        limits: Limits,
        typed: bool = False,
        extensions: Collection[int] = (),
    ) -> None:
        self._limits = limits
        self._typed = typed
        self._extensions = extensions
        self._session = Session()
        self._undetected = b""
        self.counts: Counts = Counts()
        self.streams: Streams = Streams(client=client, limits=limits, counts=self.counts)
        """The streams on which something can still happen, and the slots they take."""
        self.has_more: bool = False
        """Of what was received there are frames left: ``receive_data(b"", now)`` goes on."""
        self.last_data_of: int = 0
        """The id of the stream that the latest data came for."""
        self.wire = None
        if wire is not None:
            self._use(wire)

    def _use(self, wire: Wire) -> None:
        self.wire = self._wire = wire
        streams = self.streams
        extensions = dict.fromkeys(self._extensions, streams.extensions)
        if wire.has_syn_frame or self._typed:
            extensions[wire.heartbeat_type] = streams.heartbeats
        self._types_in_band = self._typed and not wire.has_syn_frame
        type_size = TYPE_SIZE if self._types_in_band else 0
        self._outbox = Outbox(wire, self.counts, type_size=type_size)
        streams.use(wire, self._outbox)
        self._inbound = Inbound(
            wire,
            session=self._session,
            streams=streams,
            outbox=self._outbox,
            counts=self.counts,
            limits=self._limits,
            extensions=extensions,
            types_in_band=self._types_in_band,
        )

    # ---- bytes in

    def receive_data(self, data: bytes | memoryview, now: float) -> list[Event]:
        """Handle bytes of the transport, however they are cut; they may change afterwards.

        Of small frames it handles ``FRAMES_AT_ONCE``.  While it ``has_more``, let others run and
        call again, with no bytes: that goes on with a copy.

        ``now`` is a time in seconds on any steady clock.  Nothing that a peer sends makes this
        raise: what breaks the protocol ends in ``SessionFailed`` as the last event.
        """
        events: list[Event] = []
        if self._session.state is SessionState.ENDED:
            return events
        self.streams.last_read_at = now
        try:
            if self.wire is None:
                data = self._undetected = self._undetected + bytes(data)
                if len(data) < DETECTION_SIZE:
                    return events
                self._use(detect(data[:DETECTION_SIZE]))
                self._undetected = b""
                events.append(WireDetected(self._wire))
            inbound = self._inbound
            self.has_more = inbound.receive(data, events)
            self.last_data_of = inbound.last_data_of
        except ProtocolViolation as violation:
            self._fail(violation, events)
        return events

    def _fail(self, violation: ProtocolViolation, events: list[Event]) -> None:
        message = str(violation)
        if self.wire is not None:
            debug = message.encode()[:_MAX_VIOLATION_TEXT]
            self._outbox.put(self._wire.goaway(self.streams.last_taken_id, violation.code, debug))
        events += self.end(BreakReason(violation.code, "local", message, ends_session=True))
        events.append(SessionFailed(violation.code, message))

    def end(self, broken: BreakReason) -> list[Event]:
        """The session is over: every stream on which something could happen is broken."""
        self._session.step(SessionInput.END)
        self.has_more = False  # what is left of a read is dropped
        streams = self.streams
        never_sent: set[int] = self._outbox.take_back(streams.live) if streams.live else set()
        events: list[Event] = []
        for stream in list(streams.live.values()):
            reason = broken._replace(safe_to_retry=True) if stream.id in never_sent else broken
            streams.break_off(stream, SESSION_END, reason)
            events.append(StreamBroken(stream))
        streams.end()
        return events

    # ---- what is to be known of the session

    @property
    def state(self) -> SessionState:
        """Where the session is in its life."""
        return self._session.state

    @property
    def can_open(self) -> bool:
        """The peer takes streams of this side."""
        return self._session.can_open

    @property
    def goaway_sent(self) -> bool:
        """This side has sent GOAWAY."""
        return self._session.goaway_sent

    @property
    def peer_debug(self) -> bytes:
        """The debug text of the peer's GOAWAY, as far as it came and fits."""
        return b"" if self.wire is None else self._inbound.peer_debug

    # ---- calls in

    def open_stream(self, stream_type: int = 0, priority: int = 0) -> Stream:
        """Open a stream; the frame that opens it is queued.

        Raises:
          OpenRefused: the peer went away, the session has ended, or all ids are used.
          ValueError: type or priority cannot be carried by this wire.
        """
        wire = self._wire
        if stream_type or priority:
            check_opening(stream_type, priority)
            if stream_type and not (wire.has_syn_frame or self._typed):
                raise ValueError("v2 carries stream types in typed sessions only (typed=True)")
        if not self._session.can_open:
            if self._session.state is SessionState.ENDED:
                raise OpenRefused(ErrorCode.SESSION_CLOSED, "the session has ended")
            raise OpenRefused(ErrorCode.REMOTE_GONE_AWAY, "the peer accepts no new streams")
        streams = self.streams
        quota = streams.outbound if stream_type != wire.heartbeat_type else None
        stream = streams.new_local(quota)
        self.counts.opened += 1
        if stream_type or priority:
            stream.type, stream.priority = stream_type, priority
        if wire.has_syn_frame:
            self._outbox.put(wire.syn(stream.id, priority, stream_type))
        else:
            if self._types_in_band:
                stream.outgoing.put(stream_type.to_bytes(TYPE_SIZE, "big"))
            self._outbox.open(stream)
        if streams.widens:
            streams.widen(stream)
        return stream

    def prioritize(self, stream: Stream, priority: int) -> None:
        """Send what is due on a stream in this order from now on; the peer is not told.

        Raises:
          ValueError: that is no priority.
        """
        check_priority(priority)
        self._outbox.prioritize(stream, priority)

    def put_above_all(self, stream: Stream) -> None:
        """Let a stream overtake every priority that can be chosen."""
        self._outbox.prioritize(stream, ABOVE_ALL)

    def hold(self, stream: Stream) -> bool:
        """Accept a stream of the peer for a handler that runs on it, and will surely let go of it.

        It keeps its slot until then.  To let go is ``close`` or ``reset``; without them the slot
        would be lost.  False when it cannot be had any more: it was refused, so no handler may run.
        """
        return self.streams.take(stream, HOLD)

    def accept(self, stream: Stream) -> bool:
        """The application accepts a stream of the peer; False when it cannot be had any more.

        It was refused then, which the peer was told, so nobody may be given it.
        """
        return self.streams.take(stream, ACCEPT)

    def send(self, stream: Stream, data: bytes | memoryview) -> None:
        """Queue bytes, which must never change; ``stream.outgoing.size`` tells how many wait."""
        assert SEND_END in stream.allowed
        stream.used = True
        stream.outgoing.put(data)
        if not stream.scheduled:
            self._outbox.schedule(stream)

    def withdraw(self, stream: Stream, keep: int) -> int:
        """Drop what waits to be sent, but for the first ``keep`` bytes: a send was cancelled.

        Returns how many bytes were dropped.
        """
        if stream.open_due and self._types_in_band:
            keep = max(keep, TYPE_SIZE)  # which nobody has cancelled
        waiting = stream.outgoing.size
        stream.outgoing.drop(keep)
        self._outbox.reconsider(stream)
        return waiting - stream.outgoing.size

    def probe(self) -> bool:
        """Ask whether the peer still has the streams that have waited for window for long.

        One that has closed them answers with RST; one that has them does nothing, and is asked
        again later.  To be called at equal intervals.  Returns whether a frame is queued.
        """
        return self._outbox.probe()

    def end_sending(self, stream: Stream) -> None:
        """Half-close: FIN goes out behind what waits."""
        stream.used = True
        stream.step(SEND_END)
        stream.end_due = True
        if not stream.scheduled:
            self._outbox.schedule(stream)

    def consume(self, stream: Stream, size: int) -> bool:
        """The application took ``size`` received bytes; whether there is credit to be sent."""
        stream.used = True
        window, budget = stream.receive_window, self.streams.budget
        if RECEIVE_DATA not in stream.allowed:  # nothing more comes: no credit, only memory
            window.unconsumed -= size
            stream.reserved -= size
            budget.left += size
            return False
        increment = window.consume(size)
        if window.end_round(self.streams.last_read_at, budget.largest):
            budget.grow(stream, self.streams.last_read_at)
            increment += window.take_grant()
        if increment:
            # A peer that has half of a grown window left does not wait for it, unless it is one
            # that clamps, and then not for long.
            self._outbox.queue_credit(stream.id, increment, can_wait_below=window.size // 2)
        return increment > 0

    def close(self, stream: Stream) -> bool:
        """Close gracefully: what waits is sent, then FIN; nothing more is read.

        The credit of what was not read is given back to a peer that may wait for it: so it sends
        again and is told by RST that nobody listens.  Returns whether something could still
        happen on the stream: else nothing is to be sent.
        """
        if not self.streams.release(stream):
            return False
        stream.used = True
        if SEND_END in stream.allowed:
            stream.end_due = True
        stream.step(CLOSE)
        # Before the frame that opens it goes out there is nothing to give back.
        window = stream.receive_window
        if stream.state is CLOSED_LOCAL and not stream.open_due and window.is_low:
            self._outbox.queue_credit(stream.id, window.discard())
        if not stream.scheduled:
            self._outbox.schedule(stream)
        if not stream.scheduled:  # else something is due on it
            self.streams.settle(stream)
        return True

    def reset(self, stream: Stream, code: ErrorCode | int) -> None:
        """End both directions at once; what waits to be sent is dropped."""
        if self.streams.release(stream):
            self.streams.reset(stream, code, "the stream was reset by this side")
        else:
            self.streams.reset_closed(stream, code)

    def expire(self, stream: Stream, code: ErrorCode | int, message: str) -> list[Event]:
        """Reset a half-open stream that takes too long.

        Its slot is free, but for a handler's: that keeps it until it has returned.
        """
        self.streams.expire(stream, code, message)
        return [StreamBroken(stream)]

    def goaway(self, code: ErrorCode | int, debug: bytes, *, last: bool = False) -> None:
        """Take no new streams of the peer; those that run go on.

        ``last`` says that nothing will follow it.
        """
        self._session.step(SessionInput.SEND_GOAWAY)
        self._outbox.put(self._wire.goaway(self.streams.last_taken_id, code, debug))
        if not last and not self._wire.has_syn_frame:
            # Go v2 before 2.0.2 swallows eight bytes after a GOAWAY and waits for them.  These
            # are eight that every known peer ignores: the end of a stream that does not exist.
            self._outbox.put(self._wire.data_header(self.streams.never_used_id, 0, fin=True))

    def refuse_unaccepted(self) -> list[Stream]:
        """Refuse every stream of the peer that nobody has accepted, nor may any more.

        Those that wait for their type are among them.  GOAWAY may have counted them: RST says
        that they were not processed.  Returns them.
        """
        refused = self.streams.nobodys()
        for stream in refused:
            self.reset(stream, ErrorCode.STREAM_REFUSED)
        return refused

    # ---- bytes out

    @property
    def wants_to_send(self) -> bool:
        """``data_to_send`` would return something that is to go out now."""
        return self.wire is not None and bool(self._outbox)

    @property
    def has_nothing_to_send(self) -> bool:
        """Neither now nor in a moment, unless something happens."""
        return self.wire is None or self._outbox.is_empty

    @property
    def sends_for_one(self) -> bool:
        """What ``data_to_send`` would return is of one stream."""
        return self.wire is not None and self._outbox.is_for_one

    @property
    def credit_waits(self) -> bool:
        """``data_to_send`` would return window credit, which may wait a moment for more."""
        return self.wire is not None and self._outbox.credit_waits

    @property
    def all_sent(self) -> bool:
        """Nothing of any stream waits, not even for window."""
        return self.wire is None or not self._outbox.holds_data

    @property
    def unsent(self) -> int:
        """Bytes that wait on all streams, and one for each frame without bytes that is due."""
        live = self.streams.live.values()
        return sum(s.outgoing.size + s.end_due + s.open_due for s in live)

    def data_to_send(self, size: int) -> tuple[list[Buffer], list[Stream]]:
        """Up to ``size`` bytes for the transport, in pieces, and whose they are.

        Control frames come on top.
        """
        batch, streams = self._outbox.next_batch(size)
        for stream in streams:
            if stream.state in OVER:
                self.streams.settle(stream)
        return batch, streams
