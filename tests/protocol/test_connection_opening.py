"""Streams begin: which ids, who may, who is refused, and who takes a slot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from trio_muxado._protocol.codec import Wire
from trio_muxado._protocol.errors import ErrorCode, OpenRefused
from trio_muxado._protocol.events import (
    DataReceived,
    SessionFailed,
    StreamBroken,
    StreamOpened,
)
from trio_muxado._protocol.frames import Rst, Syn
from trio_muxado._protocol.states import Custody, StreamState
from trio_muxado._protocol.stream import BreakReason
from trio_muxado._protocol.streams import MAX_HEARTBEAT_STREAMS

from .driver import BOTH, V1, V2, End, ids, only, pipe

both = pytest.mark.parametrize("wire", BOTH)

REFUSED = {V1: 6, V2: 5}
QUEUE_FULL = {V1: 6, V2: 9}


# ---- streams of this end


@both
@pytest.mark.parametrize("client, ids", [(True, [3, 5, 7]), (False, [2, 4, 6])])
def test_ids_rise_from_the_first_of_their_end(wire: Wire, client: bool, ids: list[int]) -> None:
    end = End(wire, client=client)
    assert [end.core.open_stream().id for _ in ids] == ids


@both
def test_a_new_stream_is_open_on_both_sides(wire: Wire) -> None:
    client, server = End(wire, client=True), End(wire)
    ours = client.core.open_stream()
    theirs = only(pipe(client, server))
    assert isinstance(theirs, StreamOpened)
    assert theirs.stream.id == ours.id
    assert {ours.state, theirs.stream.state} == {StreamState.OPEN}


def test_v1_tells_the_peer_type_and_priority() -> None:
    client, server = End(V1, client=True), End(V1)
    client.core.open_stream(stream_type=0xFFFFFEFE, priority=2**31 - 1)
    opened = only(pipe(client, server))
    assert isinstance(opened, StreamOpened)
    assert (opened.stream.type, opened.stream.priority) == (0xFFFFFEFE, 2**31 - 1)


@both
@pytest.mark.parametrize("wrong", [-1, 2**32])
def test_a_type_is_an_unsigned_32_bit_number(wire: Wire, wrong: int) -> None:
    with pytest.raises(ValueError, match="type must be 0 to"):
        End(wire, client=True, typed=True).core.open_stream(stream_type=wrong)


@both
@pytest.mark.parametrize("wrong", [-1, 2**31])
def test_a_priority_is_an_unsigned_31_bit_number(wire: Wire, wrong: int) -> None:
    end = End(wire, client=True)
    with pytest.raises(ValueError, match="priority"):
        end.core.open_stream(priority=wrong)
    stream = end.core.open_stream(priority=1)
    with pytest.raises(ValueError, match="priority"):
        end.core.prioritize(stream, wrong)
    assert stream.priority == 1


def test_v2_has_types_in_typed_sessions_only() -> None:
    with pytest.raises(ValueError, match="typed sessions only"):
        End(V2, client=True).core.open_stream(stream_type=1)


@both
def test_what_cannot_be_opened_uses_no_id(wire: Wire) -> None:
    end = End(wire, client=True)
    with pytest.raises(ValueError, match="priority"):
        end.core.open_stream(priority=-1)
    assert end.core.open_stream().id == 3


@both
def test_no_stream_can_be_opened_when_the_ids_are_used_up(wire: Wire) -> None:
    end = End(wire, client=True)
    end.core.streams._next_id = 2**31 - 3
    end.core.open_stream()
    with pytest.raises(OpenRefused) as caught:
        end.core.open_stream()
    assert caught.value.code is ErrorCode.STREAMS_EXHAUSTED
    assert str(caught.value) == "all stream ids are used"


@both
def test_no_stream_can_be_opened_after_the_peers_goaway(wire: Wire) -> None:
    end = End(wire, client=True)
    assert end.core.can_open
    end.feed(end.goaway())
    assert not end.core.can_open
    with pytest.raises(OpenRefused) as caught:
        end.core.open_stream()
    assert caught.value.code is ErrorCode.REMOTE_GONE_AWAY


@both
def test_streams_can_be_opened_after_our_own_goaway(wire: Wire) -> None:
    end = End(wire, client=True)
    end.core.goaway(ErrorCode.NO_ERROR, b"")
    assert end.core.can_open
    assert end.core.open_stream().id == 3


@both
def test_no_stream_can_be_opened_when_the_session_has_ended(wire: Wire) -> None:
    end = End(wire, client=True)
    end.core.end(BreakReason(ErrorCode.PEER_EOF, "remote", "for a test", ends_session=True))
    with pytest.raises(OpenRefused) as caught:
        end.core.open_stream()
    assert caught.value.code is ErrorCode.SESSION_CLOSED


@both
def test_streams_of_this_end_are_counted_until_they_leave(wire: Wire) -> None:
    end = End(wire, client=True)
    ended, reset, broken = (end.open() for _ in range(3))
    assert end.core.streams.outbound.used == 3
    end.core.reset(reset, 7)
    assert end.core.streams.outbound.used == 2
    end.feed(end.rst(broken.id))
    assert end.core.streams.outbound.used == 1
    end.feed(end.fin(ended.id))
    end.core.close(ended)
    end.sent()
    assert end.core.streams.outbound.used == 0


ANSWERS: dict[str, Callable[[End, int], bytes]] = {
    "end": End.fin,
    "data": lambda end, stream_id: end.data(stream_id, b"too late"),
    "reset": End.rst,
    "credit": lambda end, stream_id: end.wndinc(stream_id, 1),
}


@both
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_a_stream_closed_before_any_answer_is_counted_until_one_comes(
    wire: Wire, answer: Callable[[End, int], bytes]
) -> None:
    """It may wait in the peer's backlog, which the limit is for; nothing lives for it."""
    end = End(wire, client=True)
    streams = end.core.streams
    kept, other = end.open(), end.open()
    for stream in (kept, other):
        end.core.send(stream, b"!")
        end.core.close(stream)
    end.sent()
    assert streams.live == {}
    assert (streams.outbound.used, streams.idle) == (2, True)
    end.core.close(kept)  # once more, which is allowed
    assert streams.outbound.used == 2
    end.feed(answer(end, other.id))
    assert (streams.outbound.used, streams.idle) == (1, True)
    end.feed(answer(end, other.id), answer(end, kept.id))
    assert (streams.outbound.used, streams.idle) == (0, True)


