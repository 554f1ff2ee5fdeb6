"""A session as a whole: which generation, how it fails, how it ends."""

from __future__ import annotations

import pytest

from trio_muxado._protocol.codec import Wire
from trio_muxado._protocol.connection import Connection
from trio_muxado._protocol.errors import ErrorCode
from trio_muxado._protocol.events import (
    DataReceived,
    SessionFailed,
    StreamBroken,
    StreamOpened,
    WireDetected,
)
from trio_muxado._protocol.frames import GoAway, GoAwayDebug, Rst, Syn, Unknown
from trio_muxado._protocol.limits import Limits
from trio_muxado._protocol.states import SessionState
from trio_muxado._protocol.stream import BreakReason

from .driver import BOTH, V1, V2, End, only, reset_of

both = pytest.mark.parametrize("wire", BOTH)

EOF = BreakReason(ErrorCode.PEER_EOF, "remote", "the transport ended", ends_session=True)


def detecting(*, typed: bool = False) -> Connection:
    return Connection(client=False, wire=None, limits=Limits(), typed=typed)


# ---- the generation


@both
def test_a_server_detects_the_generation_of_its_client(wire: Wire) -> None:
    core = detecting()
    detected, opened = core.receive_data(End(wire).syn(3), 0.0)
    assert detected == WireDetected(wire)
    assert isinstance(opened, StreamOpened)
    assert core.wire is wire


@both
def test_four_bytes_are_enough_and_none_is_lost(wire: Wire) -> None:
    core = detecting()
    first = End(wire).syn(3) + End(wire).data(3, b"hello")
    for i in range(3):
        assert core.receive_data(first[i : i + 1], 0.0) == []
    assert core.receive_data(first[3:4], 0.0) == [WireDetected(wire)]
    opened, received = core.receive_data(first[4:], 0.0)
    assert isinstance(opened, StreamOpened)
    assert received == DataReceived(opened.stream, b"hello")


@both
def test_what_was_detected_is_not_kept(wire: Wire) -> None:
    core = detecting()
    core.receive_data(End(wire).syn(3) + End(wire).data(3, bytes(10_000)), 0.0)
    assert core._undetected == b""


@both
def test_nothing_wants_to_be_sent_before_the_generation_is_known(wire: Wire) -> None:
    core = detecting()
    assert not core.wants_to_send
    core.receive_data(End(wire).syn(3)[:3], 0.0)
    assert not core.wants_to_send
    assert core.all_sent


@both
def test_all_is_sent_once_a_session_that_ended_has_nothing_for_the_wire(wire: Wire) -> None:
    """The frame writer ends by this, whatever streams still wanted to say."""
    end = End(wire, client=True)
    too_much = bytes(wire.initial_window + 1)
    for _ in range(3):
        end.core.send(end.open(), too_much)
    starved, closed, half = end.core.streams.live.values()
    end.core.close(closed)
    end.core.end_sending(half)
    end.sent()
    end.core.open_stream()  # the frame that opens it still waits
    assert starved.outgoing.size
    assert not end.core.all_sent
    end.core.end(EOF)
    end.sent()
    assert end.core.all_sent


def test_a_client_that_speaks_something_else_ends_the_session_without_an_answer() -> None:
    core = detecting()
    failed = only(core.receive_data(b"GET / HTTP/1.1\r\n", 0.0))
    assert isinstance(failed, SessionFailed)
    assert failed.code is ErrorCode.PROTOCOL_ERROR
    assert not core.wants_to_send
    assert core.receive_data(End(V1).syn(3), 0.0) == []


def test_of_such_a_client_its_first_bytes_are_shown_and_what_they_are() -> None:
    failed = only(detecting().receive_data(b"GET / HTTP/1.1\r\n" * 1000, 0.0))
    assert isinstance(failed, SessionFailed)
    assert failed.message.endswith("begins with 47 45 54 20, an HTTP request")


def test_a_server_that_detects_may_be_typed() -> None:
    core = detecting(typed=True)
    _, opened = core.receive_data(End(V2).data(3, b"\1\2\3\4", syn=True), 0.0)
    assert isinstance(opened, StreamOpened)
    assert opened.stream.type == 0x01020304


def test_a_session_that_ends_before_its_generation_is_known_ends() -> None:
    core = detecting()
    assert core.end(EOF) == []
    assert core.receive_data(End(V1).syn(3), 0.0) == []


# ---- failure


@both
def test_a_violation_is_told_to_the_peer(wire: Wire) -> None:
    end = End(wire)
    end.accept(3)
    failed = end.feed(end.syn(2))[-1]
    assert isinstance(failed, SessionFailed)
    goaway, debug = end.sent()
    assert goaway == GoAway(3, 1)
    assert debug == GoAwayDebug(failed.message.encode())


