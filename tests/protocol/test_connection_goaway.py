"""Going away: what our GOAWAY says, what the peer's does, and its defects."""

from __future__ import annotations

from typing import Any

import pytest

from trio_muxado._protocol.codec import HEADER_SIZE, MAX_STREAM_ID, Wire
from trio_muxado._protocol.errors import ErrorCode
from trio_muxado._protocol.events import (
    DataReceived,
    GoAwayReceived,
    PeerEnded,
    SessionFailed,
    StreamBroken,
    StreamOpened,
)
from trio_muxado._protocol.frames import Data, GoAway, GoAwayDebug, Rst
from trio_muxado._protocol.states import SessionState
from trio_muxado._protocol.stream import BreakReason, Stream

from .driver import BOTH, V1, V2, End, only, opened, pipe

both = pytest.mark.parametrize("wire", BOTH)


def reasons(streams: list[Stream]) -> list[tuple[ErrorCode | int, bool] | None]:
    """Why each stream broke, and whether it is safe to retry."""
    return [s.broken and (s.broken.code, s.broken.safe_to_retry) for s in streams]


LOST = (ErrorCode.REMOTE_GONE_AWAY, True)
LOST_PERHAPS = (ErrorCode.REMOTE_GONE_AWAY, False)


# ---- ours


@both
def test_goaway_says_which_streams_were_taken_up(wire: Wire) -> None:
    end = End(wire)
    end.accept(3), end.accept(5)
    end.core.goaway(ErrorCode.NO_ERROR, b"", last=True)
    assert end.sent() == [GoAway(5, 0)]


@both
def test_goaway_without_streams_says_zero(wire: Wire) -> None:
    end = End(wire, client=True)
    end.core.goaway(ErrorCode.NO_ERROR, b"", last=True)
    assert end.sent() == [GoAway(0, 0)]


@both
def test_goaway_tells_code_and_debug_text(wire: Wire) -> None:
    end = End(wire)
    end.core.goaway(ErrorCode.INTERNAL_ERROR, b"bye", last=True)
    assert end.sent() == [GoAway(0, 2), GoAwayDebug(b"bye")]


def test_the_id_in_a_v2_goaway_is_the_highest_not_the_latest() -> None:
    end = End(V2)
    end.accept(5), end.accept(3)
    end.core.goaway(ErrorCode.NO_ERROR, b"", last=True)
    assert end.sent() == [GoAway(5, 0)]


@both
def test_the_id_in_a_goaway_never_rises_from_one_to_the_next(wire: Wire) -> None:
    end = End(wire)
    end.accept(3)
    end.core.goaway(ErrorCode.NO_ERROR, b"", last=True)
    end.feed(end.syn(5))
    end.core.goaway(ErrorCode.NO_ERROR, b"", last=True)
    last_ids = [frame.last_stream_id for frame in end.sent() if isinstance(frame, GoAway)]
    assert last_ids == [3, 3]


def test_a_heartbeat_that_crosses_our_goaway_is_served_and_does_not_raise_the_id() -> None:
    end = End(V1)
    end.core.goaway(ErrorCode.NO_ERROR, b"")
    assert isinstance(only(end.feed(end.syn(3, type=0xFFFFFEFF))), StreamOpened)
    end.core.goaway(ErrorCode.NO_ERROR, b"")
    assert end.sent() == [GoAway(0, 0), GoAway(0, 0)]


@both
def test_an_extension_that_crosses_our_goaway_is_refused_as_the_goaway_says(wire: Wire) -> None:
    end = End(wire, typed=True, extensions=[7])
    end.core.goaway(ErrorCode.NO_ERROR, b"")
    end.sent()
    opening = end.syn(3, type=7) if wire is V1 else end.data(3, bytes((0, 0, 0, 7)), syn=True)
    assert end.feed(opening, end.data(3, b"pay 100")) == []
    assert end.sent() == [Rst(3, wire.code_to_wire(ErrorCode.STREAM_REFUSED))]
    end.core.goaway(ErrorCode.NO_ERROR, b"", last=True)
    assert end.sent() == [GoAway(0, 0)]


