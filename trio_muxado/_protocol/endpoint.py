"""One end of a session: its state, and how its streams and itself end.

What :mod:`~trio_muxado._protocol.inbound`, where the peer acts, and
:mod:`~trio_muxado._protocol.connection`, where this end does, are built on.
"""

from __future__ import annotations

from collections.abc import Collection

from .counts import Counts
from .errors import ErrorCode, ProtocolViolation
from .events import Event, SessionFailed, StreamBroken, make_data_received
from .guards import Allowance
from .limits import Limits
from .outbox import Outbox
from .states import (
    SEND_RESET,
    SESSION_END,
    SESSION_TRANSITIONS,
    SessionInput,
    SessionState,
    StreamInput,
)
from .stream import Broken, Stream
from .table import StreamTable
from .wire import Wire

GOING = frozenset((SessionState.GOING_AWAY, SessionState.DRAINING))
"""This end has sent GOAWAY."""

TYPE_SIZE = 4
"""Bytes of a stream's type on a typed v2 session."""

_MAX_VIOLATION_TEXT = 256
"""Bytes of our explanation in a GOAWAY; enough for a sentence, small for every peer."""


class Endpoint:
    """The state of one end; :class:`~trio_muxado._protocol.connection.Connection` is the whole.

    There is what the arguments are.
    """

    def __init__(
        self, *, client: bool, limits: Limits, typed: bool, extensions: Collection[int]
    ) -> None:
        self._limits = limits
        self._typed = typed
        self.wire: Wire | None = None
        """The generation; None until it is detected."""
        self.state = SessionState.ACTIVE
        self.streams = StreamTable(client=client, limits=limits)
        """The streams on which something can still happen, and the places they take."""
        self._extensions = dict.fromkeys(extensions, self.streams.extensions)
        self.counts = Counts()
        self.last_data_of = 0
        """The id of the stream that the latest data came for."""
        self._run: list[bytes | memoryview] = []
        self._run_of: Stream | None = None  # whose payloads are in the run
        self._provoked_resets = Allowance(limits.provoked_resets, limits.resets_per_second)
        self.has_more = False
        """Of what was received there are frames left: ``receive_data(b"", now)`` goes on."""
        self._now = 0.0
        self._events: list[Event] = []

    def _use(self, wire: Wire) -> None:
        self.wire = self._wire = wire
        if wire.has_syn_frame or self._typed:
            self._extensions[wire.heartbeat_type] = self.streams.heartbeats
        self._types_in_band = self._typed and not wire.has_syn_frame
        type_size = TYPE_SIZE if self._types_in_band else 0
        self._outbox = Outbox(wire, self.counts, type_size=type_size)
        self._window = max(wire.initial_window, self._limits.receive_window or 0)
        self._widens = self._window > wire.initial_window

    def _widen(self, stream: Stream) -> None:
        """Promise the configured receive window, which is larger than the generation's."""
        window = stream.receive_window
        lent = self.streams.lend(stream, self._window - window.size, self._wire)
        window.grow(window.size + lent)
        if lent and not stream.open_due:  # else the credit follows the frame that opens it
            self._outbox.grant(stream.id, window.grant())

    def _end_run(self, *, ended: bool = False) -> None:
        """Make one event of the payloads that came for a stream in a row: one copy serves all."""
        run, stream = self._run, self._run_of
        if stream is None:
            return
        data = bytes(run[0]) if len(run) == 1 else b"".join(run)
        self._events.append(make_data_received((stream, data, ended)))
        self.last_data_of = stream.id
        self._run = []
        self._run_of = None

    # ---- streams that end at once, and the session

    def _answer_with_reset(
        self, stream: Stream, code: ErrorCode, message: str, *, our_doing: bool = False
    ) -> None:
        """Reset a stream because of what the peer sent."""
        self._break(stream, SEND_RESET, Broken(code, "local", message))
        self._events.append(StreamBroken(stream))
        self._answer(stream.id, code, our_doing=our_doing)

    def _answer(self, stream_id: int, code: ErrorCode, *, our_doing: bool = False) -> None:
        """Queue an RST that the peer provoked, within what it may provoke."""
        if not our_doing:  # else as many as this end has closed, which is bounded by that
            if not self._provoked_resets.spend(self._now):
                raise calm("frames that must be answered with RST")
            if self._outbox.answers >= self._limits.waiting_control_frames:
                raise calm("frames that must be answered, while it takes no answers")
        self.counts.resets_sent += 1
        self._outbox.put(self._wire.rst(stream_id, code), answer=not our_doing)
        self.streams.gone.add(stream_id, reset=True)

    def _break(self, stream: Stream, what: StreamInput, broken: Broken) -> None:
        self._end_run()  # what came before still reaches the application
        stream.step(what)
        stream.broken = broken
        stream.outgoing.drop()
        stream.end_due = False
        self._outbox.forget(stream)
        self.streams.repay_read(stream)
        self.streams.settle(stream)

    def _fail(self, violation: ProtocolViolation) -> None:
        message = str(violation)
        if self.wire is not None:
            debug = message.encode()[:_MAX_VIOLATION_TEXT]
            self._outbox.put(self._wire.goaway(self.streams.last_taken_id, violation.code, debug))
        self._end(Broken(violation.code, "local", message, ends_session=True))
        self._events.append(SessionFailed(violation.code, message))

    def end(self, broken: Broken) -> list[Event]:
        """The session is over: every stream on which something could happen is broken."""
        self._events = []
        self._end(broken)
        return self._events

    def _end(self, broken: Broken) -> None:
        self.state = SESSION_TRANSITIONS[self.state][SessionInput.END]
        self.has_more = False  # what is left of a read is dropped
        in_vain = broken._replace(unprocessed=True)
        live = self.streams.live
        unseen = self._outbox.take_back(live) if live else set[int]()
        for stream in list(live.values()):
            reason = in_vain if stream.id in unseen else broken
            self._break(stream, SESSION_END, reason)
            self._events.append(StreamBroken(stream))


def calm(what: str) -> ProtocolViolation:
    """What ends the session of a peer that makes too much work."""
    return ProtocolViolation(ErrorCode.ENHANCE_YOUR_CALM, f"the peer floods with {what}")
