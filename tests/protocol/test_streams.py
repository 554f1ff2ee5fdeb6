"""Which streams live, which ids were used, and who takes a slot."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from trio_muxado._protocol.codec import Wire
from trio_muxado._protocol.counts import Counts
from trio_muxado._protocol.errors import ErrorCode, OpenRefused, ProtocolViolation
from trio_muxado._protocol.limits import Limits
from trio_muxado._protocol.outbox import Outbox
from trio_muxado._protocol.states import CustodyInput, StreamInput, StreamState
from trio_muxado._protocol.stream import BreakReason, Stream
from trio_muxado._protocol.streams import Streams

from .driver import V1, V2

BROKEN = BreakReason(ErrorCode.STREAM_RESET, "remote", "for a test")


def make_streams(*, client: bool = False, wire: Wire = V2) -> Streams:
    counts = Counts()
    streams = Streams(client=client, limits=Limits(), counts=counts)
    streams.use(wire, Outbox(wire, counts))
    return streams


def untyped(streams: Streams, stream_id: int = 3) -> Stream:
    """A stream of the peer, before its type has come."""
    stream = streams.accept_syn(stream_id, streams.inbound, going=False)
    assert stream is not None
    return stream


def waiting(streams: Streams, stream_id: int = 3) -> Stream:
    """A stream of the peer that nobody has accepted yet."""
    stream = untyped(streams, stream_id)
    streams.offer(stream)
    return stream


def remote(streams: Streams, stream_id: int = 3) -> Stream:
    """A stream of the peer that the application has accepted."""
    stream = waiting(streams, stream_id)
    assert streams.take(stream, CustodyInput.ACCEPT)
    return stream


# ---- ids


def test_a_clients_streams_are_odd_from_three() -> None:
    streams = make_streams(client=True)
    assert [streams.new_local().id for _ in range(3)] == [3, 5, 7]


def test_a_servers_streams_are_even_from_two() -> None:
    streams = make_streams(client=False)
    assert [streams.new_local().id for _ in range(3)] == [2, 4, 6]


@pytest.mark.parametrize("client, last", [(True, 2**31 - 3), (False, 2**31 - 4)])
def test_ids_end_and_never_begin_again(client: bool, last: int) -> None:
    streams = make_streams(client=client)
    streams._next_id = last
    assert streams.new_local().id == last
    for _ in range(2):
        with pytest.raises(OpenRefused) as caught:
            streams.new_local()
        assert caught.value.code is ErrorCode.STREAMS_EXHAUSTED


@pytest.mark.parametrize("client, never_used", [(True, 2**31 - 1), (False, 2**31 - 2)])
def test_one_id_of_this_end_is_never_used(client: bool, never_used: int) -> None:
    assert make_streams(client=client).never_used_id == never_used


@pytest.mark.parametrize("stream_id", [0, 2, 4])
def test_a_client_cannot_open_an_id_of_the_server(stream_id: int) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        make_streams(client=False).check_opening(stream_id)
    assert caught.value.code is ErrorCode.PROTOCOL_ERROR


@pytest.mark.parametrize("stream_id", [0, 1, 3])
def test_a_server_cannot_open_an_id_of_the_client(stream_id: int) -> None:
    with pytest.raises(ProtocolViolation):
        make_streams(client=True).check_opening(stream_id)


def test_an_id_that_is_alive_cannot_be_opened() -> None:
    streams = make_streams()
    remote(streams, 3)
    with pytest.raises(ProtocolViolation, match="opened twice"):
        streams.check_opening(3)


def test_ids_that_must_rise_must_rise() -> None:
    streams = make_streams(wire=V1)
    streams.check_opening(5)
    with pytest.raises(ProtocolViolation, match="stream 3 opened after stream 5"):
        streams.check_opening(3)


def test_ids_that_need_not_rise_may_fall() -> None:
    streams = make_streams()
    streams.check_opening(5)
    streams.check_opening(3)
    assert streams.last_remote_id == 5


def test_id_one_counts_as_used_where_ids_must_rise() -> None:
    with pytest.raises(ProtocolViolation):
        make_streams(wire=V1).check_opening(1)
    make_streams(wire=V2).check_opening(1)


def test_an_id_that_is_opened_again_is_not_gone_any_more() -> None:
    streams = make_streams()
    streams.tombstones.add(3, reset=True)
    streams.check_opening(3)
    assert 3 not in streams.tombstones


def test_an_id_was_opened_up_to_the_latest_of_its_end() -> None:
    streams = make_streams(client=True)
    streams.new_local()
    streams.check_opening(6)
    opened = [stream_id for stream_id in range(10) if streams.was_opened(stream_id)]
    assert opened == [2, 3, 4, 6]


@pytest.mark.parametrize("client, first", [(True, 2), (False, 3)])
def test_the_next_stream_of_the_peer_is_known(client: bool, first: int) -> None:
    streams = make_streams(client=client)
    assert [i for i in range(10) if streams.could_come_next(i, True)] == [first]
    streams.check_opening(first)
    assert [i for i in range(10) if streams.could_come_next(i, True)] == [first + 2]


def test_any_stream_that_was_opened_can_get_a_frame() -> None:
    streams = make_streams()
    streams.check_opening(5)
    assert [i for i in range(10) if streams.could_come_next(i, False)] == [3, 5]


# ---- half-open streams


@pytest.mark.parametrize("state", StreamState)
def test_a_live_stream_that_is_not_open_is_half_open(state: StreamState) -> None:
    streams = make_streams()
    stream = remote(streams)
    stream.state = state
    assert streams.half_open() == ([] if state is StreamState.OPEN else [stream])


def test_a_stream_without_its_type_is_half_open() -> None:
    streams = make_streams()
    stream = untyped(streams)
    assert streams.half_open() == [stream]


def test_an_extension_is_left_alone() -> None:
    streams = make_streams()
    stream = remote(streams)
    stream.take_slot(streams.extensions)
    stream.step(StreamInput.RECEIVE_END)
    ours = streams.new_local()  # without a slot, as the heartbeat's
    ours.step(StreamInput.SEND_END)
    assert streams.half_open() == []


# ---- a stream leaves


def test_a_stream_that_is_gone_leaves_and_gives_its_place_back() -> None:
    streams = make_streams()
    stream = remote(streams)
    stream.state = StreamState.CLOSED
    streams.settle(stream)
    assert (streams.live, streams.inbound.used) == ({}, 0)


def test_a_stream_that_is_gone_stays_until_all_that_was_due_is_sent() -> None:
    streams = make_streams()
    stream = remote(streams)
    stream.state = StreamState.CLOSED
    stream.end_due = True
    streams.settle(stream)
    assert (streams.live, streams.inbound.used) == ({3: stream}, 1)


def test_a_stream_that_the_application_closed_leaves_before_the_peer_has_ended_it() -> None:
    streams = make_streams()
    stream = remote(streams)
    stream.state = StreamState.CLOSED_LOCAL
    streams.settle(stream)
    assert streams.live == {}
    assert 3 in streams.tombstones
    assert not streams.tombstones.was_reset(3)


def test_a_stream_that_ended_on_both_sides_need_not_be_remembered() -> None:
    streams = make_streams()
    stream = remote(streams)
    stream.state = StreamState.CLOSED
    streams.settle(stream)
    assert 3 not in streams.tombstones


def test_settling_twice_gives_one_place_back() -> None:
    streams = make_streams()
    remote(streams, 5)
    stream = remote(streams, 3)
    stream.state = StreamState.CLOSED
    streams.settle(stream)
    streams.settle(stream)
    assert streams.inbound.used == 1


def test_settling_an_old_stream_leaves_the_new_one_of_the_same_id_alone() -> None:
    streams = make_streams()
    old = remote(streams)
    old.state = StreamState.CLOSED
    streams.settle(old)
    new = remote(streams)
    streams.settle(old)
    assert streams.live == {3: new}


@pytest.mark.parametrize("has_it", [waiting, remote])
def test_a_stream_that_broke_keeps_its_place_until_it_is_released(
    has_it: Callable[[Streams], Stream],
) -> None:
    streams = make_streams()
    stream = has_it(streams)
    stream.broken = BROKEN
    stream.step(StreamInput.RECEIVE_RESET)
    streams.settle(stream)
    assert (streams.live, streams.inbound.used) == ({}, 1)
    assert not streams.release(stream)
    assert streams.inbound.used == 0


@pytest.mark.parametrize("has_it", [waiting, remote])
def test_a_stream_that_ended_well_gives_its_place_back_though_somebody_has_it(
    has_it: Callable[[Streams], Stream],
) -> None:
    streams = make_streams()
    stream = has_it(streams)
    stream.state = StreamState.CLOSED
    streams.settle(stream)
    assert streams.inbound.used == 0


def test_a_stream_that_ended_well_keeps_its_place_while_a_handler_holds_it() -> None:
    streams = make_streams()
    stream = remote(streams)
    assert streams.take(stream, CustodyInput.HOLD)
    stream.state = StreamState.CLOSED
    streams.settle(stream)
    assert (streams.live, streams.inbound.used) == ({}, 1)
    streams.release(stream)
    assert streams.inbound.used == 0


def test_a_stream_that_broke_before_its_type_came_gives_its_place_back() -> None:
    streams = make_streams()
    stream = untyped(streams)
    stream.broken = BROKEN
    stream.step(StreamInput.RECEIVE_RESET)
    streams.settle(stream)
    assert streams.inbound.used == 0


def test_releasing_a_stream_takes_it_out_of_the_backlog() -> None:
    streams = make_streams()
    stream = waiting(streams)
    assert streams.waiting.used == 1
    assert streams.release(stream)
    assert streams.waiting.used == 0


# ---- slots


@pytest.mark.parametrize("kind", ["inbound", "extensions", "outbound", "heartbeats"])
def test_no_stream_but_a_heartbeat_may_live_in_an_idle_session(kind: str) -> None:
    streams = make_streams()
    assert streams.idle
    stream = remote(streams)
    stream.take_slot(getattr(streams, kind))
    assert streams.idle == (kind == "heartbeats")
    stream.leave_slot()
    assert streams.idle


def test_a_stream_is_counted_in_one_place_at_a_time() -> None:
    streams = make_streams()
    stream = remote(streams)
    stream.take_slot(streams.extensions)
    assert (streams.inbound.used, streams.extensions.used) == (0, 1)
    stream.leave_slot()
    stream.leave_slot()
    assert (streams.inbound.used, streams.extensions.used) == (0, 0)


def test_a_stream_is_accepted_once() -> None:
    streams = make_streams()
    stream = waiting(streams)
    assert streams.take(stream, CustodyInput.ACCEPT)
    assert not streams.take(stream, CustodyInput.ACCEPT)
    assert streams.waiting.used == 0
