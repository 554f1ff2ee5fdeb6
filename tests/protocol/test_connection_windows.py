"""Flow control of a session: what is delivered, what is promised again, and what is too much."""

from __future__ import annotations

import pytest

from trio_muxado._protocol.codec import Wire
from trio_muxado._protocol.errors import ErrorCode
from trio_muxado._protocol.events import (
    DataReceived,
    SessionFailed,
    StreamBroken,
    StreamOpened,
)
from trio_muxado._protocol.frames import Data, Rst, WndInc
from trio_muxado._protocol.stream import Stream

from .driver import BOTH, V1, V2, End, only

both = pytest.mark.parametrize("wire", BOTH)

VIOLATED = 3  # FLOW_CONTROL_ERROR, on both wires


def fill(end: End, stream: Stream, size: int) -> None:
    """The peer sends ``size`` bytes, in frames that either wire can carry."""
    for start in range(0, size, 8192):
        end.feed(end.data(stream.id, bytes(min(8192, size - start))))


# ---- what comes


@both
def test_a_window_can_be_filled_to_its_last_byte(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    fill(end, stream, wire.initial_window)
    assert stream.receive_window.credit == 0
    assert stream.broken is None


@both
def test_one_byte_more_than_the_window_resets_the_stream(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    fill(end, stream, wire.initial_window)
    assert end.feed(end.data(3, b"x")) == [StreamBroken(stream)]
    assert stream.broken is not None
    assert (stream.broken.code, stream.broken.initiator) == (ErrorCode.FLOW_CONTROL_ERROR, "local")
    assert end.sent() == [Rst(3, VIOLATED)]


@both
def test_frames_in_a_row_are_delivered_as_far_as_the_window_goes(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    payload = bytes(range(256)) * 32
    fit = wire.initial_window // len(payload)
    before = end.core.counts.frames_received
    told = end.feed(end.data(3, payload) * (fit + 2))
    assert told == [DataReceived(stream, payload * fit), StreamBroken(stream)]
    assert stream.broken is not None
    assert stream.broken.code is ErrorCode.FLOW_CONTROL_ERROR
    assert end.core.counts.frames_received - before == fit + 2


@both
def test_frames_in_a_row_for_a_stream_that_was_closed_are_answered_once(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    other = end.accept(5)
    end.core.close(stream)
    end.sent()
    frames = end.data(3, bytes(5000)) * 3
    assert end.feed(end.data(5, bytes(5000)) + frames) == [DataReceived(other, bytes(5000))]
    assert end.sent() == [Rst(3, wire.code_to_wire(ErrorCode.STREAM_CLOSED))]


@both
def test_nothing_of_a_frame_beyond_the_window_is_delivered(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    fill(end, stream, wire.initial_window - 10)
    frame = end.data(3, bytes(11), fin=True)
    assert end.feed(*(frame[i : i + 1] for i in range(len(frame)))) == [StreamBroken(stream)]


@both
def test_a_violation_is_known_from_the_header_alone(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    fill(end, stream, wire.initial_window)
    assert end.feed(end.data(3, bytes(5000))[:8]) == [StreamBroken(stream)]


@both
def test_others_go_on_behind_a_violation(wire: Wire) -> None:
    end = End(wire)
    stream, other = end.accept(3), end.accept(5)
    fill(end, stream, wire.initial_window)
    events = end.feed(end.data(3, bytes(5000)) + end.data(5, b"x"))
    assert events == [StreamBroken(stream), DataReceived(other, b"x")]


def test_a_first_frame_larger_than_the_window_is_skipped_and_reset() -> None:
    end = End(V2)
    frame = end.data(3, bytes(V2.initial_window + 1), syn=True)
    events = end.feed(
        frame[:1000], *[frame[i : i + 50_000] for i in range(1000, len(frame), 50_000)]
    )
    assert [type(event) for event in events] == [StreamOpened, StreamBroken]
    assert end.sent() == [Rst(3, VIOLATED)]
    assert isinstance(only(end.feed(end.syn(5))), StreamOpened)


def test_a_frame_larger_than_any_window_ends_the_session() -> None:
    end = End(V2, max_receive_window=300_000)
    end.accept(3)
    failed = end.feed(V2.data_header(3, 300_001, fin=False))[-1]
    assert isinstance(failed, SessionFailed)
    assert failed.code is ErrorCode.FRAME_SIZE_ERROR


def test_a_promise_of_sixteen_mebibytes_reserves_nothing() -> None:
    end = End(V2)
    end.accept(3)
    end.feed(V2.data_header(3, 0xFFFFFF, fin=False))
    assert end.sent() == [Rst(3, VIOLATED)]
    for _ in range(20):
        assert end.feed(bytes(100_000)) == []
    assert end.core._inbound._decoder._tail == b""


@both
def test_a_frame_is_delivered_as_it_comes(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    frame = end.data(3, b"abcdef", fin=True)
    assert end.feed(frame[:10], frame[10:13], frame[13:]) == [
        DataReceived(stream, b"ab"),
        DataReceived(stream, b"cde"),
        DataReceived(stream, b"f", ended=True),
    ]


@both
def test_the_end_comes_with_the_last_piece_and_not_before(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    frame = end.data(3, b"abc", fin=True)
    assert end.feed(frame[:-1]) == [DataReceived(stream, b"ab")]


@both
def test_frames_in_a_row_are_one_event(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    events = end.feed(end.data(3, b"ab") + end.data(3, b"cd") + end.data(3, b"ef", fin=True))
    assert events == [DataReceived(stream, b"abcdef", ended=True)]


@both
def test_frames_of_two_streams_stay_apart_and_in_order(wire: Wire) -> None:
    end = End(wire)
    one, two = end.accept(3), end.accept(5)
    events = end.feed(end.data(3, b"a") + end.data(5, b"b") + end.data(3, b"c"))
    assert events == [DataReceived(one, b"a"), DataReceived(two, b"b"), DataReceived(one, b"c")]


@both
def test_what_is_delivered_does_not_keep_the_read_alive(wire: Wire) -> None:
    end = End(wire)
    end.accept(3)
    frame = end.data(3, bytes(5000))
    for event in end.feed(frame[:4000] + frame[4000:], frame[:100], frame[100:]):
        assert isinstance(event, DataReceived)
        assert type(event.data) is bytes


# ---- what is granted


@both
def test_credit_is_granted_when_half_the_window_was_consumed(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    half = wire.initial_window // 2
    fill(end, stream, half)
    end.core.consume(stream, half - 1)
    assert end.sent() == []
    end.core.consume(stream, 1)
    assert end.sent() == [WndInc(3, half)]


@both
def test_a_hundred_thousand_tiny_reads_cost_few_frames(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    grants = 0
    for _ in range(100_000):
        stream.receive_window.take(1)
        end.core.consume(stream, 1)
        grants += end.core.wants_to_send and len(end.sent())
    assert grants <= 100_000 // (wire.initial_window // 2) + 1


def with_grown_window(wire: Wire) -> tuple[End, Stream]:
    """A stream of eight initial windows; the peer knows it."""
    end = End(wire, receive_window=8 * wire.initial_window)
    stream = end.accept(3)
    end.sent()
    return end, stream


@both
def test_credit_of_a_grown_window_waits_for_more(wire: Wire) -> None:
    end, stream = with_grown_window(wire)
    half = wire.initial_window // 2
    for read in range(1, 8):
        fill(end, stream, half)
        end.core.consume(stream, half)
        assert end.core.credit_waits
        assert not end.core.wants_to_send, read
    fill(end, stream, half)
    end.core.consume(stream, half)
    assert end.core.wants_to_send  # the peer has half of its window left
    assert end.sent() == [WndInc(3, 8 * half)]
    assert not end.core.credit_waits


@both
def test_waiting_credit_goes_with_whatever_goes(wire: Wire) -> None:
    end, stream = with_grown_window(wire)
    fill(end, stream, wire.initial_window)
    end.core.consume(stream, wire.initial_window)
    end.core.send(stream, b"x")
    grant, data = end.sent()
    assert (grant, type(data)) == (WndInc(3, wire.initial_window), Data)


@both
def test_waiting_credit_is_there_for_whoever_asks(wire: Wire) -> None:
    """A peer that clamps its window to the initial one waits for it."""
    end, stream = with_grown_window(wire)
    fill(end, stream, wire.initial_window)
    end.core.consume(stream, wire.initial_window)
    assert not end.core.wants_to_send
    batch, _ = end.core.data_to_send(1)
    assert batch == [wire.wndinc(3, wire.initial_window)]


@both
def test_waiting_credit_of_a_stream_that_broke_is_forgotten(wire: Wire) -> None:
    end, stream = with_grown_window(wire)
    fill(end, stream, wire.initial_window)
    end.core.consume(stream, wire.initial_window)
    end.feed(end.rst(3))
    assert not end.core.credit_waits
    assert not end.core.wants_to_send


@both
def test_the_peers_credit_lets_us_send(wire: Wire) -> None:
    end = End(wire, client=True)
    stream = end.open()
    end.core.send(stream, bytes(wire.initial_window + 5))
    end.sent()
    end.feed(end.wndinc(3, 3))
    assert stream.outgoing.size == 5
    end.sent()
    assert stream.outgoing.size == 2


@both
def test_the_peers_credit_may_pass_the_initial_window(wire: Wire) -> None:
    end = End(wire, client=True)
    stream = end.open()
    end.feed(end.wndinc(3, 1_000_000))
    assert stream.send_window == wire.initial_window + 1_000_000


@both
def test_credit_up_to_the_ceiling_is_taken(wire: Wire) -> None:
    end = End(wire, client=True)
    end.open()
    assert end.feed(end.wndinc(3, 2**31 - 1 - wire.initial_window)) == []


@both
def test_credit_beyond_the_ceiling_resets_the_stream(wire: Wire) -> None:
    end = End(wire, client=True)
    stream = end.open()
    events = end.feed(end.wndinc(3, 2**31 - wire.initial_window))
    assert events == [StreamBroken(stream)]
    assert end.sent() == [Rst(3, VIOLATED)]


def test_no_credit_at_all_is_ignored_on_v1() -> None:
    end = End(V1, client=True)
    stream = end.open()
    assert end.feed(end.wndinc(3, 0)) == []
    assert stream.send_window == V1.initial_window


@pytest.mark.parametrize("stream_id", [3, 9])
def test_no_credit_at_all_ends_a_v2_session(stream_id: int) -> None:
    end = End(V2, client=True)
    end.open()
    failed = end.feed(end.wndinc(stream_id, 0))[-1]
    assert isinstance(failed, SessionFailed)
    assert failed.code is ErrorCode.PROTOCOL_ERROR