@both
def test_a_violation_breaks_every_stream_first(wire: Wire) -> None:
    end = End(wire)
    streams = [end.accept(3), end.accept(5)]
    *broken, failed = end.feed(end.syn(2))
    assert broken == [StreamBroken(stream) for stream in streams]
    for stream in streams:
        assert stream.broken is not None
        assert stream.broken.ends_session
        assert (stream.broken.initiator, stream.broken.code) == ("local", ErrorCode.PROTOCOL_ERROR)
    assert isinstance(failed, SessionFailed)


@both
def test_what_came_before_a_violation_is_told_before_it(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    events = end.feed(end.data(3, b"good") + end.syn(2) + end.data(3, b"bad"))
    assert events[:2] == [DataReceived(stream, b"good"), StreamBroken(stream)]
    assert isinstance(events[2], SessionFailed)
    assert len(events) == 3


@both
def test_nothing_is_read_or_sent_after_a_violation(wire: Wire) -> None:
    end = End(wire)
    end.core.send(end.accept(3), b"never mind")
    end.feed(end.syn(2))
    assert [type(frame) for frame in end.sent()] == [GoAway, GoAwayDebug]
    assert end.feed(end.syn(5), end.data(3, b"x")) == []
    assert not end.core.wants_to_send
    assert end.core.state is SessionState.ENDED


@both
def test_a_session_fails_once(wire: Wire) -> None:
    end = End(wire)
    failures = [e for e in end.feed(end.syn(2) * 3, end.syn(2)) if isinstance(e, SessionFailed)]
    assert len(failures) == 1


# ---- the end


@both
def test_the_end_breaks_every_stream(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    ours = end.open()
    assert end.core.end(EOF) == [StreamBroken(stream), StreamBroken(ours)]
    assert stream.broken is ours.broken is EOF
    assert end.core.streams.live == {}


@both
def test_streams_that_were_never_opened_at_the_peer_are_safe_to_retry(wire: Wire) -> None:
    end = End(wire, client=True)
    streams = [end.open(), end.core.open_stream(priority=1), end.core.open_stream()]
    end.core.send(streams[2], b"once only")
    end.core.end(EOF)
    assert [reset_of(StreamBroken(s)).safe_to_retry for s in streams] == [False, True, True]
    assert not end.core.wants_to_send


@both
def test_a_stream_with_a_new_priority_is_safe_to_retry_as_well(wire: Wire) -> None:
    end = End(wire, client=True)
    stream = end.core.open_stream(priority=1)
    end.core.prioritize(stream, 2)
    end.core.end(EOF)
    assert reset_of(StreamBroken(stream)).safe_to_retry
    assert not end.core.wants_to_send


def test_v1_opens_what_was_reset_even_when_the_session_has_ended() -> None:
    """Some peers take an RST of a stream that they have never heard of for an error."""
    end = End(V1, client=True)
    end.core.reset(end.core.open_stream(), 7)
    never_sent = end.core.open_stream()
    end.core.end(EOF)
    assert reset_of(StreamBroken(never_sent)).safe_to_retry
    assert end.sent() == [Syn(3, 0, 0, False), Rst(3, 7)]


@both
def test_a_stream_of_the_peer_is_never_safe_to_retry(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    end.core.end(EOF)
    assert not reset_of(StreamBroken(stream)).safe_to_retry


@both
def test_what_is_safe_to_retry_is_not_opened_beside_the_last_words(wire: Wire) -> None:
    end = End(wire, client=True)
    stream = end.core.open_stream()
    told = end.feed(end.data(0))
    assert reset_of(told[0]).safe_to_retry
    assert end.sent()[0] == GoAway(0, 1)
    assert not end.core.wants_to_send
    assert not stream.open_due


@both
def test_the_end_comes_once(wire: Wire) -> None:
    end = End(wire)
    end.accept(3)
    end.core.end(EOF)
    assert end.core.end(EOF) == []


@both
def test_the_end_leaves_streams_alone_that_have_ended(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3, fin=True)
    end.core.end_sending(stream)
    end.sent()
    assert end.core.end(EOF) == []
    assert stream.broken is None


@both
def test_streams_can_be_closed_and_reset_after_the_end(wire: Wire) -> None:
    end = End(wire)
    streams = [end.accept(3), end.accept(5)]
    end.core.end(EOF)
    end.core.close(streams[0])
    end.core.reset(streams[1], 7)
    assert end.sent() == []
    assert end.core.streams.inbound.used == 0


# ---- frames that a later revision may bring


def test_unknown_frames_of_v2_are_skipped() -> None:
    end = End(V2)
    stream = end.accept(3)
    unknown = (5 << 8 | 0xF << 4).to_bytes(4, "big") + (3).to_bytes(4, "big") + b"12345"
    assert isinstance(end._ear.feed(unknown)[0], Unknown)
    assert end.feed(unknown + end.data(3, b"x")) == [DataReceived(stream, b"x")]


def test_unknown_frames_of_v1_end_the_session() -> None:
    end = End(V1)
    failed = only(end.feed((5).to_bytes(4, "big") + (3).to_bytes(4, "big")))
    assert isinstance(failed, SessionFailed)
    assert failed.code is ErrorCode.PROTOCOL_ERROR
