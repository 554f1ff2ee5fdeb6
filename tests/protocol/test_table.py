"""Which streams live, which ids were used, and who takes a place."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from trio_muxado._protocol.codec import Wire
from trio_muxado._protocol.errors import ErrorCode, OpenRefused, ProtocolViolation
from trio_muxado._protocol.limits import Limits
from trio_muxado._protocol.states import CustodyInput, StreamInput, StreamState
from trio_muxado._protocol.stream import Broken, Stream
from trio_muxado._protocol.table import StreamTable

from .driver import V1, V2

BROKEN = Broken(ErrorCode.STREAM_RESET, "remote", "for a test")


def make_table(*, client: bool = False) -> StreamTable:
    return StreamTable(client=client, limits=Limits())


def untyped(table: StreamTable, stream_id: int = 3, wire: Wire = V2) -> Stream:
    """A stream of the peer, before its type has come."""
    table.check_opening(stream_id, rising=wire.syns_rise)
    return table.new_remote(stream_id, wire, table.inbound)


def waiting(table: StreamTable, stream_id: int = 3) -> Stream:
    """A stream of the peer that nobody has accepted yet."""
    stream = untyped(table, stream_id)
    table.offer(stream)
    return stream


def remote(table: StreamTable, stream_id: int = 3) -> Stream:
    """A stream of the peer that the application has accepted."""
    stream = waiting(table, stream_id)
    assert table.take(stream, CustodyInput.ACCEPT)
    return stream


# ---- ids


def test_a_clients_streams_are_odd_from_three() -> None:
    table = make_table(client=True)
    assert [table.new_local(V2).id for _ in range(3)] == [3, 5, 7]


def test_a_servers_streams_are_even_from_two() -> None:
    table = make_table(client=False)
    assert [table.new_local(V2).id for _ in range(3)] == [2, 4, 6]


@pytest.mark.parametrize("client, last", [(True, 2**31 - 3), (False, 2**31 - 4)])
def test_ids_end_and_never_begin_again(client: bool, last: int) -> None:
    table = make_table(client=client)
    table._next_id = last
    assert table.new_local(V2).id == last
    for _ in range(2):
        with pytest.raises(OpenRefused) as caught:
            table.new_local(V2)
        assert caught.value.code is ErrorCode.STREAMS_EXHAUSTED


@pytest.mark.parametrize("client, nobody", [(True, 2**31 - 1), (False, 2**31 - 2)])
def test_one_id_of_this_end_is_never_used(client: bool, nobody: int) -> None:
    assert make_table(client=client).nobody == nobody


@pytest.mark.parametrize("stream_id", [0, 2, 4])
def test_a_client_cannot_open_an_id_of_the_server(stream_id: int) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        make_table(client=False).check_opening(stream_id, rising=False)
    assert caught.value.code is ErrorCode.PROTOCOL_ERROR


@pytest.mark.parametrize("stream_id", [0, 1, 3])
def test_a_server_cannot_open_an_id_of_the_client(stream_id: int) -> None:
    with pytest.raises(ProtocolViolation):
        make_table(client=True).check_opening(stream_id, rising=False)


def test_an_id_that_is_alive_cannot_be_opened() -> None:
    table = make_table()
    remote(table, 3)
    with pytest.raises(ProtocolViolation, match="opened twice"):
        table.check_opening(3, rising=False)


def test_ids_that_must_rise_must_rise() -> None:
    table = make_table()
    table.check_opening(5, rising=True)
    with pytest.raises(ProtocolViolation, match="stream 3 opened after stream 5"):
        table.check_opening(3, rising=True)


def test_ids_that_need_not_rise_may_fall() -> None:
    table = make_table()
    table.check_opening(5, rising=False)
    table.check_opening(3, rising=False)
    assert table.last_remote_id == 5


def test_id_one_counts_as_used_where_ids_must_rise() -> None:
    with pytest.raises(ProtocolViolation):
        make_table().check_opening(1, rising=True)
    make_table().check_opening(1, rising=False)


def test_an_id_that_is_opened_again_is_not_gone_any_more() -> None:
    table = make_table()
    table.gone.add(3, reset=True)
    table.check_opening(3, rising=False)
    assert 3 not in table.gone


def test_an_id_was_opened_up_to_the_latest_of_its_end() -> None:
    table = make_table(client=True)
    table.new_local(V1)
    table.check_opening(6, rising=True)
    opened = [stream_id for stream_id in range(10) if table.was_opened(stream_id)]
    assert opened == [2, 3, 4, 6]


@pytest.mark.parametrize("client, first", [(True, 2), (False, 3)])
def test_the_next_stream_of_the_peer_is_known(client: bool, first: int) -> None:
    table = make_table(client=client)
    assert [i for i in range(10) if table.could_come_next(i, True)] == [first]
    table.check_opening(first, rising=True)
    assert [i for i in range(10) if table.could_come_next(i, True)] == [first + 2]


def test_any_stream_that_was_opened_can_get_a_frame() -> None:
    table = make_table()
    table.check_opening(5, rising=True)
    assert [i for i in range(10) if table.could_come_next(i, False)] == [3, 5]


# ---- half-open streams


@pytest.mark.parametrize("state", StreamState)
def test_a_live_stream_that_is_not_open_is_half_open(state: StreamState) -> None:
    table = make_table()
    stream = remote(table)
    stream.state = state
    assert table.half_open() == ([] if state is StreamState.OPEN else [stream])


def test_a_stream_without_its_type_is_half_open() -> None:
    table = make_table()
    stream = untyped(table)
    assert table.half_open() == [stream]


def test_an_extension_is_left_alone() -> None:
    table = make_table()
    stream = remote(table)
    stream.take_place(table.extensions)
    stream.step(StreamInput.RECEIVE_END)
    ours = table.new_local(V2)  # without a place, as the heartbeat's
    ours.step(StreamInput.SEND_END)
    assert table.half_open() == []


# ---- a stream leaves


def test_an_open_stream_stays() -> None:
    table = make_table()
    stream = remote(table)
    table.settle(stream)
    assert table.live == {3: stream}


def test_a_stream_that_is_gone_leaves_and_gives_its_place_back() -> None:
    table = make_table()
    stream = remote(table)
    stream.state = StreamState.GONE
    table.settle(stream)
    assert (table.live, table.inbound.taken) == ({}, 0)


def test_a_stream_that_is_gone_stays_until_all_that_was_due_is_sent() -> None:
    table = make_table()
    stream = remote(table)
    stream.state = StreamState.GONE
    stream.end_due = True
    table.settle(stream)
    assert (table.live, table.inbound.taken) == ({3: stream}, 1)


def test_a_stream_that_the_application_closed_leaves_before_the_peer_has_ended_it() -> None:
    table = make_table()
    stream = remote(table)
    stream.state = StreamState.CLOSED_LOCAL
    table.settle(stream)
    assert table.live == {}
    assert 3 in table.gone
    assert not table.gone.was_reset(3)


def test_a_stream_that_ended_on_both_sides_need_not_be_remembered() -> None:
    table = make_table()
    stream = remote(table)
    stream.state = StreamState.GONE
    table.settle(stream)
    assert 3 not in table.gone


def test_settling_twice_gives_one_place_back() -> None:
    table = make_table()
    remote(table, 5)
    stream = remote(table, 3)
    stream.state = StreamState.GONE
    table.settle(stream)
    table.settle(stream)
    assert table.inbound.taken == 1


def test_settling_an_old_stream_leaves_the_new_one_of_the_same_id_alone() -> None:
    table = make_table()
    old = remote(table)
    old.state = StreamState.GONE
    table.settle(old)
    new = remote(table)
    table.settle(old)
    assert table.live == {3: new}


@pytest.mark.parametrize("has_it", [waiting, remote])
def test_a_stream_that_broke_keeps_its_place_until_it_is_released(
    has_it: Callable[[StreamTable], Stream],
) -> None:
    table = make_table()
    stream = has_it(table)
    stream.broken = BROKEN
    stream.step(StreamInput.RECEIVE_RESET)
    table.settle(stream)
    assert (table.live, table.inbound.taken) == ({}, 1)
    assert not table.release(stream)
    assert table.inbound.taken == 0


@pytest.mark.parametrize("has_it", [waiting, remote])
def test_a_stream_that_ended_well_gives_its_place_back_though_somebody_has_it(
    has_it: Callable[[StreamTable], Stream],
) -> None:
    table = make_table()
    stream = has_it(table)
    stream.state = StreamState.GONE
    table.settle(stream)
    assert table.inbound.taken == 0


def test_a_stream_that_ended_well_keeps_its_place_while_a_handler_holds_it() -> None:
    table = make_table()
    stream = remote(table)
    assert table.take(stream, CustodyInput.HOLD)
    stream.state = StreamState.GONE
    table.settle(stream)
    assert (table.live, table.inbound.taken) == ({}, 1)
    table.release(stream)
    assert table.inbound.taken == 0


def test_a_stream_that_broke_before_its_type_came_gives_its_place_back() -> None:
    table = make_table()
    stream = untyped(table)
    stream.broken = BROKEN
    stream.step(StreamInput.RECEIVE_RESET)
    table.settle(stream)
    assert table.inbound.taken == 0


def test_releasing_a_stream_takes_it_out_of_the_backlog() -> None:
    table = make_table()
    stream = waiting(table)
    assert table.waiting.taken == 1
    assert table.release(stream)
    assert table.waiting.taken == 0


# ---- places


@pytest.mark.parametrize("kind", ["inbound", "extensions", "outbound", "heartbeats"])
def test_no_stream_but_a_heartbeat_may_live_in_an_idle_session(kind: str) -> None:
    table = make_table()
    assert table.idle
    stream = remote(table)
    stream.take_place(getattr(table, kind))
    assert table.idle == (kind == "heartbeats")
    stream.leave_place()
    assert table.idle


def test_a_stream_is_counted_in_one_place_at_a_time() -> None:
    table = make_table()
    stream = remote(table)
    stream.take_place(table.extensions)
    assert (table.inbound.taken, table.extensions.taken) == (0, 1)
    stream.leave_place()
    stream.leave_place()
    assert (table.inbound.taken, table.extensions.taken) == (0, 0)


def test_a_stream_is_accepted_once() -> None:
    table = make_table()
    stream = waiting(table)
    assert table.take(stream, CustodyInput.ACCEPT)
    assert not table.take(stream, CustodyInput.ACCEPT)
    assert table.waiting.taken == 0
