"""What a frame costs: the same, however many streams live, and a turn of the reader handles few.

Counted in lines of Python, never in time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import islice, pairwise
from types import FrameType
from typing import Any

import pytest

from trio_muxado._protocol.codec import HEADER_SIZE, Wire
from trio_muxado._protocol.decoder import FRAMES_AT_ONCE
from trio_muxado._protocol.errors import ErrorCode
from trio_muxado._protocol.events import DataReceived, SessionFailed
from trio_muxado._protocol.stream import BreakReason, Stream

from .driver import BOTH, V1, V2, End, ids, opened, receive

both = pytest.mark.parametrize("wire", BOTH)

MANY: dict[str, Any] = {
    "max_inbound_streams": 10_000,
    "accept_backlog": 10_000,
    "max_outbound_streams": None,
}
"""Limits that let the number of streams differ by a factor of ten."""


@pytest.fixture(autouse=True)
def comparisons_are_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a search for a stream in C counts as well."""

    def equal(one: Stream, other: object) -> bool:
        return one is other

    monkeypatch.setattr(Stream, "__eq__", equal)


def lines(act: Callable[[], Any]) -> int:
    """How many lines of Python ``act`` takes."""
    count = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(before)
    return count


# ---- a turn of the reader


@both
@pytest.mark.parametrize("buffer", [bytes, bytearray])
def test_a_call_handles_a_bounded_number_of_frames(
    wire: Wire, buffer: type[bytes] | type[bytearray]
) -> None:
    end = End(wire)
    end.accept(3)
    number = 5 * FRAMES_AT_ONCE + 7
    data = buffer(end.wndinc(3, 1) * number)
    told = end.core.receive_data(data if isinstance(data, bytes) else memoryview(data), end.now)
    if isinstance(data, bytearray):
        data[:] = bytes(len(data))  # another session reads into it
    turns = [end.core.counts.frames_received]
    while end.core.has_more:
        told += end.core.receive_data(b"", end.now)
        turns.append(end.core.counts.frames_received)
    assert told == []
    assert [b - a for a, b in pairwise(turns)] == [FRAMES_AT_ONCE] * 4 + [7]
    stream = end.core.streams.live[3]
    assert stream.send_window == wire.initial_window + number


@both
@pytest.mark.parametrize("at_once", [1, 63, 64, 128])
def test_a_burst_of_64_requests_is_handled_in_one_call(wire: Wire, at_once: int) -> None:
    end = End(wire)
    request = [end.syn(i) + end.data(i, b"request", fin=True) for i in islice(ids(128), at_once)]
    end.core.receive_data(b"".join(request), end.now)
    assert not end.core.has_more


@pytest.mark.parametrize("wire, size", [(V1, 1024), (V1, 16383), (V2, 1024), (V2, 65536)])
def test_a_read_of_frames_of_a_kib_and_more_is_handled_in_one_call(wire: Wire, size: int) -> None:
    end = End(wire, receive_window=1 << 20)
    end.accept(3)
    frame = end.data(3, bytes(size))
    end.core.receive_data((frame * 256)[: 256 * 1024], end.now)
    assert not end.core.has_more


def test_each_frame_of_a_run_counts() -> None:
    end = End(V1, receive_window=1 << 24)
    end.accept(3)
    frame = end.data(3, bytes(4096))
    number = 2 * FRAMES_AT_ONCE + 100
    told = end.core.receive_data(frame * number, end.now)
    sizes = [len(event.data) for event in told if isinstance(event, DataReceived)]
    assert sizes == [4096 * FRAMES_AT_ONCE]
    assert end.core.has_more
    told = receive(end.core, b"", end.now)
    sizes = [len(event.data) for event in told if isinstance(event, DataReceived)]
    assert sizes == [4096 * FRAMES_AT_ONCE, 4096 * 100]


@both
def test_what_is_left_of_a_read_is_copied_once(wire: Wire) -> None:
    end = End(wire)
    end.accept(3)
    end.core.receive_data(memoryview(bytearray(end.wndinc(3, 1) * 20_000)), end.now)
    decoder = end.core._inbound._decoder
    kept = decoder._rest
    while end.core.has_more:
        assert decoder._rest is kept
        end.core.receive_data(b"", end.now)
    assert decoder._rest == b""


@both
def test_bytes_are_not_copied_for_what_is_left_of_them(wire: Wire) -> None:
    end = End(wire)
    end.accept(3)
    data = end.wndinc(3, 1) * 1000
    end.core.receive_data(data, end.now)
    assert end.core._inbound._decoder._rest is data