@both
def test_streams_that_were_refused_are_not_in_our_goaway(wire: Wire) -> None:
    end = End(wire, max_inbound_streams=1)
    end.accept(3)
    end.feed(end.syn(5))
    end.core.goaway(ErrorCode.NO_ERROR, b"", last=True)
    assert GoAway(3, 0) in end.sent()


@both
def test_the_id_in_the_goaway_of_a_failure_never_rises_either(wire: Wire) -> None:
    end = End(wire)
    end.core.goaway(ErrorCode.NO_ERROR, b"", last=True)
    end.feed(end.syn(5), end.syn(2))
    assert [f.last_stream_id for f in end.sent() if isinstance(f, GoAway)] == [0, 0]


@both
@pytest.mark.parametrize("announced", [False, True])
def test_what_nobody_has_taken_up_at_the_end_is_refused_and_nothing_else(
    wire: Wire, announced: bool
) -> None:
    opener, end = End(wire, client=True), End(wire)
    streams = [opener.core.open_stream() for _ in range(3)]
    for stream in streams:
        opener.core.send(stream, b"pay 100")
    taken, *waiting = opened(pipe(opener, end))
    end.core.accept(taken)
    own = end.core.open_stream()
    if announced:
        end.core.goaway(ErrorCode.NO_ERROR, b"")
        assert end.core.streams.waiting.used == 2  # they are still to be accepted
    end.core.refuse_unaccepted()
    end.core.goaway(ErrorCode.NO_ERROR, b"", last=True)
    assert end.core.streams.live == {taken.id: taken, own.id: own}
    assert (end.core.streams.inbound.used, end.core.streams.waiting.used) == (1, 0)
    pipe(end, opener)
    refused = (ErrorCode.STREAM_REFUSED, True)
    assert reasons(streams) == [None] + [refused] * len(waiting)