@both
@pytest.mark.parametrize("closed_before", [True, False])
def test_a_larger_window_is_no_answer_of_an_application(wire: Wire, closed_before: bool) -> None:
    """Ends that are configured so grant it as soon as they hear of a stream."""
    end = End(wire, client=True)
    streams = end.core.streams
    stream = end.open()
    end.core.send(stream, b"hello")
    widened = end.wndinc(stream.id, wire.initial_window)
    if not closed_before:
        end.feed(widened)
    end.core.close(stream)
    end.sent()
    if closed_before:
        end.feed(widened)
    assert (streams.outbound.used, streams.idle) == (1, True)
    end.feed(end.fin(stream.id))
    assert streams.outbound.used == 0


@both
def test_a_stream_that_was_answered_leaves_when_it_is_closed(wire: Wire) -> None:
    end = End(wire, client=True)
    stream = end.open()
    end.feed(end.data(stream.id, b"!"))
    end.core.close(stream)
    end.sent()
    assert end.core.streams.outbound.used == 0


@both
def test_without_a_limit_no_answer_is_waited_for(wire: Wire) -> None:
    """Nor is there a bound to how many would be remembered."""
    end = End(wire, client=True, max_outbound_streams=None)
    end.core.close(end.open())
    end.sent()
    assert end.core.streams.outbound.used == 0


# ---- streams of the peer


@both
def test_a_stream_of_the_peer_is_shown(wire: Wire) -> None:
    end = End(wire)
    opened = only(end.feed(end.syn(3)))
    assert isinstance(opened, StreamOpened)
    assert (opened.stream.id, opened.stream.local) == (3, False)
    assert end.core.streams.live == {3: opened.stream}


def test_v2_opens_and_delivers_in_one_frame() -> None:
    end = End(V2)
    opened, received = end.feed(end.data(3, b"hello", syn=True))
    assert isinstance(opened, StreamOpened)
    assert received == DataReceived(opened.stream, b"hello")


@pytest.mark.parametrize("payload", [b"", b"hello"])
def test_v2_may_open_and_end_in_one_frame(payload: bytes) -> None:
    end = End(V2)
    opened, received = end.feed(end.data(3, payload, syn=True, fin=True))
    assert isinstance(opened, StreamOpened)
    assert received == DataReceived(opened.stream, payload, ended=True)
    assert opened.stream.state is StreamState.HALF_CLOSED_REMOTE