@both
def test_a_frame_that_is_cut_behind_the_bound_is_kept(wire: Wire) -> None:
    end = End(wire)
    end.accept(3)
    frame = end.wndinc(3, 1)
    for cut in range(1, len(frame)):
        before = end.core.streams.live[3].send_window
        receive(end.core, frame * (FRAMES_AT_ONCE + 1) + frame[:cut], end.now)
        receive(end.core, frame[cut:], end.now)
        after = end.core.streams.live[3].send_window
        assert after - before == FRAMES_AT_ONCE + 2


@both
def test_a_session_that_ended_has_no_more(wire: Wire) -> None:
    end = End(wire)
    end.accept(3)
    end.core.receive_data(end.wndinc(3, 1) * 1000, end.now)
    assert end.core.has_more
    end.core.end(BreakReason(ErrorCode.PEER_EOF, "remote", "for a test", ends_session=True))
    assert not end.core.has_more
    assert end.core.receive_data(b"", end.now) == []


@both
def test_a_session_that_failed_has_no_more(wire: Wire) -> None:
    end = End(wire)
    data = end.wndinc(3, 1) * 10 + end.data(0, b"x") + end.wndinc(3, 1) * 1000
    told = end.core.receive_data(data, end.now)
    assert isinstance(told[-1], SessionFailed)
    assert not end.core.has_more


# ---- a frame


def syn_and_rst(end: End, number: int) -> list[bytes]:
    return [end.syn(i) + end.rst(i) for i in ids(100, first=3 + 2 * number)]


def falling_goaways(end: End, number: int) -> list[bytes]:
    return [end.goaway(2**31 - 1 - i) for i in range(100)]


def resets(end: End, number: int) -> list[bytes]:
    """Of streams in the middle of all that wait for their turn."""
    return [end.rst(i) for i in ids(100, first=3 + number)]


def credit(end: End, number: int) -> list[bytes]:
    return [end.wndinc(i, 1) for i in ids(100, first=3 + number)]


def data(end: End, number: int) -> list[bytes]:
    return [end.data(i, b"x") for i in ids(100, first=3 + number)]


def ends(end: End, number: int) -> list[bytes]:
    return [end.fin(i) for i in ids(100, first=3 + number)]


def late_data(end: End, number: int) -> list[bytes]:
    end.feed(*syn_and_rst(end, number))
    return [end.data(i, b"x") for i in ids(100, first=3 + 2 * number)]


def served(wire: Wire, number: int) -> End:
    """A server with that many streams of its peer, each of which waits for its turn to send."""
    end = End(wire, **MANY, unread_resets=10_000, provoked_resets=10_000)
    for stream in opened(end.feed(*map(end.syn, ids(number)))):
        end.core.accept(stream)
        end.core.send(stream, b"answer")
    return end


@both
@pytest.mark.parametrize(
    "frames", [syn_and_rst, falling_goaways, resets, credit, data, ends, late_data]
)
def test_a_frame_costs_the_same_beside_ten_times_as_many_streams(
    wire: Wire, frames: Callable[[End, int], list[bytes]]
) -> None:
    costs = []
    for number in (200, 2000):
        end = served(wire, number)
        pieces = frames(end, number)
        costs.append(lines(lambda end=end, pieces=pieces: end.feed(*pieces)))  # type: ignore[misc]
    assert costs[1] <= costs[0] * 1.1


@both
@pytest.mark.parametrize("leave", [False, True], ids=["come", "go"])
def test_a_window_that_grows_costs_the_same_beside_ten_times_as_many(
    wire: Wire, leave: bool
) -> None:
    costs = []
    for number in (200, 2000):
        end = End(wire, **MANY)
        *streams, last = opened(end.feed(*map(end.syn, ids(number))))

        def come(end: End = end, streams: list[Stream] = streams) -> None:
            for stream in streams:
                end.core.streams.budget.grow(stream, end.now)

        def go(end: End = end, streams: list[Stream] = streams, last: Stream = last) -> None:
            for stream in streams:
                end.feed(end.rst(stream.id))
                end.core.streams.budget.grow(last, end.now)

        act = come
        if leave:
            come()
            act = go

        costs.append(lines(act) / number)
    assert costs[1] <= costs[0] * 1.1


