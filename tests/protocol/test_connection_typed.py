"""Typed sessions of v2: a stream's first four bytes are its type."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from trio_muxado._protocol.connection import Connection
from trio_muxado._protocol.errors import ErrorCode
from trio_muxado._protocol.events import (
    DataReceived,
    Event,
    StreamOpened,
)
from trio_muxado._protocol.frames import Data, Rst
from trio_muxado._protocol.states import Custody
from trio_muxado._protocol.streams import MAX_HEARTBEAT_STREAMS

from .driver import V1, V2, End, ids, only

TYPE = bytes.fromhex("01020304")
HEARTBEAT = bytes.fromhex("ffffffff")


@pytest.fixture
def end() -> End:
    return End(V2, typed=True)


def opened(events: list[Event]) -> list[int]:
    return [event.stream.id for event in events if isinstance(event, StreamOpened)]


# ---- ours


def test_the_type_goes_out_with_the_frame_that_opens_the_stream() -> None:
    client = End(V2, client=True, typed=True)
    client.core.open_stream(stream_type=0x01020304)
    assert client.sent() == [Data(3, 4, TYPE, True, False)]


def test_the_type_and_the_first_data_share_a_frame() -> None:
    client = End(V2, client=True, typed=True)
    client.core.send(client.core.open_stream(), b"hello")
    assert client.sent() == [Data(3, 9, bytes(4) + b"hello", True, False)]


def test_the_type_uses_the_window_like_any_data() -> None:
    client = End(V2, client=True, typed=True)
    stream = client.open()
    assert stream.send_window == V2.initial_window - 4


def test_the_acceptors_own_direction_has_no_type(end: End) -> None:
    end.feed(end.data(3, TYPE, syn=True))
    end.core.send(end.core.streams.live[3], b"answer")
    assert end.sent() == [Data(3, 6, b"answer", False, False)]


# ---- the peer's


def test_a_stream_is_shown_with_its_type_and_without_its_bytes(end: End) -> None:
    event = only(end.feed(end.data(3, TYPE, syn=True)))
    assert isinstance(event, StreamOpened)
    assert event.stream.type == 0x01020304


def test_data_behind_the_type_is_the_streams(end: End) -> None:
    event, data = end.feed(end.data(3, TYPE + b"hello", syn=True))
    assert isinstance(event, StreamOpened)
    assert data == DataReceived(event.stream, b"hello")


def test_an_end_behind_the_type_is_the_streams(end: End) -> None:
    event, ended = end.feed(end.data(3, TYPE, syn=True, fin=True))
    assert isinstance(event, StreamOpened)
    assert ended == DataReceived(event.stream, b"", ended=True)


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_a_type_may_come_in_two_frames(end: End, cut: int) -> None:
    assert end.feed(end.data(3, TYPE[:cut], syn=True)) == []
    event, data = end.feed(end.data(3, TYPE[cut:] + b"x"))
    assert isinstance(event, StreamOpened)
    assert event.stream.type == 0x01020304
    assert data == DataReceived(event.stream, b"x")


def test_a_type_may_come_in_the_pieces_of_one_frame(end: End) -> None:
    frame = end.data(3, TYPE + b"hello", syn=True, fin=True)
    events = end.feed(*(frame[i : i + 1] for i in range(len(frame))))
    assert opened(events) == [3]
    assert b"".join(e.data for e in events if isinstance(e, DataReceived)) == b"hello"
    assert events[-1] == DataReceived(end.core.streams.live[3], b"o", ended=True)


def test_a_type_that_comes_byte_by_byte_blocks_nobody(end: End) -> None:
    end.feed(end.syn(3))
    for i in range(3):
        end.feed(end.data(3, TYPE[i : i + 1]))
        other = 5 + 2 * i
        assert opened(end.feed(end.data(other, TYPE, syn=True))) == [other]
    assert opened(end.feed(end.data(3, TYPE[3:]))) == [3]


def test_the_types_credit_is_given_back_with_the_rest(end: End) -> None:
    end.feed(end.data(3, TYPE, syn=True))
    window = end.core.streams.live[3].receive_window
    assert (window.unconsumed, window.ungranted) == (0, 4)


def test_a_type_of_zeros_is_no_type(end: End) -> None:
    event = only(end.feed(end.data(3, bytes(4), syn=True)))
    assert isinstance(event, StreamOpened)
    assert event.stream.type == 0
    assert event.stream.quota is end.core.streams.inbound


@pytest.mark.parametrize("size", range(4))
def test_a_stream_that_ends_before_its_type_is_reset_and_never_shown(end: End, size: int) -> None:
    events = end.feed(end.data(3, TYPE[:size], syn=True), end.fin(3))
    assert opened(events) == []
    assert end.sent() == [Rst(3, ErrorCode.STREAM_CLOSED.value)]


@pytest.mark.parametrize("fin", [False, True])
def test_a_stream_that_never_got_its_type_leaves_no_place_taken(end: End, fin: bool) -> None:
    end.feed(end.data(3, TYPE[:2], syn=True), end.fin(3) if fin else end.rst(3))
    streams = end.core.streams
    assert (streams.live, streams.inbound.used, streams.waiting.used) == ({}, 0, 0)


def test_a_stream_that_waits_for_its_type_counts(end: End) -> None:
    end.feed(end.data(3, TYPE[:2], syn=True))
    assert end.core.streams.inbound.used == 1
    assert end.core.streams.waiting.used == 0


def test_a_type_larger_than_the_window_is_a_flow_control_error(end: End) -> None:
    events = end.feed(end.data(3, TYPE * 100_000, syn=True))
    assert opened(events) == []
    assert end.sent() == [Rst(3, ErrorCode.FLOW_CONTROL_ERROR.value)]


# ---- extensions, and full houses


def test_a_heartbeat_has_a_place_of_its_own(end: End) -> None:
    event = only(end.feed(end.data(3, HEARTBEAT, syn=True)))
    assert isinstance(event, StreamOpened)
    assert event.stream.quota is end.core.streams.heartbeats
    assert event.stream.custody is Custody.ACCEPTED
    assert end.core.streams.inbound.used == 0


def test_untyped_streams_are_no_heartbeats_whatever_they_say() -> None:
    end = End(V2)
    event, data = end.feed(end.data(3, HEARTBEAT, syn=True))
    assert isinstance(event, StreamOpened)
    assert event.stream.quota is end.core.streams.inbound
    assert data == DataReceived(event.stream, HEARTBEAT)


def test_typed_changes_nothing_on_v1() -> None:
    end = End(V1, typed=True)
    event, data = end.feed(end.syn(3, type=7), end.data(3, TYPE))
    assert isinstance(event, StreamOpened)
    assert event.stream.type == 7
    assert data == DataReceived(event.stream, TYPE)


def test_a_session_full_of_streams_still_takes_a_typed_heartbeat() -> None:
    end = End(V2, typed=True, max_inbound_streams=1)
    end.feed(end.data(3, TYPE, syn=True))
    assert opened(end.feed(end.data(5, HEARTBEAT, syn=True))) == [5]


def test_a_session_full_of_streams_refuses_a_stream_once_its_type_is_known() -> None:
    end = End(V2, typed=True, max_inbound_streams=1)
    end.feed(end.data(3, TYPE, syn=True))
    assert end.feed(end.data(5, TYPE[:3], syn=True)) == []
    assert opened(end.feed(end.data(5, TYPE[3:] + b"ignored"))) == []
    assert end.sent() == [Rst(5, ErrorCode.STREAM_REFUSED.value)]
    assert end.core.streams.inbound.used == 1


def test_streams_without_a_type_cannot_take_more_than_the_extensions_places() -> None:
    end = End(V2, typed=True, max_inbound_streams=1, max_extension_streams=3)
    end.feed(*map(end.syn, ids(5)))
    assert len(end.core.streams.live) == 1 + 3
    assert end.sent() == [Rst(11, ErrorCode.STREAM_REFUSED.value)]


@pytest.mark.parametrize(
    "first, most, other", [(TYPE, 3, HEARTBEAT), (HEARTBEAT, MAX_HEARTBEAT_STREAMS, TYPE)]
)
def test_a_full_house_of_typed_extensions_refuses_the_next_one_and_takes_others(
    first: bytes, most: int, other: bytes
) -> None:
    end = End(V2, typed=True, extensions=[0x01020304], max_extension_streams=3)
    events = end.feed(*(end.data(i, first, syn=True) for i in ids(most + 1)))
    assert opened(events) == list(ids(most))
    assert end.sent() == [Rst(3 + 2 * most, ErrorCode.STREAM_REFUSED.value)]
    assert opened(end.feed(end.data(99, other, syn=True))) == [99]


def test_a_typed_stream_beyond_the_backlog_is_refused() -> None:
    end = End(V2, typed=True, accept_backlog=1)
    end.feed(end.data(3, TYPE, syn=True), end.data(5, TYPE + b"x", syn=True, fin=True))
    assert end.sent() == [Rst(5, ErrorCode.ACCEPT_QUEUE_FULL.value)]
    assert end.core.streams.inbound.used == 1


def expire(core: Connection) -> None:
    core.expire(core.streams.live[3], ErrorCode.STREAM_CANCELLED, "for a test")


@pytest.mark.parametrize("give_up", [expire, Connection.refuse_unaccepted])
def test_a_type_that_comes_when_the_stream_was_given_up_is_told_to_nobody(
    end: End, give_up: Callable[[Connection], object]
) -> None:
    """Also where it is in the frame of which the first piece had come before."""
    frame = end.data(3, TYPE + b"hello", syn=True, fin=True)
    end.feed(frame[:-7])
    assert only(end.core.streams.live.values()).type_bytes == TYPE[:2]
    give_up(end.core)
    assert isinstance(only(end.sent()), Rst)
    assert end.feed(frame[-7:]) == []
    streams = end.core.streams
    assert (streams.live, streams.inbound.used, streams.waiting.used) == ({}, 0, 0)
