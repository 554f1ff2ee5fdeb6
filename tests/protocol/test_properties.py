"""Properties of whole sessions, searched for by hypothesis.

Two connections back to back, whatever their applications do and however the bytes are cut:
everything arrives, in order, and nothing is left.  One connection against a peer that sends
anything: it never raises, never holds much, and never minds how the bytes are cut.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from trio_muxado._protocol import events
from trio_muxado._protocol.codec import Wire
from trio_muxado._protocol.connection import Connection
from trio_muxado._protocol.errors import ErrorCode
from trio_muxado._protocol.limits import Limits
from trio_muxado._protocol.states import SessionState, StreamInput
from trio_muxado._protocol.stream import Stream
from trio_muxado._protocol.streams import MAX_HEARTBEAT_STREAMS

from .driver import BOTH, V1, V2, End, by_stream, receive, weight

# ---- two connections back to back


class Side:
    """One end with an application that accepts everything and checks what it is told."""

    def __init__(self, end: End) -> None:
        self.end = end
        self.peer: Side
        self.talks: dict[int, Talk] = {}
        self.in_flight = bytearray()
        """What has left this end and not arrived at the other."""

    def collect(self, size: int) -> None:
        self.in_flight += self.end.bytes_sent(size)

    def deliver(self, size: int) -> None:
        data = bytes(self.in_flight[:size])
        del self.in_flight[:size]
        for event in self.peer.end.feed(data):
            self.peer.notice(event)

    def notice(self, event: events.Event) -> None:
        assert not isinstance(event, events.SessionFailed | events.PeerEnded), event
        match event:
            case events.StreamOpened(stream):
                self.end.core.accept(stream)
                self.talks[stream.id] = Talk(self, stream)
            case events.DataReceived(stream, data, ended):
                assert data or ended
                if data:
                    self.talks[stream.id].receive(data)
                if ended:
                    self.talks[stream.id].receive_end()
            case events.StreamBroken(stream) if stream.id in self.talks:
                assert stream.broken is not None
                self.talks[stream.id].broken = True

    def flush(self) -> None:
        while self.in_flight or self.end.core.credit_waits or self.end.core.wants_to_send:
            self.collect(1 << 30)
            self.deliver(len(self.in_flight))


class Talk:
    """One end of one stream, and what its application knows of it."""

    def __init__(self, side: Side, stream: Stream) -> None:
        self.side = side
        self.stream = stream
        self.sent = self.received = 0
        self.sent_end = self.received_end = self.left = self.broken = False

    @property
    def other(self) -> Talk | None:
        return self.side.peer.talks.get(self.stream.id)

    def pattern(self, start: int, size: int, *, by: Side) -> bytes:
        """What stands at ``start`` in the direction that ``by`` sends."""
        salt = self.stream.id * 2 + by.end.core.streams._parity
        return bytes((salt + i * 7) % 251 for i in range(start, start + size))

    @property
    def listens(self) -> bool:
        return not (self.left or self.broken or self.received_end)

    @property
    def may_send(self) -> bool:
        return not self.left and StreamInput.SEND_END in self.stream.allowed

    def send(self, size: int) -> None:
        self.side.end.core.send(self.stream, self.pattern(self.sent, size, by=self.side))
        self.sent += size

    def receive(self, data: bytes) -> None:
        assert self.listens
        assert data == self.pattern(self.received, len(data), by=self.side.peer)
        self.received += len(data)

    def receive_end(self) -> None:
        assert self.listens
        self.received_end = True
        assert self.other is not None
        assert self.other.sent_end
        assert self.other.sent == self.received

    def consume(self, size: int) -> None:
        size = min(size, self.stream.receive_window.unconsumed)
        if size and not self.left:
            self.side.end.core.consume(self.stream, size)


SMALL = st.integers(0, 50)
SIZES = st.one_of(SMALL, st.integers(1, 100_000), st.sampled_from([1024, 16383, 65536, 262_144]))


class Sessions(RuleBasedStateMachine):
    """A client and a server, both well-behaved, over a transport that cuts as it likes."""

    @initialize(
        wire=st.sampled_from(BOTH),
        typed=st.booleans(),
        limits=st.sampled_from(
            [
                {},
                {"receive_window": 1_000_000},
                {"receive_window": 1_000_000, "receive_budget": 2_500_000},
                {"receive_budget": 1_000_000, "max_receive_window": 300_000},
                {"receive_budget": 100_000},
                {"max_inbound_streams": 2},
            ]
        ),
    )
    def begin(self, wire: Wire, typed: bool, limits: dict[str, Any]) -> None:
        self.typed = typed or wire.has_syn_frame
        self.client = Side(End(wire, client=True, typed=typed, **limits))
        self.server = Side(End(wire, typed=typed, **limits))
        self.client.peer, self.server.peer = self.server, self.client
        self.sides = (self.client, self.server)

    def talks(self) -> list[Talk]:
        return [talk for side in self.sides for talk in side.talks.values() if not talk.left]

    @rule(client=st.booleans(), type=st.integers(0, 5), priority=st.integers(0, 2))
    def open(self, client: bool, type: int, priority: int) -> None:
        side = self.client if client else self.server
        if side.end.core.can_open:
            choices = {"stream_type": type} if self.typed else {}
            stream = side.end.core.open_stream(priority=priority, **choices)
            side.talks[stream.id] = Talk(side, stream)

    @precondition(lambda self: self.talks())
    @rule(data=st.data(), size=SIZES)
    def send(self, data: st.DataObject, size: int) -> None:
        talk = data.draw(st.sampled_from(self.talks()))
        if talk.may_send:
            talk.send(size)

    @precondition(lambda self: self.talks())
    @rule(data=st.data(), priority=st.integers(0, 2))
    def prioritize(self, data: st.DataObject, priority: int) -> None:
        talk = data.draw(st.sampled_from(self.talks()))
        talk.side.end.core.prioritize(talk.stream, priority)

    @precondition(lambda self: self.talks())
    @rule(data=st.data())
    def end_sending(self, data: st.DataObject) -> None:
        talk = data.draw(st.sampled_from(self.talks()))
        if talk.may_send:
            talk.sent_end = True
            talk.side.end.core.end_sending(talk.stream)

    @precondition(lambda self: self.talks())
    @rule(data=st.data(), size=SIZES)
    def consume(self, data: st.DataObject, size: int) -> None:
        data.draw(st.sampled_from(self.talks())).consume(size)

    @precondition(lambda self: self.talks())
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        talk = data.draw(st.sampled_from(self.talks()))
        talk.left = True
        talk.sent_end = True
        talk.side.end.core.close(talk.stream)

    @precondition(lambda self: self.talks())
    @rule(data=st.data())
    def reset(self, data: st.DataObject) -> None:
        talk = data.draw(st.sampled_from(self.talks()))
        talk.left = True
        talk.side.end.core.reset(talk.stream, ErrorCode.STREAM_CANCELLED)

    @rule(client=st.booleans(), last=st.booleans())
    def goaway(self, client: bool, last: bool) -> None:
        side = self.client if client else self.server
        side.end.core.goaway(ErrorCode.NO_ERROR, b"a debug text", last=last)

    @rule(client=st.booleans(), size=SIZES)
    def collect(self, client: bool, size: int) -> None:
        (self.client if client else self.server).collect(size + 1)

    @rule(client=st.booleans(), size=SIZES)
    def deliver(self, client: bool, size: int) -> None:
        (self.client if client else self.server).deliver(size)

    @rule()
    def settle(self) -> None:
        """Everything that is on its way arrives; then both ends agree on every window."""
        while any(
            side.in_flight or side.end.core.wants_to_send or side.end.core.credit_waits
            for side in self.sides
        ):
            for side in self.sides:
                side.flush()
        for talk in self.client.talks.values():
            other = talk.other
            streams = self.server.end.core.streams.live
            if other is None or talk.stream.id not in streams or other.left or talk.left:
                continue
            for one, two in (talk.stream, other.stream), (other.stream, talk.stream):
                if StreamInput.RECEIVE_DATA in (i for i in StreamInput if i in two.allowed):
                    assert one.send_window == two.receive_window.credit

    @invariant()
    def windows_add_up(self) -> None:
        for side in getattr(self, "sides", ()):
            for talk in side.talks.values():
                window = talk.stream.receive_window
                assert window.ungranted >= 0
                assert window.credit >= 0
                assert talk.stream.send_window >= 0
                if StreamInput.RECEIVE_DATA in talk.stream.allowed:
                    assert talk.stream.reserved == window.size
            streams = side.end.core.streams
            # A stream that waits for its type is in no talk, one that has ended does not live.
            known = {*streams.live.values(), *(talk.stream for talk in side.talks.values())}
            reserved = sum(stream.reserved for stream in known)
            assert reserved + streams.spare_window == side.end.core._limits.receive_budget

    @invariant()
    def places_add_up(self) -> None:
        for side in getattr(self, "sides", ()):
            streams = side.end.core.streams
            live = streams.live.values()
            held = [talk.stream for talk in side.talks.values() if talk.stream.quota]
            in_place = {stream.id for stream in (*live, *held) if stream.quota is streams.inbound}
            assert streams.inbound.used == len(in_place)
            unanswered = [s for s in streams.half_open() if streams.live.get(s.id) is not s]
            assert streams.outbound.used == sum(s.local for s in live) + len(unanswered)

    def teardown(self) -> None:
        if not hasattr(self, "sides"):
            return
        for _ in range(3):
            self.settle()
            for side in self.sides:
                for talk in side.talks.values():
                    talk.consume(1 << 30)
        while any(talk.stream.outgoing.size for side in self.sides for talk in side.talks.values()):
            # What waits for window gets it, as long as somebody reads.
            before = sum(t.stream.outgoing.size for side in self.sides for t in side.talks.values())
            for side in self.sides:
                for talk in side.talks.values():
                    talk.consume(1 << 30)
            self.settle()
            after = sum(t.stream.outgoing.size for side in self.sides for t in side.talks.values())
            if before == after:
                break
        for side in self.sides:
            for talk in side.talks.values():
                other = talk.other
                if other is None or talk.left or other.left or talk.broken or other.broken:
                    continue
                assert other.received == talk.sent
                assert other.received_end == talk.sent_end
                assert talk.stream.outgoing.size == 0
        for side in self.sides:
            for talk in side.talks.values():
                if not talk.left:
                    talk.left = True
                    side.end.core.close(talk.stream)
        self.settle()
        for side in self.sides:
            for talk in side.talks.values():
                talk.side.end.core.reset(talk.stream, ErrorCode.STREAM_CANCELLED)
        self.settle()
        for side in self.sides:
            streams = side.end.core.streams
            assert streams.live == {}
            for quota in (
                streams.inbound,
                streams.outbound,
                streams.waiting,
                streams.extensions,
                streams.heartbeats,
            ):
                assert quota.used == 0
            assert streams.spare_window == side.end.core._limits.receive_budget
            assert not side.end.core.wants_to_send
            assert not side.end.core.credit_waits


def test_two_sessions_back_to_back_lose_nothing_and_leave_nothing() -> None:
    run_state_machine_as_test(Sessions)


# ---- one connection against a peer that sends anything


def connections() -> st.SearchStrategy[Connection]:
    return st.builds(
        lambda client, wire, typed: Connection(
            client=client,
            wire=V1 if client and wire is None else wire,
            limits=Limits(),
            typed=typed,
        ),
        client=st.booleans(),
        wire=st.sampled_from([None, V1, V2]),
        typed=st.booleans(),
    )


def frames_of(wire: Wire) -> st.SearchStrategy[bytes]:
    """Frames that make sense, for few ids, so that they meet."""
    ids = st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 2**31 - 1])
    codes = st.one_of(st.sampled_from(ErrorCode), st.integers(0, 2**32 - 1))
    numbers = st.one_of(st.integers(0, 20), st.integers(0, 2**31 - 1))
    payloads = st.one_of(st.binary(max_size=8), st.integers(0, 5000).map(bytes))

    def data(stream_id: int, payload: bytes, fin: bool, syn: bool) -> bytes:
        return wire.data_header(stream_id, len(payload), fin=fin, syn=syn) + payload

    kinds = [
        st.builds(data, ids, payloads, st.booleans(), st.booleans()),
        st.builds(data, ids, payloads, st.booleans(), st.booleans()),
        st.builds(wire.rst, ids, codes),
        st.builds(wire.wndinc, ids, numbers),
        st.builds(wire.goaway, numbers, codes, st.binary(max_size=30)),
        # What Go v1 and Rust send: a length that is not what follows.
        st.builds(
            lambda length, last: (
                wire.header("GOAWAY", length, 0, 0) + last.to_bytes(4, "big") + bytes(4)
            ),
            st.integers(0, 40),
            st.integers(0, 9),
        ),
    ]
    if wire.has_syn_frame:
        types = st.one_of(st.integers(0, 3), st.integers(0xFFFFFE00, 0xFFFFFFFF))
        kinds.append(st.builds(wire.syn, ids, st.integers(0, 2), types))
    return st.one_of(kinds)


@st.composite
def mutations(draw: st.DrawFn, wire: Wire) -> bytes:
    """Frames that make sense, with a few bytes changed, lost or doubled."""
    stream = bytearray(b"".join(draw(st.lists(frames_of(wire), max_size=30))))
    for _ in range(draw(st.integers(0, 4))):
        if not stream:
            break
        at = draw(st.integers(0, len(stream) - 1))
        match draw(st.sampled_from(["change", "lose", "double", "insert"])):
            case "change":
                stream[at] = draw(st.integers(0, 255))
            case "lose":
                del stream[at : at + draw(st.integers(1, 12))]
            case "double":
                stream[at:at] = stream[at : at + draw(st.integers(1, 24))]
            case "insert":
                stream[at:at] = draw(st.binary(min_size=1, max_size=12))
    return bytes(stream)


def cut(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = [0, *sorted(place % (len(data) + 1) for place in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(places)]


CUTS = st.lists(st.integers(0, 1 << 20), max_size=12)

HELD_AT_MOST = 500_000
"""Bytes: a backlog of 128 streams, a thousand answers, and a read of the largest input here."""


def assert_bounded(core: Connection) -> None:
    assert weight(core) < HELD_AT_MOST
    streams = core.streams
    limits = core._limits
    assert streams.inbound.used <= limits.max_inbound_streams + limits.max_extension_streams
    assert streams.extensions.used <= limits.max_extension_streams
    assert streams.heartbeats.used <= MAX_HEARTBEAT_STREAMS
    assert streams.waiting.used <= limits.accept_backlog
    assert core.wire is None or core._outbox.answers <= limits.waiting_control_frames


def feed_anything(core: Connection, pieces: Iterable[bytes]) -> list[events.Event]:
    """What any peer may do to a connection, and what must hold all the time."""
    told: list[events.Event] = []
    for number, piece in enumerate(pieces):
        over = core.state is SessionState.ENDED
        new = receive(core, bytearray(piece), float(number))
        assert not (over and new)
        told += new
        if core.wants_to_send:
            batch, _ = core.data_to_send(1 << 20)
            assert b"".join(batch)
    failures = [event for event in told if isinstance(event, events.SessionFailed)]
    assert failures == [] or failures == told[-1:]
    assert bool(failures) == (core.state is SessionState.ENDED)
    assert_bounded(core)
    return told


@given(connections(), st.lists(st.binary(max_size=200), max_size=20))
def test_no_bytes_make_a_connection_raise_or_hold_much(
    core: Connection, pieces: list[bytes]
) -> None:
    feed_anything(core, pieces)


@given(connections(), st.data(), CUTS)
def test_no_frames_make_a_connection_raise_or_hold_much(
    core: Connection, data: st.DataObject, cuts: list[int]
) -> None:
    stream = data.draw(mutations(core.wire or data.draw(st.sampled_from(BOTH))))
    feed_anything(core, cut(stream, cuts))


@given(connections(), st.data(), st.integers(1, 400))
def test_many_times_the_same_frames_do_not_either(
    core: Connection, data: st.DataObject, times: int
) -> None:
    wire = core.wire or data.draw(st.sampled_from(BOTH))
    frames = b"".join(data.draw(st.lists(frames_of(wire), min_size=1, max_size=4)))
    feed_anything(core, [frames[:20_000]] * times)


@given(st.sampled_from(BOTH), st.booleans(), st.booleans(), st.booleans(), st.data(), CUTS)
def test_how_the_bytes_are_cut_makes_no_difference(
    wire: Wire, client: bool, typed: bool, detect: bool, data: st.DataObject, cuts: list[int]
) -> None:
    stream = data.draw(mutations(wire))
    told, sent = [], []
    for pieces in [stream], cut(stream, cuts), [stream[i : i + 1] for i in range(len(stream))]:
        core = Connection(
            client=client,
            wire=None if detect and not client else wire,
            limits=Limits(),
            typed=typed,
        )
        for _ in range(3 * client):
            core.open_stream()
        told.append(by_stream(e for piece in pieces for e in receive(core, piece, 0.0)))
        sent.append(core.wants_to_send and b"".join(core.data_to_send(1 << 30)[0]))
    assert told[0] == told[1] == told[2]
    assert sent[0] == sent[1] == sent[2]
