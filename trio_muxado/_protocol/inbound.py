"""What the peer sends, and what follows: frames in, events out.

A received byte goes ``Connection.receive_data`` -> ``Decoder.feed`` -> the handler of its frame
here -> an event.  No call waits, calls back, or looks at a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from . import frames
from .codec import MAX_STREAM_ID, TYPE_SIZE, Wire
from .counts import Counts
from .decoder import FRAMES_AT_ONCE, Decoder
from .errors import ErrorCode, ProtocolViolation
from .events import (
    DataReceived,
    Event,
    GoAwayReceived,
    PeerEnded,
    StreamBroken,
    StreamOpened,
)
from .frames import new_tuple
from .guards import Allowance, Quota, calm
from .limits import Limits
from .outbox import Outbox
from .session import Session
from .states import (
    ACCEPT,
    ACT,
    CLOSED_LOCAL,
    OVER,
    PEER_VIEW_TRANSITIONS,
    RECEIVE_DATA,
    RECEIVE_END,
    RECEIVE_RESET,
    SEEN,
    SEND_RESET,
    UNHEARD,
    UNTYPED,
    PeerInput,
    SessionInput,
    StreamInput,
)
from .stream import BreakReason, Stream
from .streams import Streams

_REFUSALS = (ErrorCode.STREAM_REFUSED, ErrorCode.ACCEPT_QUEUE_FULL)


class Inbound:
    """What becomes of the frames of the peer; made when the wire is known.

    Args:
      extensions: where the streams of an extension's type are counted, the heartbeat's among them.
      types_in_band: a stream's first bytes are its type.
    """

    def __init__(
        self,
        wire: Wire,
        *,
        session: Session,
        streams: Streams,
        outbox: Outbox,
        counts: Counts,
        limits: Limits,
        extensions: Mapping[int, Quota],
        types_in_band: bool,
    ) -> None:
        self._wire = wire
        self._session = session
        self._streams = streams
        self._outbox = outbox
        self._counts = counts
        self._limits = limits
        self._extensions = extensions
        self._types_in_band = types_in_band
        self._decoder = Decoder(wire, streams.could_come_next, runs=True, at_once=FRAMES_AT_ONCE)
        self._events: list[Event] = []
        self._largest_data = streams.largest_window
        self.last_data_of = 0
        """The id of the stream that the latest data came for."""
        self.peer_debug = b""
        """The debug text of the peer's GOAWAY, as far as it came and fits."""
        self._peer_last_id = MAX_STREAM_ID
        self._peer_last_id_is_exact = True
        self._run: list[bytes | memoryview] = []  # payloads that came for a stream in a row
        self._run_of: Stream | None = None
        self._receiving: tuple[Stream, bool] | None = None  # whose DataRest comes, and its FIN
        self._empty_frames = 0
        self._unread_resets = Allowance(limits.unread_resets, limits.resets_per_second)

    def receive(self, data: bytes | memoryview, events: list[Event]) -> bool:
        """Handle bytes of the transport, and add the events; whether there are frames left.

        ``ProtocolViolation`` may leave this: then what came before it has been handled.
        """
        self._events = events
        handlers = self._HANDLERS
        complete = self._decoder.feed(data)
        self._counts.frames_received += len(complete)
        try:
            for frame in complete:
                handlers[type(frame)](self, frame)
        finally:
            if self._run:
                self._end_run()
            self._events = []  # whoever has taken them may let go of what is in them
        return self._decoder.has_more

    # ---- frames in

    def _on_syn(self, frame: frames.Syn) -> None:
        stream_id, priority, stream_type, fin = frame
        quota = self._extensions.get(stream_type, self._streams.inbound)
        stream = self._streams.accept_syn(stream_id, quota, self._session.goaway_sent)
        if stream is None:
            return
        stream.type = stream_type
        stream.priority = priority
        if self._announce(stream) and fin:
            self._receive_end(stream)

    def _on_data(self, frame: frames.Data) -> None:
        stream_id, length, payload, syn, fin = frame
        if length > self._largest_data:
            message = f"DATA of {length} bytes, larger than any window"
            raise ProtocolViolation(ErrorCode.FRAME_SIZE_ERROR, message)
        if length or fin or syn:
            self._empty_frames = 0
        else:
            self._empty_frames += 1
            if self._empty_frames > self._limits.empty_frames:
                raise calm("DATA frames without data")
        stream = self._open_by_data(stream_id) if syn else self._streams.live.get(stream_id)
        if stream is None:
            if not syn:
                self._streams.note_answer(stream_id)
                if length:
                    self._streams.answer_late_data(stream_id)
            return
        may_receive = RECEIVE_DATA in stream.allowed
        if length:
            if not may_receive:
                if not self._skip_late_data(stream, length):
                    return
            elif not stream.receive_window.take(length):
                self._refuse_overflow(stream, length)
                return
        if stream.peer_view is not SEEN:
            stream.peer_view = PEER_VIEW_TRANSITIONS[stream.peer_view][ACT]
        if not length:
            if fin:
                self._receive_end(stream)
        elif len(payload) < length:
            self._receiving = (stream, fin)
            self._deliver(stream, payload, False)
        elif fin and not self._run and stream.custody is not UNTYPED and may_receive:
            # In short what follows in full: so most small messages come, whole and with their end.
            data = payload if type(payload) is bytes else bytes(payload)
            self._events.append(new_tuple(DataReceived, (stream, data, True)))
            self.last_data_of = stream_id
            self._stop_receiving(stream)
        else:
            self._deliver(stream, payload, fin)

    def _on_data_run(self, frame: frames.DataRun) -> None:
        stream_id, length, payloads = frame
        self._empty_frames = 0  # none of a run is empty
        self._counts.frames_received += len(payloads) - 1
        stream = self._run_of
        # Where the frame before has been taken, its equals can be, as far as the window goes.
        if (
            stream is not None
            and stream.id == stream_id
            and stream.receive_window.take(length * len(payloads))
        ):
            self._run += payloads
            return
        for payload in payloads:
            self._on_data(frames.Data(stream_id, length, payload, syn=False, fin=False))

    def _on_data_rest(self, frame: frames.DataRest) -> None:
        self._counts.frames_received -= 1  # a piece of one that is counted
        if self._receiving is None:
            return  # of a frame that was not taken
        stream, fin = self._receiving
        if frame.last:
            self._receiving = None
        self._deliver(stream, frame.payload, fin and frame.last)

    def _deliver(self, stream: Stream, payload: bytes | memoryview, end: bool) -> None:
        if stream.custody is UNTYPED and payload and stream.broken is None:
            payload = stream.take_type(payload)
            if len(stream.type_bytes) == TYPE_SIZE:
                self._announce(stream)
        # Between the pieces of a frame this side may have closed or reset the stream.
        if stream.broken is not None:
            return
        if payload and RECEIVE_DATA in stream.allowed:
            if stream is not self._run_of:
                if self._run:
                    self._end_run()
                self._run_of = stream
            self._run.append(payload)
        if end:
            self._receive_end(stream)

    def _receive_end(self, stream: Stream) -> None:
        if stream.custody is UNTYPED:
            message = "the stream ended before its type"
            self._answer_with_reset(stream, ErrorCode.STREAM_CLOSED, message)
            return
        if stream is self._run_of:
            self._end_run(True)
        else:
            self._end_run()
            if RECEIVE_DATA in stream.allowed:
                self._events.append(new_tuple(DataReceived, (stream, b"", True)))
        self._stop_receiving(stream)

    def _stop_receiving(self, stream: Stream) -> None:
        """The peer has ended its direction of a stream, and the events say so."""
        streams = self._streams
        stream.step(RECEIVE_END)
        streams.budget.stop(stream)
        if stream.state in OVER:
            streams.settle(stream)

    def _end_run(self, ended: bool = False) -> None:
        """Make one event of the payloads that came for a stream in a row: one copy serves all."""
        run, stream = self._run, self._run_of
        if stream is None:
            return
        data = bytes(run[0]) if len(run) == 1 else b"".join(run)
        self._events.append(new_tuple(DataReceived, (stream, data, ended)))
        self.last_data_of = stream.id
        self._run = []
        self._run_of = None

    def _on_rst(self, frame: frames.Rst) -> None:
        stream = self._streams.live.get(frame.stream_id)
        if stream is None:
            self._streams.note_answer(frame.stream_id)
            return
        unread = not (stream.local or stream.used)
        if unread and not self._unread_resets.spend(self._streams.last_read_at):
            raise calm("streams opened and reset")
        self._counts.resets_received += 1
        code = self._wire.code_from_wire(frame.error_code)
        name = code.name if isinstance(code, ErrorCode) else f"error {code}"
        refused = code in _REFUSALS and stream.peer_view is UNHEARD
        broken = BreakReason(code, "remote", f"the peer reset the stream: {name}", refused)
        self._break(stream, RECEIVE_RESET, broken)

    def _on_wndinc(self, frame: frames.WndInc) -> None:
        if not frame.increment and not self._wire.ignores_zero_increment:
            raise ProtocolViolation(ErrorCode.PROTOCOL_ERROR, "WNDINC of zero")
        stream = self._streams.live.get(frame.stream_id)
        if stream is None:
            self._streams.note_credit(frame.stream_id, frame.increment)
            return
        if stream.peer_view is not SEEN:
            shown = stream.is_returned_credit(frame.increment, self._wire)
            what = ACT if shown else PeerInput.WIDEN
            stream.peer_view = PEER_VIEW_TRANSITIONS[stream.peer_view][what]
        if stream.increase_send_window(frame.increment):
            if not stream.scheduled:
                self._outbox.schedule(stream)
        else:
            message = "the window passed 2^31 - 1"
            self._answer_with_reset(stream, ErrorCode.FLOW_CONTROL_ERROR, message)

    def _on_goaway(self, frame: frames.GoAway) -> None:
        self._end_run()  # what came before it is told before it
        self._session.step(SessionInput.RECEIVE_GOAWAY)
        self.peer_debug = b""
        self._events.append(GoAwayReceived(self._wire.code_from_wire(frame.error_code)))
        last = frame.last_stream_id
        if last >= self._peer_last_id:
            return  # nothing new is above it
        above = self._streams.local_above(last, self._peer_last_id)
        self._peer_last_id = last
        # The id is exact on v1, and on v2 too, where our SYNs rise: what peers put there is the
        # latest.  A stream above it that was answered goes on, and shows that this peer's is not.
        if any(stream.peer_view is not UNHEARD for stream in above):
            self._peer_last_id_is_exact = False
        why = "the peer went away before it took the stream"
        broken = BreakReason(ErrorCode.REMOTE_GONE_AWAY, "remote", why, self._peer_last_id_is_exact)
        for stream in above:
            if stream.peer_view is UNHEARD:
                self._break(stream, RECEIVE_RESET, broken)

    def _on_goaway_debug(self, frame: frames.GoAwayDebug) -> None:
        self._counts.frames_received -= 1  # a piece of one that is counted
        self.peer_debug = frame.debug

    def _on_unknown(self, frame: frames.Unknown) -> None:
        """Skipped: a later version may know it."""

    def _on_malformed(self, frame: frames.Malformed) -> None:
        if self._session.goaway_received and self._wire.goaway_understates:
            self._end_run()  # what came before is no part of the end
            self._events.append(PeerEnded())
        else:
            raise ProtocolViolation(frame.code, frame.message)

    # ---- streams of the peer

    def _open_by_data(self, stream_id: int) -> Stream | None:
        """A v2 stream begins: announce it, or wait for its type."""
        streams, going = self._streams, self._session.goaway_sent
        if self._types_in_band:
            # It may turn out to be an extension, which has a slot even in a full session.
            extra = self._limits.max_extension_streams
            return streams.accept_syn(stream_id, streams.inbound, going, extra)
        stream = streams.accept_syn(stream_id, streams.inbound, going)
        return stream if stream is not None and self._announce(stream) else None

    def _announce(self, stream: Stream) -> bool:
        """The type is known: show the stream to the application, or refuse it."""
        streams, refusal = self._streams, None
        if stream.type and stream.type in self._extensions:
            quota = self._extensions[stream.type]
            stream.take_slot(quota)
            if quota.used > quota.limit:
                refusal = ErrorCode.STREAM_REFUSED
            else:
                streams.take(stream, ACCEPT)
        elif stream.type >= self._wire.first_extension_type:
            refusal = ErrorCode.STREAM_CLOSED  # as Go v1 answers an extension it does not have
        elif streams.inbound.used > streams.inbound.limit:
            refusal = ErrorCode.STREAM_REFUSED
        elif streams.waiting.used >= streams.waiting.limit:
            refusal = ErrorCode.ACCEPT_QUEUE_FULL
        else:
            streams.offer(stream)
        if refusal is not None:
            self._counts.refused += 1
            streams.release(stream)  # nobody will read what came with it
            self._answer_with_reset(stream, refusal, "refused")
            return False
        self._counts.offered += 1
        self._events.append(new_tuple(StreamOpened, (stream,)))
        return True

    # ---- data that is answered with RST

    def _skip_late_data(self, stream: Stream, length: int) -> bool:
        """Data after the peer's end, or for an application that has closed the stream.

        It is answered with RST, or skipped; whether its FIN still counts.
        """
        closed_here = stream.state is CLOSED_LOCAL
        if not (closed_here and stream.can_send):
            message = "data came for a stream that is closed"
            self._answer_with_reset(stream, ErrorCode.STREAM_CLOSED, message, our_doing=closed_here)
            return False
        if not stream.receive_window.take(length):
            self._refuse_overflow(stream, length)
            return False
        # RST would take with it what is about to go out.  So this is skipped, and with its credit
        # more can come: after our end it meets the RST.
        self._outbox.queue_credit(stream.id, stream.receive_window.discard())
        return True

    def _refuse_overflow(self, stream: Stream, length: int) -> None:
        """More data than the stream's window allows."""
        message = f"{length} bytes came where {stream.receive_window.credit} were allowed"
        self._answer_with_reset(stream, ErrorCode.FLOW_CONTROL_ERROR, message)

    # ---- streams that end at once

    def _break(self, stream: Stream, what: StreamInput, broken: BreakReason) -> None:
        self._end_run()  # what came before still reaches the application
        self._streams.break_off(stream, what, broken)
        self._events.append(StreamBroken(stream))

    def _answer_with_reset(
        self, stream: Stream, code: ErrorCode, message: str, *, our_doing: bool = False
    ) -> None:
        """Reset a stream because of what the peer sent."""
        self._break(stream, SEND_RESET, BreakReason(code, "local", message))
        self._streams.answer(stream.id, code, our_doing=our_doing)

    _HANDLERS: ClassVar[Mapping[type[Any], Callable[[Any, Any], None]]] = {
        frames.Data: _on_data,
        frames.DataRun: _on_data_run,
        frames.DataRest: _on_data_rest,
        frames.Syn: _on_syn,
        frames.Rst: _on_rst,
        frames.WndInc: _on_wndinc,
        frames.GoAway: _on_goaway,
        frames.GoAwayDebug: _on_goaway_debug,
        frames.Unknown: _on_unknown,
        frames.Malformed: _on_malformed,
    }