@both
def test_streams_that_run_go_on_after_our_goaway(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    end.core.goaway(ErrorCode.NO_ERROR, b"", last=True)
    end.sent()
    assert end.feed(end.data(3, b"more")) == [DataReceived(stream, b"more")]
    end.core.send(stream, b"answer")
    assert end.sent() == [Data(3, 6, b"answer", False, False)]


@pytest.mark.parametrize("client, nobody", [(True, 2**31 - 1), (False, 2**31 - 2)])
def test_a_v2_goaway_that_is_not_the_last_frame_is_followed_by_eight_bytes_for_nobody(
    client: bool, nobody: int
) -> None:
    end = End(V2, client=client)
    end.core.goaway(ErrorCode.NO_ERROR, b"bye")
    goaway, debug, filler = end.sent()
    assert (goaway, debug) == (GoAway(0, 0), GoAwayDebug(b"bye"))
    assert filler == Data(nobody, 0, b"", False, True)


def test_the_frame_behind_a_v2_goaway_is_as_long_as_what_go_swallows() -> None:
    end = End(V2)
    end.core.goaway(ErrorCode.NO_ERROR, b"")
    assert len(end.bytes_sent()) == len(V2.goaway(0, 0, b"")) + HEADER_SIZE


@both
def test_a_last_goaway_and_that_of_v1_are_followed_by_nothing(wire: Wire) -> None:
    end = End(wire)
    end.core.goaway(ErrorCode.NO_ERROR, b"", last=wire is V2)
    assert end.sent() == [GoAway(0, 0)]


@pytest.mark.parametrize("client", [False, True])
def test_the_frame_for_nobody_is_ignored_by_a_peer_of_ours(client: bool) -> None:
    sender, receiver = End(V2, client=client), End(V2, client=not client)
    sender.core.goaway(ErrorCode.NO_ERROR, b"")
    assert receiver.feed(sender.bytes_sent()) == [GoAwayReceived(ErrorCode.NO_ERROR)]
    assert receiver.sent() == []


@both
def test_an_ended_session_cannot_send_goaway(wire: Wire) -> None:
    end = End(wire)
    end.core.end(BreakReason(ErrorCode.PEER_EOF, "remote", "for a test", ends_session=True))
    with pytest.raises(KeyError):
        end.core.goaway(ErrorCode.NO_ERROR, b"")


# ---- the peer's


@both
def test_the_peers_goaway_is_told_with_its_code(wire: Wire) -> None:
    end = End(wire)
    assert end.feed(end.goaway(0, ErrorCode.INTERNAL_ERROR)) == [
        GoAwayReceived(ErrorCode.INTERNAL_ERROR)
    ]


@both
def test_a_goaway_that_says_nothing_new_costs_no_look_at_each_stream(wire: Wire) -> None:
    """Or a flood of them, at 16 bytes each, would keep this end from everything else."""
    end = End(wire, client=True)
    live = end.core.streams.live = Watched(end.core.streams.live)
    streams = [end.open() for _ in range(10)]
    for _ in range(20):  # of which each id is used up, so a look at all streams is the cheaper one
        end.core.reset(end.open(), ErrorCode.STREAM_CANCELLED)
    end.feed(end.goaway(streams[4].id))
    looks = live.looks
    assert looks
    assert sorted(live) == [stream.id for stream in streams[:5]]
    for last in (streams[4].id, streams[9].id, MAX_STREAM_ID, streams[4].id):
        end.feed(end.goaway(last))
    assert live.looks == looks
    end.feed(end.goaway(streams[1].id))
    assert sorted(live) == [stream.id for stream in streams[:2]]


class Watched(dict[int, Stream]):
    """Counts how often all streams are looked at."""

    looks = 0

    def values(self) -> Any:
        self.looks += 1
        return super().values()


@both
def test_a_code_without_a_name_is_told_as_a_number(wire: Wire) -> None:
    end = End(wire)
    assert end.feed(end.goaway(0, 255)) == [GoAwayReceived(255)]


@both
def test_the_debug_text_can_be_asked_for(wire: Wire) -> None:
    end = End(wire)
    assert end.core.peer_debug == b""
    end.feed(end.goaway(0, 0, b"see you later"))
    assert end.core.peer_debug == b"see you later"


@both
def test_a_debug_text_belongs_to_its_own_goaway(wire: Wire) -> None:
    end = End(wire)
    end.feed(end.goaway(0, 0, b"see you"), end.goaway(0, 2))
    assert end.core.peer_debug == b""


@both
def test_streams_that_the_peer_did_not_look_at_end_and_are_safe_to_retry(wire: Wire) -> None:
    end = End(wire, client=True)
    streams = [end.open() for _ in range(3)]
    events = end.feed(end.goaway(3))
    assert events[1:] == [StreamBroken(streams[1]), StreamBroken(streams[2])]
    assert reasons(streams) == [None, LOST, LOST]
    assert end.sent() == []


@both
def test_a_goaway_above_all_our_streams_ends_none(wire: Wire) -> None:
    end = End(wire, client=True)
    end.open()
    assert len(end.feed(end.goaway(2**31 - 1))) == 1


@both
def test_the_parity_of_the_last_id_means_nothing(wire: Wire) -> None:
    end = End(wire, client=True)
    streams = [end.open() for _ in range(2)]
    end.feed(end.goaway(4))
    assert reasons(streams) == [None, LOST]


@both
def test_a_second_goaway_may_end_more_streams(wire: Wire) -> None:
    end = End(wire, client=True)
    streams = [end.open() for _ in range(2)]
    end.feed(end.goaway(5), end.goaway(0))
    assert reasons(streams) == [LOST, LOST]


@both
def test_the_peers_streams_go_on_after_its_goaway_and_it_may_open_more(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    end.feed(end.goaway())
    assert end.feed(end.data(3, b"more")) == [DataReceived(stream, b"more")]
    assert isinstance(only(end.feed(end.syn(5))), StreamOpened)


def test_a_v2_stream_that_was_not_sent_yet_is_not_sent_after_the_peers_goaway() -> None:
    end = End(V2, client=True)
    stream = end.core.open_stream()
    end.feed(end.goaway())
    assert reasons([stream]) == [LOST]
    assert not end.core.wants_to_send


def test_a_v2_stream_above_the_last_id_that_was_answered_goes_on() -> None:
    end = End(V2, client=True)
    streams = [end.open() for _ in range(3)]
    end.feed(end.data(5, b"answer"), end.goaway(3))
    assert reasons(streams) == [None, None, LOST_PERHAPS]


def test_a_v2_goaway_is_exact_under_priorities_too() -> None:
    """Our SYNs rise, so the latest that a peer has seen is the highest."""
    end = End(V2, client=True)
    first, urgent = end.core.open_stream(), end.core.open_stream(priority=1)
    end.sent()
    late = end.core.open_stream()
    end.feed(end.goaway(3))
    assert reasons([first, urgent, late]) == [None, LOST, LOST]


# ---- defects: Go v1 announces debug text that it does not send

GO_GOAWAY = V1.header("GOAWAY", 31, 0, 0) + (3).to_bytes(4, "big") + bytes(4)


def test_go_v1s_goaway_is_acted_on_at_once() -> None:
    end = End(V1, client=True)
    streams = [end.open() for _ in range(2)]
    end.feed(GO_GOAWAY)
    assert reasons(streams) == [None, LOST]


def test_streams_go_on_behind_go_v1s_goaway() -> None:
    end = End(V1, client=True)
    stream = end.open()
    events = end.feed(GO_GOAWAY + end.data(3, b"hello") + end.data(3, b" again"))
    assert events[1:] == [DataReceived(stream, b"hello again")]


def test_new_streams_go_on_behind_go_v1s_goaway() -> None:
    end = End(V1, client=True)
    _, opened = end.feed(GO_GOAWAY + end.syn(2))
    assert isinstance(opened, StreamOpened)


def test_go_v1s_goaway_at_the_end_of_the_transport_is_no_failure() -> None:
    end = End(V1, client=True)
    assert end.feed(GO_GOAWAY, b"") == [GoAwayReceived(ErrorCode.NO_ERROR)]
    assert end.core.peer_debug == b""


def test_go_v1_may_say_goaway_twice() -> None:
    end = End(V1, client=True)
    assert end.feed(GO_GOAWAY + GO_GOAWAY) == [GoAwayReceived(ErrorCode.NO_ERROR)] * 2


# ---- defects: Rust leaves eight bytes out of the length


@pytest.mark.parametrize("debug", [b"12345678", b"no error here", b"x" * 24])
def test_what_rust_sends_behind_its_goaway_is_the_end(debug: bytes) -> None:
    end = End(V2, client=True)
    goaway, *rest = end.feed(V2.header("GOAWAY", len(debug), 0, 0) + bytes(8) + debug)
    assert goaway == GoAwayReceived(ErrorCode.NO_ERROR)
    assert rest in ([], [PeerEnded()])


def test_data_in_front_of_rusts_goaway_is_told_before_the_end() -> None:
    end = End(V2)
    stream = end.accept(3)
    goaway = V2.header("GOAWAY", 8, 0, 0) + bytes(8) + b"12345678"
    assert end.feed(end.data(3, b"last") + goaway) == [
        DataReceived(stream, b"last"),
        GoAwayReceived(ErrorCode.NO_ERROR),
        PeerEnded(),
    ]


def test_nothing_is_read_behind_the_end() -> None:
    end = End(V2)
    end.feed(end.goaway(), V2.header("RST", 5, 0, 3))
    assert end.feed(end.syn(3)) == []


def test_bytes_that_are_no_frame_behind_both_goaways_are_the_end() -> None:
    end = End(V2)
    end.core.goaway(ErrorCode.NO_ERROR, b"")
    assert end.feed(end.goaway(), V2.header("RST", 5, 0, 3))[-1] == PeerEnded()
    assert end.core.state is SessionState.DRAINING


def test_bytes_that_are_no_frame_behind_our_goaway_alone_are_a_failure() -> None:
    end = End(V2)
    end.core.goaway(ErrorCode.NO_ERROR, b"")
    assert isinstance(only(end.feed(V2.header("RST", 5, 0, 3))), SessionFailed)


def test_bytes_that_are_no_frame_behind_a_v1_goaway_are_a_failure() -> None:
    end = End(V1)
    assert isinstance(end.feed(end.goaway(), V1.header("RST", 5, 0, 3))[-1], SessionFailed)


def test_a_stream_error_of_a_v2_peer_that_went_away_is_still_a_failure() -> None:
    end = End(V2)
    assert isinstance(end.feed(end.goaway(), end.syn(2))[-1], SessionFailed)