def test_v1_may_open_and_end_in_one_frame() -> None:
    end = End(V1)
    opened, ended = end.feed(V1.header("SYN", 0, 1, 3))
    assert isinstance(opened, StreamOpened)
    assert ended == DataReceived(opened.stream, b"", ended=True)


def test_v1_may_leave_ids_out() -> None:
    end = End(V1)
    opened = only(end.feed(end.syn(9)))
    assert isinstance(opened, StreamOpened)
    assert opened.stream.id == 9


def test_v2_streams_may_arrive_in_any_order() -> None:
    end = End(V2)
    events = end.feed(end.syn(9), end.syn(3), end.syn(5))
    assert [event.stream.id for event in events if isinstance(event, StreamOpened)] == [9, 3, 5]


def test_v2_takes_id_one() -> None:
    end = End(V2)
    assert isinstance(only(end.feed(end.syn(1))), StreamOpened)


def test_v2_takes_an_id_again_when_it_is_gone() -> None:
    end = End(V2)
    end.core.reset(end.accept(3), 7)
    again = end.accept(3, b"again")
    assert again.state is StreamState.OPEN


@pytest.mark.parametrize(
    "wire, ids",
    [
        pytest.param(V1, [1], id="v1: the id that counts as used"),
        pytest.param(V1, [2], id="v1: an id of ours"),
        pytest.param(V1, [3, 3], id="v1: an id that is alive"),
        pytest.param(V1, [5, 3], id="v1: an id that does not rise"),
        pytest.param(V1, [0], id="v1: no id"),
        pytest.param(V2, [2], id="v2: an id of ours"),
        pytest.param(V2, [3, 3], id="v2: an id that is alive"),
        pytest.param(V2, [0], id="v2: no id"),
    ],
)
def test_a_wrong_id_ends_the_session(wire: Wire, ids: list[int]) -> None:
    end = End(wire)
    failed = end.feed(*map(end.syn, ids))[-1]
    assert isinstance(failed, SessionFailed)
    assert failed.code is ErrorCode.PROTOCOL_ERROR


# ---- refusals


@both
def test_a_stream_after_our_goaway_is_refused(wire: Wire) -> None:
    end = End(wire)
    end.core.goaway(ErrorCode.NO_ERROR, b"", last=True)
    end.sent()
    assert end.feed(end.syn(3), end.data(3, b"ignored"), end.fin(3)) == []
    assert end.sent() == [Rst(3, REFUSED[wire])]


@both
def test_a_stream_beyond_the_limit_is_refused_and_the_session_lives(wire: Wire) -> None:
    end = End(wire, max_inbound_streams=2)
    first, _ = end.accept(3), end.accept(5)
    assert end.feed(end.syn(7), end.data(7, b"ignored")) == []
    assert end.sent() == [Rst(7, REFUSED[wire])]
    end.core.reset(first, 7)
    assert end.accept(9).state is StreamState.OPEN


@both
def test_a_stream_beyond_the_backlog_is_refused_and_the_session_lives(wire: Wire) -> None:
    end = End(wire, accept_backlog=2)
    waiting = [event.stream for event in end.feed(end.syn(3), end.syn(5))]  # type: ignore[union-attr]
    events = end.feed(end.syn(7), end.data(7, b"ignored"))
    assert not any(isinstance(event, StreamOpened | DataReceived) for event in events)
    assert end.sent() == [Rst(7, QUEUE_FULL[wire])]
    end.core.accept(waiting[0])
    assert isinstance(only(end.feed(end.syn(9))), StreamOpened)


def test_a_stream_beyond_the_backlog_is_refused_once_with_all_that_it_brings() -> None:
    end = End(V2, accept_backlog=1)
    end.feed(end.syn(3))
    end.feed(end.data(5, b"ignored", syn=True, fin=True), end.data(5, b"ignored"))
    assert end.sent() == [Rst(5, QUEUE_FULL[V2])]


@pytest.mark.parametrize("payload", [b"", b"hello", bytes(100_000), bytes(300_000)])
def test_the_payload_of_a_refused_stream_is_skipped(payload: bytes) -> None:
    end = End(V2, max_inbound_streams=1)
    end.accept(3)
    frame = end.data(5, payload, syn=True)
    for piece in frame[:9], frame[9:], end.data(5, b"more"):
        assert end.feed(piece) == []
    assert end.sent() == [Rst(5, REFUSED[V2])]
    assert end.feed(end.data(3, b"x")) == [DataReceived(end.core.streams.live[3], b"x")]