@both
def test_goaways_that_fall_stream_by_stream_cost_each_stream_once(wire: Wire) -> None:
    costs = []
    for number in (100, 1000):
        end = End(wire, client=True, **MANY)
        streams = [end.open() for _ in range(number)]
        pieces = [end.goaway(stream.id - 2) for stream in reversed(streams)]
        costs.append(lines(lambda end=end, pieces=pieces: end.feed(*pieces)))  # type: ignore[misc]
        assert end.core.streams.live == {}
    assert costs[1] <= costs[0] * 11


@both
def test_goaways_that_fall_cost_one_look_at_streams_that_were_answered(wire: Wire) -> None:
    """They go on, so nothing makes them fewer."""
    costs = []
    for number in (100, 1000):
        end = End(wire, client=True, **MANY)
        for _ in range(number):
            stream = end.open()
            end.core.send(stream, b"x")
            end.feed(end.data(stream.id, b"x"))
        pieces = [end.goaway(2**30 - i) for i in range(200)]
        costs.append(lines(lambda end=end, pieces=pieces: end.feed(*pieces)))  # type: ignore[misc]
        assert len(end.core.streams.live) == number
    assert costs[1] <= costs[0] * 1.1


@pytest.mark.parametrize("leave", ["reset by the peer", "reset here"])
def test_a_stream_that_was_never_opened_leaves_its_queue_at_once(leave: str) -> None:
    """Of v2, whose streams open with the first frame that is sent."""
    costs = []
    for number in (200, 2000):
        end = End(V2, client=True, **MANY)
        streams = [end.core.open_stream() for _ in range(number)]
        middle = streams[number // 2 :][:100]

        def act(end: End = end, middle: list[Stream] = middle) -> None:
            for stream in middle:
                if leave == "reset here":
                    end.core.reset(stream, ErrorCode.STREAM_CANCELLED)
                else:
                    end.feed(end.rst(stream.id))

        costs.append(lines(act))
        left = [s.id for s in streams if s not in middle]
        assert [frame.stream_id for frame in end.sent()] == left  # type: ignore[union-attr]
    assert costs[1] <= costs[0] * 1.1


@both
def test_whether_all_is_sent_costs_no_look_at_each_stream(wire: Wire) -> None:
    costs = []
    for number in (200, 2000):
        end = served(wire, number)
        end.sent()
        last = end.core.streams.live[3]
        end.core.send(last, bytes(2 * wire.initial_window))
        end.sent()
        assert not end.core.wants_to_send
        assert not end.core.all_sent
        costs.append(lines(lambda end=end: end.core.all_sent))  # type: ignore[misc]
        end.feed(end.wndinc(3, 2 * wire.initial_window))
        end.sent()
        assert end.core.all_sent
    assert costs[0] == costs[1]


@both
@pytest.mark.parametrize("leave", ["reset", "withdraw", "break"])
def test_a_stream_that_waits_for_window_and_leaves_is_not_waited_for(
    wire: Wire, leave: str
) -> None:
    end = End(wire)
    stream = end.accept(3)
    end.core.send(stream, bytes(wire.initial_window + 1))
    end.sent()
    assert not end.core.all_sent
    if leave == "reset":
        end.core.reset(stream, ErrorCode.STREAM_CANCELLED)
    elif leave == "withdraw":
        end.core.withdraw(stream, keep=0)
    else:
        end.feed(end.rst(3))
    end.sent()
    assert end.core.all_sent


@both
def test_an_answered_stream_above_an_earlier_goaway_shows_that_the_next_is_not_exact(
    wire: Wire,
) -> None:
    end = End(wire, client=True)
    low, answered = end.open(), end.open()
    end.core.send(answered, b"x")
    end.feed(end.data(answered.id, b"x"))
    end.feed(end.goaway(low.id))
    end.feed(end.goaway(0))
    assert low.broken is not None
    assert not low.broken.safe_to_retry


# ---- a batch of bulk


def test_a_frame_of_bulk_costs_less_than_a_batch() -> None:
    """A batch of v1 has eight frames of each quantum: they are cut off a chunk together."""
    end = End(V1, client=True)
    stream = end.open()
    end.feed(end.wndinc(stream.id, 2**20))
    for _ in range(8):
        end.core.send(stream, bytes(64 * 1024))
    sent = end.core.counts.frames_sent
    one = lines(lambda: end.core.data_to_send(V1.max_payload + HEADER_SIZE))
    many = lines(lambda: end.core.data_to_send(15 * (V1.max_payload + HEADER_SIZE)))
    assert end.core.counts.frames_sent - sent == 16
    assert (many - one) / 14 < 10  # before they were cut together it was 25
