"""Whatever way a stream ends, everything that it was counted for comes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_muxado._protocol.codec import TYPE_SIZE, Wire
from trio_muxado._protocol.errors import ErrorCode, OpenRefused
from trio_muxado._protocol.events import Event, StreamOpened
from trio_muxado._protocol.states import SEND_END, UNTYPED, WAITING, SessionState
from trio_muxado._protocol.stream import BreakReason, Stream

from .driver import BOTH, V1, V2, End, failed, ids

BUDGET = 8_000_000
EXTENSION = 0xFFFFFF00


def assert_nothing_is_counted(end: End) -> None:
    streams = end.core.streams
    assert streams.live == {}
    taken = {
        name: getattr(streams, name).used
        for name in ("waiting", "inbound", "extensions", "heartbeats", "outbound")
    }
    assert taken == dict.fromkeys(taken, 0)
    assert streams.spare_window == BUDGET
    assert streams.half_open() == []
    assert streams.idle
    assert streams.budget.largest.window is None
    assert not streams.budget._growing
    outbox = end.core._outbox
    for left in outbox._deficit, outbox._starved, outbox._unopened, outbox._scheduler.priorities:
        assert not left


# ---- types that never come


@pytest.mark.parametrize("begun", range(TYPE_SIZE))
@pytest.mark.parametrize("how", ["expired", "refused", "reset", "ended", "session ends"])
def test_what_a_frame_has_announced_comes_back_with_a_stream_that_has_no_type(
    begun: int, how: str
) -> None:
    """Half of a frame came, in which there is no type yet, and the rest comes later."""
    end = End(V2, typed=True, receive_budget=BUDGET)
    size = V2.initial_window if how in ("expired", "refused", "session ends") else begun
    frame = end.data(3, bytes(size), syn=True, fin=how == "ended")
    end.feed(frame[: 8 + begun])
    if how == "expired":
        end.core.expire(end.core.streams.live[3], ErrorCode.STREAM_CANCELLED, "for a test")
    elif how == "refused":
        end.core.refuse_unaccepted()
    elif how == "reset":
        end.feed(end.rst(3))
    elif how == "session ends":
        end.core.end(BreakReason(ErrorCode.PEER_EOF, "remote", "for a test", ends_session=True))
    assert_nothing_is_counted(end)
    end.feed(frame[8 + begun :])
    assert_nothing_is_counted(end)


def test_streams_that_expire_take_nothing_from_a_window_that_wants_to_grow() -> None:
    sizes = []
    for stalls in 0, 100:
        end = End(V2, typed=True, receive_budget=BUDGET)
        for stream_id in ids(stalls):
            frame = end.data(stream_id, bytes(V2.initial_window), syn=True)
            end.feed(frame[:11])
            end.core.expire(end.core.streams.live[stream_id], 6, "for a test")
            end.feed(frame[11:])
        opened = end.feed(end.data(1001, bytes(TYPE_SIZE), syn=True))
        assert isinstance(opened[0], StreamOpened)
        stream = opened[0].stream
        end.core.accept(stream)
        for _ in range(20):
            size = stream.receive_window.credit
            end.feed(end.data(1001, bytes(size)))
            end.core.consume(stream, size)
            end.sent()
        sizes.append(stream.receive_window.size)
    assert sizes[0] == sizes[1] > V2.initial_window


# ---- all ways


class Play:
    """An end, its application and its peer, who do anything that they may."""

    def __init__(self, end: End, data: st.DataObject) -> None:
        self.end = end
        self.draw = data.draw
        self.given: list[Stream] = []
        self.next_id = 2 if end.core.streams._parity else 3
        self.missing = 0  # bytes of the frame that the peer has begun

    def feed(self, *pieces: bytes) -> None:
        if self.missing:
            pieces = (bytes(self.missing), *pieces)
            self.missing = 0
        self.notice(self.end.feed(*pieces))

    def notice(self, told: list[Event]) -> None:
        assert not failed(told)
        for event in told:
            if isinstance(event, StreamOpened):
                core = self.end.core
                extension = event.stream.custody is not WAITING
                take = self.draw(st.sampled_from([core.hold, None, core.accept][: 3 - extension]))
                if take is not None:
                    assert take(event.stream)
                self.given.append(event.stream)

    def peer_opens(self) -> None:
        end, stream_id = self.end, self.next_id
        self.next_id += 2
        type_ = self.draw(st.sampled_from([0, 7, EXTENSION, end.wire.heartbeat_type]))
        if end.wire.has_syn_frame:
            self.feed(end.syn(stream_id, type=type_))
            return
        size = self.draw(st.sampled_from([0, 3, 4, 100, end.wire.initial_window]))
        payload = (type_.to_bytes(TYPE_SIZE, "big") + bytes(size))[:size]
        fin = self.draw(st.booleans())
        self.begin(end.data(stream_id, payload, syn=True, fin=fin))

    def begin(self, frame: bytes) -> None:
        """Send a frame, or its beginning."""
        come = self.draw(st.sampled_from([len(frame), len(frame), 8, 9, 12]))
        self.feed(frame[:come])
        self.missing = max(0, len(frame) - come)

    def peer_acts(self) -> None:
        end = self.end
        if not end.core.streams.live:
            return
        stream = self.draw(st.sampled_from(list(end.core.streams.live.values())))
        match self.draw(st.sampled_from(["data", "fin", "rst", "credit", "overflow", "too much"])):
            case "data":
                room = stream.receive_window.credit
                size = self.draw(st.sampled_from([1, 5000, 16_000]))
                fin = self.draw(st.booleans())
                self.begin(end.data(stream.id, bytes(min(size, room)), fin=fin))
            case "fin":
                self.feed(end.fin(stream.id))
            case "rst":
                self.feed(end.rst(stream.id, self.draw(st.sampled_from([5, 6, 7]))))
            case "credit":
                self.feed(end.wndinc(stream.id, self.draw(st.sampled_from([1, 100_000]))))
            case "overflow":
                self.feed(end.wndinc(stream.id, 2**31 - 1))
            case "too much":
                size = stream.receive_window.credit + 1
                if size <= end.wire.length_mask:
                    self.feed(end.data(stream.id, bytes(size)))

    def application_acts(self) -> None:
        core = self.end.core
        if self.draw(st.integers(0, 3)) == 0:
            try:
                self.given.append(core.open_stream())
            except OpenRefused:
                assert core.state is not SessionState.ACTIVE
        if not self.given:
            return
        stream = self.draw(st.sampled_from(self.given))
        match self.draw(st.sampled_from(["read", "send", "send much", "end", "close", "reset"])):
            case "read" if stream.receive_window.unconsumed and stream.reserved:
                core.consume(stream, self.draw(st.integers(1, stream.receive_window.unconsumed)))
            case "send" if SEND_END in stream.allowed:
                core.send(stream, b"answer")
            case "send much" if SEND_END in stream.allowed:
                core.send(stream, bytes(2 * self.end.wire.initial_window))
            case "end" if SEND_END in stream.allowed:
                core.end_sending(stream)
            case "close":
                self.leave(stream)
                core.close(stream)
            case "reset":
                self.leave(stream)
                core.reset(stream, ErrorCode.STREAM_CANCELLED)

    def leave(self, stream: Stream) -> None:
        self.given.remove(stream)

    def time_passes(self) -> None:
        self.end.now += 1
        if self.draw(st.booleans()):
            self.end.sent()
        half_open: list[Stream | None] = [None, *self.end.core.streams.half_open()]
        stream = self.draw(st.sampled_from(half_open))
        if stream is not None:
            self.end.core.expire(stream, 6, "for a test")

    def end_all(self) -> None:
        """Everybody lets go of what there is, in one way or another."""
        core = self.end.core
        self.feed()
        session_ends = self.draw(st.booleans())
        if session_ends:
            core.end(BreakReason(ErrorCode.PEER_EOF, "remote", "for a test", ends_session=True))
        for stream in list(self.given):
            self.leave(stream)
            core.close(stream)
        if session_ends:
            return
        core.refuse_unaccepted()
        self.end.sent()
        for stream in list(core.streams.live.values()):
            self.feed(self.end.rst(stream.id))
        for stream in core.streams.half_open():
            assert stream.custody is not UNTYPED
            core.expire(stream, 6, "for a test")
        self.end.sent()


@given(st.sampled_from(BOTH), st.booleans(), st.booleans(), st.data())
def test_all_counts_come_back_whatever_happens(
    wire: Wire, client: bool, typed: bool, data: st.DataObject
) -> None:
    limits = {"provoked_resets": 10_000, "unread_resets": 10_000, "max_inbound_streams": 5}
    end = End(
        wire,
        client=client,
        typed=typed,
        extensions=[EXTENSION],
        receive_budget=BUDGET,
        accept_backlog=3,
        **limits,
    )
    play = Play(end, data)
    acts = [play.peer_opens, play.peer_acts, play.application_acts, play.time_passes]
    for act in data.draw(st.lists(st.sampled_from(acts), max_size=40)):
        act()
    play.end_all()
    assert_nothing_is_counted(end)


@pytest.mark.parametrize("wire", [V1, V2])
def test_the_end_of_a_session_gives_back_what_nobody_has(wire: Wire) -> None:
    end = End(wire, receive_budget=BUDGET)
    stream = end.accept(3, b"unread")
    end.core.end(BreakReason(ErrorCode.PEER_EOF, "remote", "for a test", ends_session=True))
    assert end.core.streams.spare_window == BUDGET - 6
    end.core.consume(stream, 6)
    end.core.close(stream)
    assert_nothing_is_counted(end)


@pytest.mark.parametrize("wire", [V1, V2])
def test_the_end_of_a_session_gives_back_the_slot_that_waits_for_an_answer(wire: Wire) -> None:
    """A stream that this side has closed keeps its slot until the peer shows that it knows it."""
    end = End(wire, receive_budget=BUDGET)
    end.core.close(end.core.open_stream())
    end.sent()
    assert end.core.streams.outbound.used == 1
    end.core.end(BreakReason(ErrorCode.PEER_EOF, "remote", "for a test", ends_session=True))
    assert_nothing_is_counted(end)
