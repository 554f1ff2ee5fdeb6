"""The streams of a connection: which live, and what becomes of them.

Client ids are odd, server ids even; each side hands its own out in rising order and never
again, and learns the other's from the frames that open streams.
"""

from __future__ import annotations

from .budget import ReceiveBudget
from .codec import MAX_STREAM_ID, Wire
from .counts import Counts
from .errors import ErrorCode, OpenRefused, ProtocolViolation
from .guards import Allowance, Quota, Tombstones, calm
from .limits import Limits
from .outbox import Outbox
from .states import (
    ACCEPTED,
    CLOSED_LOCAL,
    CUSTODY_TRANSITIONS,
    HELD,
    OFFER,
    OPEN,
    RELEASE,
    SEEN,
    SEND_RESET,
    UNTYPED,
    WAITING,
    CustodyInput,
    StreamInput,
)
from .stream import BreakReason, Stream

MAX_HEARTBEAT_STREAMS = 2
"""Live heartbeat streams of the peer.  They have slots of their own, so that a session full of
streams of any type still answers heartbeats.  A peer needs one, and another when it begins anew
before the handler of the first has let go of it."""


class Streams:
    """The streams on which something can still happen, and what all of them share.

    That is ids, slots, the budget of their windows, and what a peer may make this side answer.
    Nothing lives before ``use`` has said what the wire is.
    """

    __slots__ = (
        "_counts",
        "_first_local_id",
        "_first_remote_id",
        "_limits",
        "_next_id",
        "_outbox",
        "_parity",
        "_provoked_resets",
        "_unanswered",
        "_window",
        "_wire",
        "budget",
        "extensions",
        "heartbeats",
        "inbound",
        "last_read_at",
        "last_remote_id",
        "last_taken_id",
        "live",
        "never_used_id",
        "outbound",
        "tombstones",
        "waiting",
        "widens",
    )

    _wire: Wire
    _outbox: Outbox
    _window: int
    widens: bool
    """New streams are promised more than the version's window."""

    def __init__(self, *, client: bool, limits: Limits, counts: Counts) -> None:
        self._limits = limits
        self._counts = counts
        self._provoked_resets = Allowance(limits.provoked_resets, limits.resets_per_second)
        self.last_read_at: float = 0.0
        """When the latest bytes of the peer were read."""
        self.live: dict[int, Stream] = {}
        """By id."""
        self.waiting: Quota = Quota(limits.accept_backlog)
        """Streams of the peer that nobody has accepted yet."""
        self.inbound: Quota = Quota(limits.max_inbound_streams)
        """Streams of the peer, but for extensions and heartbeats."""
        self.extensions: Quota = Quota(limits.max_extension_streams)
        """Extension streams of the peer, but for heartbeats."""
        self.heartbeats: Quota = Quota(MAX_HEARTBEAT_STREAMS)
        """Heartbeat streams of the peer."""
        self.outbound: Quota = Quota(limits.max_outbound_streams)
        """Streams of this side, but for the heartbeat; whoever opens minds the limit."""
        self.budget: ReceiveBudget = ReceiveBudget(limits, self.live)
        self._unanswered: dict[int, Stream] = {}
        """Streams that this side has opened and closed, and that may still wait in the peer's
        backlog.  They keep their slots until the peer does something about them."""
        self.tombstones: Tombstones = Tombstones()
        self.last_remote_id: int = 0
        """The highest id that the peer has used."""
        self.last_taken_id: int = 0
        """The highest id of the peer that was accepted before our first GOAWAY.  That is what all
        of them say: what comes behind one must not make the next one say more."""
        self._parity = 1 if client else 0
        # Id 1 is never used: v1 peers take it as used already and end the session.
        self._next_id = self._first_local_id = 3 if client else 2
        self._first_remote_id = 2 if client else 3
        self.never_used_id: int = MAX_STREAM_ID - 1 + self._parity
        """An id of this side that is never reached: a stream that is surely not alive."""

    def use(self, wire: Wire, outbox: Outbox) -> None:
        """The wire is known."""
        self._wire = wire
        self._outbox = outbox
        self.budget.initial_window = wire.initial_window
        self._window = max(wire.initial_window, self._limits.receive_window or 0)
        self.widens = self._window > wire.initial_window

    # ---- ids

    def new_local(self, quota: Quota | None = None) -> Stream:
        """A stream with the next id of this side, counted in ``quota``."""
        stream_id = self._next_id
        if stream_id >= self.never_used_id:
            raise OpenRefused(ErrorCode.STREAMS_EXHAUSTED, "all stream ids are used")
        self._next_id = stream_id + 2
        stream = self.live[stream_id] = Stream(stream_id, self._wire, True, quota)
        self.budget.left -= stream.reserved
        return stream

    def accept_syn(
        self, stream_id: int, quota: Quota, going: bool, extra: int = 0
    ) -> Stream | None:
        """A stream that the peer opens, counted in ``quota``; or refuse it.

        There may be ``extra`` more of them than usual.  ``going`` says that this side has sent
        GOAWAY.
        """
        self.check_opening(stream_id)
        # A heartbeat is answered to the end.  Of all others our GOAWAY says that they are not
        # processed, also of extensions.
        if quota.used >= quota.limit + extra or (
            quota is not self.heartbeats
            and (going or (self.budget.server is not None and not self.budget.admits()))
        ):
            self._counts.refused += 1
            self.answer(stream_id, ErrorCode.STREAM_REFUSED)
            return None
        stream = self.live[stream_id] = Stream(stream_id, self._wire, False, quota)
        self.budget.left -= stream.reserved
        if stream_id > self.last_taken_id and not going:
            self.last_taken_id = stream_id
        if self.widens:
            self.widen(stream)
        return stream

    def check_opening(self, stream_id: int) -> None:
        """The peer opens ``stream_id``: note it, or raise ProtocolViolation."""
        rising = self._wire.syns_rise
        # Where ids must rise (v1), 1 counts as used from the start.
        if not stream_id or stream_id % 2 == self._parity or (rising and stream_id == 1):
            fault = f"the peer cannot open a stream with id {stream_id}"
        elif stream_id in self.live:
            fault = f"stream {stream_id} opened twice"
        elif not rising:
            if stream_id > self.last_remote_id:
                self.last_remote_id = stream_id
            self.tombstones.forget(stream_id)
            return
        elif stream_id > self.last_remote_id:
            self.last_remote_id = stream_id
            return
        else:
            fault = f"stream {stream_id} opened after stream {self.last_remote_id}"
        raise ProtocolViolation(ErrorCode.PROTOCOL_ERROR, fault)

    def was_opened(self, stream_id: int) -> bool:
        """Whether the id has ever been in use."""
        if stream_id % 2 == self._parity:
            return 1 < stream_id < self._next_id
        return 1 < stream_id <= self.last_remote_id

    def local_above(self, last: int, up_to: int) -> list[Stream]:
        """The live streams of this side with ids above ``last``, up to ``up_to``, as they rise.

        Looks at each of these ids or at all live streams, whichever are fewer.  So a peer whose
        GOAWAYs fall makes this side look at each id once, however many streams live.
        """
        first = max(last + 1, self._first_local_id)
        first += (first ^ self._parity) & 1
        ids = range(first, min(up_to + 1, self._next_id), 2)
        live = self.live
        if len(ids) < len(live):
            return [live[stream_id] for stream_id in ids if stream_id in live]
        return [stream for stream in live.values() if stream.id in ids]

    def could_come_next(self, stream_id: int, opening: bool) -> bool:
        """Whether the peer could send a frame of that stream now."""
        if opening:
            return stream_id == max(self.last_remote_id + 2, self._first_remote_id)
        return self.was_opened(stream_id)

    # ---- who has a stream, and what it is counted for

    def nobodys(self) -> list[Stream]:
        """Live streams of the peer that were given to nobody yet."""
        live = self.live.values()
        return [s for s in live if s.custody is WAITING or s.custody is UNTYPED]

    def offer(self, stream: Stream) -> None:
        """Let a stream of the peer wait to be accepted."""
        stream.custody = CUSTODY_TRANSITIONS[stream.custody][OFFER]
        self.waiting.used += 1

    def take(self, stream: Stream, how: CustodyInput) -> bool:
        """The application takes a stream of the peer; False when it cannot be had any more.

        One that the peer has reset can: it has waited in its turn, and is counted until now.
        """
        custody = CUSTODY_TRANSITIONS[stream.custody].get(how)
        if custody is None:
            return False
        if stream.custody is WAITING:
            self.waiting.used -= 1
        stream.custody = custody
        return True

    def release(self, stream: Stream) -> bool:
        """The application lets go of a stream; whether something can still happen on it."""
        if stream.custody is WAITING:
            self.waiting.used -= 1
        stream.custody = CUSTODY_TRANSITIONS[stream.custody][RELEASE]
        if stream.reserved:
            self.budget.release(stream)
        if self.live.get(stream.id) is stream:
            return True
        if stream.quota is not None and stream.id not in self._unanswered:
            stream.leave_slot()
        return False

    def half_open(self) -> list[Stream]:
        """Streams whose type has not come, or that one side has ended and that are not done.

        With them are those that this side has closed and whose slot waits for the peer.
        The heartbeats of both sides are left alone, and the peer's extensions: they take no slot of
        an application's stream.
        """
        live = [
            stream
            for stream in self.live.values()
            if (stream.custody is UNTYPED or stream.state is not OPEN)
            and (stream.quota is self.inbound or stream.quota is self.outbound)
        ]
        return live + list(self._unanswered.values())

    def end(self) -> None:
        """The session is over: no slot waits for the peer any more."""
        for stream in self._unanswered.values():
            stream.leave_slot()
        self._unanswered.clear()

    # ---- receive windows, out of one budget

    @property
    def largest_window(self) -> int:
        """Bytes of the largest receive window that a stream may have."""
        return max(self._window, self._limits.max_receive_window)

    @property
    def spare_window(self) -> int:
        """What is left of the budget of all receive windows."""
        return self.budget.left

    def widen(self, stream: Stream) -> None:
        """Promise the configured receive window, where it is larger than the version's."""
        surplus = self.budget.widen(stream, self._window)
        if surplus and not stream.open_due:  # else the credit follows the frame that opens it
            self._outbox.queue_credit(stream.id, stream.receive_window.take_grant())

    # ---- how streams end

    def break_off(self, stream: Stream, what: StreamInput, broken: BreakReason) -> None:
        """A stream ends at once: what was due on it never goes out."""
        stream.step(what)
        stream.broken = broken
        stream.outgoing.drop()
        stream.end_due = False
        self._outbox.forget(stream)
        if stream.custody is UNTYPED:  # nobody has it, so nobody else will
            self.release(stream)
        self.budget.stop(stream)
        self.settle(stream)

    def reset(self, stream: Stream, code: ErrorCode | int, message: str) -> None:
        """This side resets a stream; a peer that has not heard of it need not be told."""
        peer_knows_it = not stream.open_due
        self.break_off(stream, SEND_RESET, BreakReason(code, "local", message))
        if peer_knows_it:
            self._put_reset(stream.id, code, answer=False)

    def reset_closed(self, stream: Stream, code: ErrorCode | int) -> None:
        """A stream was closed, and its end is on its way: RST says that this was not all."""
        if stream.id in self.tombstones and not self.tombstones.was_reset(stream.id):
            self._put_reset(stream.id, code, answer=False)
            self.note_answer(stream.id)  # nobody will answer what was reset

    def expire(self, stream: Stream, code: ErrorCode | int, message: str) -> None:
        """Reset a half-open stream, for which there will be no answer."""
        self.reset(stream, code, message)
        if stream.custody is not HELD:
            stream.leave_slot()
        self.note_answer(stream.id)

    def answer(self, stream_id: int, code: ErrorCode, *, our_doing: bool = False) -> None:
        """Queue an RST that the peer provoked, within what it may provoke.

        ``our_doing`` says that this side had closed the stream: of those there are as many as it
        has closed.
        """
        if not our_doing:
            if not self._provoked_resets.spend(self.last_read_at):
                raise calm("frames that must be answered with RST")
            if self._outbox.answers >= self._limits.waiting_control_frames:
                raise calm("frames that must be answered, while it takes no answers")
        self._put_reset(stream_id, code, answer=not our_doing)

    def answer_late_data(self, stream_id: int) -> None:
        """Data has come for a stream that lives no more: one RST answers all of it."""
        if self.tombstones.was_reset(stream_id):
            return
        if not self.was_opened(stream_id) and self._wire.syns_rise:
            raise ProtocolViolation(
                ErrorCode.PROTOCOL_ERROR, f"DATA for stream {stream_id}, which was never opened"
            )
        self.answer(stream_id, ErrorCode.STREAM_CLOSED, our_doing=stream_id in self.tombstones)

    def _put_reset(self, stream_id: int, code: ErrorCode | int, *, answer: bool) -> None:
        self._counts.resets_sent += 1
        self._outbox.put(self._wire.rst(stream_id, code), answer=answer)
        self.tombstones.add(stream_id, reset=True)

    def settle(self, stream: Stream) -> None:
        """Forget a stream on which nothing can happen any more.

        One that the application has closed is forgotten although the peer has not ended it, as
        the Go peers do: what still comes is answered with RST.  Only for one that is ``OVER``:
        whoever calls looks first, which saves a call each.
        """
        if stream.outgoing.size or stream.end_due or stream.open_due:
            return
        if self.live.get(stream.id) is not stream:
            return
        del self.live[stream.id]
        if stream.state is CLOSED_LOCAL:
            self.tombstones.add(stream.id, reset=False)
            if (
                stream.quota is self.outbound
                and stream.peer_view is not SEEN
                and self.outbound.bounded
            ):
                self._unanswered[stream.id] = stream
                return
        # A handler still costs us when its stream has ended, until it lets go of the stream.  Where
        # there may be none, only a reset, which is cheap to send, has to wait for that.
        custody = stream.custody
        if custody is HELD:
            return
        if stream.broken is None or stream.local or custody not in (ACCEPTED, WAITING):
            stream.leave_slot()

    def note_answer(self, stream_id: int) -> None:
        """The peer has acted on a stream of ours that lives no more, or never will."""
        stream = self._unanswered.pop(stream_id, None)
        if stream is not None:
            stream.leave_slot()

    def note_credit(self, stream_id: int, increment: int) -> None:
        """The peer has granted credit on such a stream: an answer, unless it only widens it."""
        stream = self._unanswered.get(stream_id)
        if stream is not None and stream.is_returned_credit(increment, self._wire):
            self.note_answer(stream_id)

    @property
    def idle(self) -> bool:
        """No stream of either side lives, but for heartbeats."""
        theirs = self.inbound.used + self.extensions.used
        return theirs == 0 and self.outbound.used == len(self._unanswered)