@both
def test_a_refused_stream_takes_no_place(wire: Wire) -> None:
    end = End(wire, accept_backlog=1)
    end.feed(end.syn(3), end.syn(5), end.syn(7))
    streams = end.core.streams
    assert (streams.inbound.used, streams.waiting.used, len(streams.live)) == (1, 1, 1)


@both
def test_a_refused_id_is_used_and_gone(wire: Wire) -> None:
    end = End(wire, max_inbound_streams=1)
    end.accept(3)
    end.feed(end.syn(5))
    end.sent()
    assert end.feed(end.data(5, b"x"), end.rst(5), end.wndinc(5, 1), end.fin(5)) == []
    assert not end.core.wants_to_send


# ---- slots


@both
def test_a_stream_waits_until_it_is_accepted(wire: Wire) -> None:
    end = End(wire)
    opened = only(end.feed(end.syn(3)))
    assert isinstance(opened, StreamOpened)
    assert end.core.streams.waiting.used == 1
    end.core.accept(opened.stream)
    assert end.core.streams.waiting.used == 0


@both
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_stream_need_not_be_accepted_to_be_ended(wire: Wire, how: str) -> None:
    end = End(wire)
    opened = only(end.feed(end.syn(3)))
    assert isinstance(opened, StreamOpened)
    end.core.close(opened.stream) if how == "close" else end.core.reset(opened.stream, 7)
    end.sent()
    streams = end.core.streams
    assert (streams.waiting.used, streams.inbound.used, streams.live) == (0, 0, {})


