"""What a peer can make this end hold: little, whatever it sends and whatever it does not take."""

from __future__ import annotations

import pytest

from trio_muxado._protocol.codec import MAX_DEBUG, Wire
from trio_muxado._protocol.errors import ErrorCode
from trio_muxado._protocol.frames import WndInc
from trio_muxado._protocol.guards import Tombstones
from trio_muxado._protocol.limits import Limits
from trio_muxado._protocol.stream import Stream

from .driver import BOTH, V2, End, ids, opened, weight

both = pytest.mark.parametrize("wire", BOTH)

DEFAULTS = Limits()


# ---- bytes


def test_unknown_frames_of_megabytes_leave_nothing() -> None:
    end = End(V2)
    before = weight(end.core)
    for _ in range(3):
        end.feed(b"\xff\xff\xff\x70" + bytes(4))
        for _ in range(0xFFFFFF // 65535):
            end.feed(bytes(65535))
        end.feed(bytes(0xFFFFFF % 65535))
    assert weight(end.core) < before + 1000
    assert len(opened(end.feed(end.syn(3)))) == 1


@both
def test_data_that_was_handed_over_is_not_kept(wire: Wire) -> None:
    end = End(wire)
    end.accept(3)
    before = weight(end.core)
    assert end.feed(end.data(3, bytes(8000)))
    assert weight(end.core) < before + 1000


@both
def test_four_kib_of_megabytes_of_debug_text_are_kept(wire: Wire) -> None:
    end = End(wire)
    before = weight(end.core)
    end.feed(wire.goaway(0, 0, b"x" * (wire.length_mask - 8)))
    assert len(end.core.peer_debug) == MAX_DEBUG
    assert weight(end.core) < before + 2 * MAX_DEBUG


@both
def test_a_thousand_goaways_leave_nothing(wire: Wire) -> None:
    end = End(wire)
    before = weight(end.core)
    for _ in range(1000):
        end.feed(end.goaway(0, 0, b"text"))
    assert weight(end.core) < before + 1000


def test_a_frame_larger_than_the_window_is_never_held() -> None:
    end = End(V2)
    end.accept(3)
    before = weight(end.core)
    frame = end.data(3, bytes(1_000_000))
    for start in range(0, len(frame), 100_000):
        end.feed(frame[start : start + 100_000])
        assert weight(end.core) < before + 1000


@both
def test_data_is_handed_on_and_not_held(wire: Wire) -> None:
    end = End(wire)
    end.accept(3)
    before = weight(end.core)
    for _ in range(wire.initial_window // 2 // 8192):
        end.feed(end.data(3, bytes(8192)))
    end.feed(b"")  # what was told last is told
    assert weight(end.core) < before + 1000


@both
def test_the_memory_of_dead_ids_is_bounded(wire: Wire) -> None:
    end = End(wire, client=True, max_outbound_streams=None)
    for _ in range(2 * Tombstones.CAPACITY):
        end.core.close(end.open())
        end.sent()
    assert weight(end.core.streams) < 200 * Tombstones.CAPACITY


@both
@pytest.mark.parametrize("how", ["close", "reset", "ended by both", "reset by the peer", "refused"])
@pytest.mark.parametrize("limit", [None, 100])
def test_five_thousand_streams_of_ours_leave_nothing(
    wire: Wire, how: str, limit: int | None
) -> None:
    """More than are remembered, and than any limit lets live."""
    end = End(wire, client=True, max_outbound_streams=limit)
    assert Tombstones.CAPACITY < 5_000
    for _ in range(5_000):
        stream = end.open()
        if how == "close":
            end.core.close(stream)
            if limit:  # which such a stream counts for until the peer acts
                end.feed(end.fin(stream.id))
        elif how == "reset":
            end.core.reset(stream, 7)
        elif how == "ended by both":
            end.core.end_sending(stream)
            end.feed(end.fin(stream.id))
        else:
            code = ErrorCode.STREAM_REFUSED if how == "refused" else 7
            end.feed(end.rst(stream.id, code))
        end.bytes_sent()
    streams = end.core.streams
    assert (streams.live, streams.outbound.used) == ({}, 0)
    assert end.core.all_sent


# ---- windows


def read_on(end: End, stream: Stream, rounds: int) -> int:
    """A peer that fills the window each time, and an application that reads all of it."""
    most = 0
    for _ in range(rounds):
        credit = stream.receive_window.credit
        while stream.receive_window.credit:
            end.feed(end.data(stream.id, bytes(min(16_000, stream.receive_window.credit))))
        end.core.consume(stream, credit)
        end.sent()
        most = max(most, stream.receive_window.size)
    return most


@both
def test_a_window_that_holds_the_peer_back_doubles(wire: Wire) -> None:
    end = End(wire)
    assert read_on(end, end.accept(3), rounds=1) == 2 * wire.initial_window


@both
def test_a_window_grows_no_further_than_it_may(wire: Wire) -> None:
    end = End(wire, max_receive_window=1_000_000)
    assert read_on(end, end.accept(3), rounds=8) == 1_000_000


@both
def test_all_windows_together_grow_no_further_than_the_budget(wire: Wire) -> None:
    end = End(wire, receive_budget=2_000_000)
    streams = [end.accept(stream_id) for stream_id in ids(4)]
    for stream in streams:
        read_on(end, stream, rounds=6)
    spare = max(0, 1_000_000 - 4 * wire.initial_window)  # of the half for windows that begin
    assert sum(stream.receive_window.size for stream in streams) == 2_000_000 - spare
    assert end.core.streams.spare_window == spare


@both
def test_streams_that_come_when_others_have_grown_find_the_half_of_the_budget(wire: Wire) -> None:
    end = End(wire, receive_budget=12 * wire.initial_window)
    assert read_on(end, end.accept(3), rounds=8) == 7 * wire.initial_window
    others = [end.accept(stream_id) for stream_id in ids(5, first=5)]
    assert [read_on(end, stream, rounds=1) for stream in others] == [wire.initial_window] * 5
    assert end.core.streams.spare_window == 0


@both
@pytest.mark.parametrize("client", [True, False])
def test_a_stream_begins_with_its_window_also_where_the_budget_is_used_up(
    wire: Wire, client: bool
) -> None:
    """The peer takes it for granted.  Then nothing grows, until enough of it has come back."""
    end = End(wire, client=client, receive_budget=3 * wire.initial_window)
    streams = [end.open() if client else end.accept(stream_id) for stream_id in ids(5)]
    assert end.core.streams.spare_window == -2 * wire.initial_window
    assert read_on(end, streams[0], rounds=3) == wire.initial_window
    for stream in streams[1:4]:
        end.core.reset(stream, 7)
    assert end.core.streams.spare_window == wire.initial_window
    assert read_on(end, streams[0], rounds=3) == 2 * wire.initial_window
    assert end.core.streams.spare_window == 0


@both
@pytest.mark.parametrize("client", [True, False])
def test_a_configured_window_is_taken_out_of_the_budget(wire: Wire, client: bool) -> None:
    initial = wire.initial_window
    kept = 1_250_000 - 3 * initial
    end = End(wire, client=client, receive_window=1_000_000, receive_budget=2_500_000)
    sizes = []
    for stream_id in ids(3):
        stream = end.core.open_stream() if client else end.accept(stream_id)
        granted = sum(f.increment for f in end.sent() if isinstance(f, WndInc))
        sizes.append(stream.receive_window.size)
        assert granted == sizes[-1] - initial
    assert sizes == [1_000_000, 250_000 + 2 * initial, initial]
    assert end.core.streams.spare_window == kept


def test_what_came_with_a_stream_that_is_refused_is_no_part_of_the_budget() -> None:
    end = End(V2, typed=True, accept_backlog=1)
    for stream_id in ids(3):
        end.feed(end.data(stream_id, bytes(4) + b"nobody will read it", syn=True))
    assert list(end.core.streams.live) == [3]
    assert end.core.streams.spare_window == DEFAULTS.receive_budget - V2.initial_window


@both
def test_an_unread_window_never_grows(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    while stream.receive_window.credit:
        end.feed(end.data(3, bytes(min(16_000, stream.receive_window.credit))))
    end.core.consume(stream, wire.initial_window - 1)
    assert stream.receive_window.size == wire.initial_window


@both
@pytest.mark.parametrize("how", ["close", "reset", "peers end", "peers reset"])
def test_what_a_stream_had_of_the_budget_comes_back(wire: Wire, how: str) -> None:
    end = End(wire)
    stream = end.accept(3)
    size = read_on(end, stream, rounds=3)
    assert end.core.streams.spare_window == DEFAULTS.receive_budget - size
    if how == "close":
        end.core.close(stream)
    elif how == "reset":
        end.core.reset(stream, 7)
    else:
        end.feed(end.fin(3) if how == "peers end" else end.rst(3))
    assert end.core.streams.spare_window == DEFAULTS.receive_budget


@both
def test_what_was_not_read_keeps_its_part_of_the_budget_until_it_is(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    read_on(end, stream, rounds=3)
    while stream.receive_window.credit:
        end.feed(end.data(3, bytes(min(16_000, stream.receive_window.credit))))
    end.feed(end.rst(3))
    reserved = stream.reserved
    assert end.core.streams.spare_window == DEFAULTS.receive_budget - reserved > 0
    end.core.consume(stream, stream.receive_window.unconsumed - 1000)
    assert end.core.streams.spare_window == DEFAULTS.receive_budget - 1000
    end.core.consume(stream, 1000)
    assert end.core.streams.spare_window == DEFAULTS.receive_budget


@both
def test_a_window_that_was_configured_larger_than_it_may_grow_stays_as_it_is(wire: Wire) -> None:
    end = End(wire, receive_window=2_000_000, max_receive_window=1_000_000)
    assert read_on(end, end.accept(3), rounds=2) == 2_000_000
    assert end.core.streams.spare_window == DEFAULTS.receive_budget - 2_000_000