@both
def test_a_stream_that_the_peer_reset_counts_until_its_handler_closes_it(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    end.feed(end.rst(3))
    assert (end.core.streams.live, end.core.streams.inbound.used) == ({}, 1)
    end.core.close(stream)
    assert end.core.streams.inbound.used == 0


@both
@pytest.mark.parametrize("held", [False, True])
def test_a_stream_that_ended_well_counts_only_while_a_handler_holds_it(
    wire: Wire, held: bool
) -> None:
    end = End(wire)
    stream = end.accept(3, fin=True)
    if held:
        end.core.hold(stream)
    end.core.end_sending(stream)
    end.sent()
    assert (end.core.streams.live, end.core.streams.inbound.used) == ({}, held)
    end.core.close(stream)
    assert end.core.streams.inbound.used == 0


@both
def test_a_stream_that_the_peer_made_us_reset_counts_until_its_handler_closes_it(
    wire: Wire,
) -> None:
    end = End(wire)
    stream = end.accept(3)
    end.feed(end.wndinc(3, 2**31 - 1))
    assert (end.core.streams.live, end.core.streams.inbound.used) == ({}, 1)
    end.core.reset(stream, 7)
    assert end.core.streams.inbound.used == 0


@both
def test_a_stream_that_was_reset_before_it_was_accepted_waits_for_its_handler(wire: Wire) -> None:
    end = End(wire)
    opened = only(end.feed(end.syn(3)))
    assert isinstance(opened, StreamOpened)
    assert end.feed(end.rst(3)) == [StreamBroken(opened.stream)]
    assert (end.core.streams.waiting.used, end.core.streams.inbound.used) == (1, 1)
    end.core.accept(opened.stream)
    end.core.close(opened.stream)
    assert (end.core.streams.waiting.used, end.core.streams.inbound.used) == (0, 0)


@both
@pytest.mark.parametrize("fin", [False, True])
def test_a_closed_stream_that_is_reset_before_all_was_sent_counts_no_more(
    wire: Wire, fin: bool
) -> None:
    end = End(wire)
    stream = end.accept(3, fin=fin)
    end.core.send(stream, bytes(wire.initial_window + 1))
    end.sent()
    end.core.close(stream)
    assert end.core.streams.inbound.used == 1
    end.feed(end.rst(3))
    assert (end.core.streams.live, end.core.streams.inbound.used) == ({}, 0)


@both
@pytest.mark.parametrize("eof", [False, True])
def test_a_closed_stream_counts_until_all_that_waits_is_sent(wire: Wire, eof: bool) -> None:
    end = End(wire)
    stream = end.accept(3, fin=True)
    end.core.send(stream, bytes(wire.initial_window + 1))
    if eof:
        end.core.end_sending(stream)
    end.sent()
    end.core.close(stream)
    assert end.core.streams.inbound.used == 1
    end.feed(end.wndinc(3, 1))
    end.sent()
    assert (end.core.streams.live, end.core.streams.inbound.used) == ({}, 0)


# ---- extensions


def test_v1_shows_no_type_of_the_extension_range() -> None:
    end = End(V1)
    events = end.feed(end.syn(3, type=0xFFFFFF00), end.syn(5, type=0xFFFFFFFF))
    assert not any(isinstance(event, StreamOpened) for event in events)
    assert end.sent() == [Rst(3, 4), Rst(5, 4)]


def test_the_heartbeat_is_always_served_on_v1() -> None:
    end = End(V1)
    opened = only(end.feed(end.syn(3, type=0xFFFFFEFF)))
    assert isinstance(opened, StreamOpened)
    assert opened.stream.quota is end.core.streams.heartbeats
    assert opened.stream.custody is Custody.ACCEPTED


@pytest.mark.parametrize("stream_type", [7, 0xFFFFFF00])
@both
def test_any_type_can_be_made_an_extension(wire: Wire, stream_type: int) -> None:
    end = End(wire, typed=True, extensions=[stream_type])
    if wire is V1:
        opening = end.syn(3, type=stream_type)
    else:
        opening = end.data(3, stream_type.to_bytes(4, "big"), syn=True)
    opened = only(end.feed(opening))
    assert isinstance(opened, StreamOpened)
    assert opened.stream.type == stream_type
    assert opened.stream.quota is end.core.streams.extensions
    assert opened.stream.custody is Custody.ACCEPTED


def test_a_session_full_of_streams_still_takes_a_heartbeat() -> None:
    end = End(V1, max_inbound_streams=1, accept_backlog=1)
    end.feed(end.syn(3))
    assert isinstance(only(end.feed(end.syn(5, type=0xFFFFFEFF))), StreamOpened)


@pytest.mark.parametrize("limits, most", [({}, 16), ({"max_extension_streams": 2}, 2)])
def test_a_full_house_of_extensions_refuses_the_next_one_and_takes_streams_and_heartbeats(
    limits: dict[str, Any], most: int
) -> None:
    end = End(V1, extensions=[7, 8], **limits)
    assert len(end.feed(*(end.syn(i, type=7 + i // 2 % 2) for i in ids(most)))) == most
    assert end.feed(end.syn(101, type=7)) == []
    assert end.sent() == [Rst(101, 6)]
    assert isinstance(only(end.feed(end.syn(103))), StreamOpened)
    assert isinstance(only(end.feed(end.syn(105, type=0xFFFFFEFF))), StreamOpened)


def test_a_full_house_of_heartbeats_refuses_the_next_one_and_takes_extensions() -> None:
    end = End(V1, extensions=[7])
    end.feed(*(end.syn(stream_id, type=0xFFFFFEFF) for stream_id in ids(MAX_HEARTBEAT_STREAMS)))
    assert end.feed(end.syn(101, type=0xFFFFFEFF)) == []
    assert end.sent() == [Rst(101, 6)]
    assert isinstance(only(end.feed(end.syn(103, type=7))), StreamOpened)


@pytest.mark.parametrize("stream_type", [7, 0xFFFFFEFF])
def test_an_extension_that_ends_gives_its_place_back(stream_type: int) -> None:
    end = End(V1, extensions=[7])
    opened = only(end.feed(end.syn(3, type=stream_type)))
    assert isinstance(opened, StreamOpened)
    quota = opened.stream.quota
    assert quota is not None
    assert quota.used == 1
    end.core.reset(opened.stream, 7)
    assert quota.used == 0


def test_an_extension_stream_of_ours_takes_the_place_of_any_stream() -> None:
    for extensions in [], [7]:
        end = End(V1, client=True, extensions=extensions)
        stream = end.open(stream_type=7)
        assert end.core.streams.outbound.used == 1
        end.core.reset(stream, 7)
        assert end.core.streams.outbound.used == 0


def test_the_heartbeat_of_ours_takes_no_place() -> None:
    end = End(V1, client=True, max_outbound_streams=1)
    end.core.open_stream(stream_type=0xFFFFFEFF, priority=2**31 - 1)
    assert end.sent() == [Syn(3, 2**31 - 1, 0xFFFFFEFF, False)]
    assert end.core.streams.outbound.used == 0
