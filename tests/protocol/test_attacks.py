"""What a hostile peer can do, and the bound that stops it.

The attacks are those of docs/specification/security.md.  Each is played as plain bytes against a
connection whose limits are the defaults, unless a smaller one makes the same point sooner.
"""

from __future__ import annotations

import pytest

from trio_muxado._protocol.codec import Wire
from trio_muxado._protocol.decoder import COPY_BELOW
from trio_muxado._protocol.errors import ErrorCode
from trio_muxado._protocol.events import Event, SessionFailed, StreamBroken
from trio_muxado._protocol.frames import GoAway, Rst, WndInc
from trio_muxado._protocol.limits import Limits

from .driver import BOTH, V1, V2, End, failed, ids, only, opened, weight

both = pytest.mark.parametrize("wire", BOTH)

DEFAULTS = Limits()


def assert_calm(end: End, events: list[Event]) -> None:
    """The session was ended with what the version has for floods."""
    last = events[-1]
    assert isinstance(last, SessionFailed)
    assert last.code is ErrorCode.ENHANCE_YOUR_CALM
    goaway = [frame for frame in end.sent() if isinstance(frame, GoAway)]
    assert [frame.error_code for frame in goaway] == [1 if end.wire is V1 else 10]


# ---- too many streams


@both
def test_a_flood_of_streams_that_nobody_accepts_is_refused(wire: Wire) -> None:
    end = End(wire)
    events = end.feed(b"".join(map(end.syn, ids(1000))))
    assert not failed(events)
    assert len(opened(events)) == DEFAULTS.accept_backlog
    assert len(end.core.streams.live) == DEFAULTS.accept_backlog


@both
def test_a_flood_of_streams_that_are_accepted_is_refused(wire: Wire) -> None:
    end = End(wire)
    for stream_id in ids(1000):
        for stream in opened(end.feed(end.syn(stream_id))):
            end.core.accept(stream)
    assert len(end.core.streams.live) == DEFAULTS.max_inbound_streams


@both
def test_a_flood_of_refused_streams_ends_the_session(wire: Wire) -> None:
    end = End(wire, max_inbound_streams=1)
    end.accept(3)
    for stream_id in ids(DEFAULTS.provoked_resets, first=5):
        assert not failed(end.feed(end.syn(stream_id)))
        end.sent()
    assert_calm(end, end.feed(end.syn(100_001)))


@both
def test_streams_that_are_refused_now_and_then_end_nothing(wire: Wire) -> None:
    end = End(wire, max_inbound_streams=1)
    end.accept(3)
    for stream_id in ids(5000, first=5):
        end.now += 1 / DEFAULTS.resets_per_second
        assert not failed(end.feed(end.syn(stream_id)))
        end.sent()


# ---- rapid reset


@both
def test_streams_that_are_opened_and_reset_in_a_row_end_the_session(wire: Wire) -> None:
    end = End(wire)
    for stream_id in ids(DEFAULTS.unread_resets):
        events = end.feed(end.syn(stream_id), end.rst(stream_id))
        assert not failed(events)
        end.core.close(opened(events)[0])
    assert_calm(end, end.feed(end.syn(100_001), end.rst(100_001)))


@both
def test_streams_that_are_reset_now_and_then_end_nothing(wire: Wire) -> None:
    end = End(wire)
    for stream_id in ids(5000):
        end.now += 1 / DEFAULTS.resets_per_second
        events = end.feed(end.syn(stream_id), end.rst(stream_id))
        assert not failed(events)
        end.core.close(opened(events)[0])


@both
def test_a_handler_counts_as_live_until_it_ends_whatever_the_peer_resets(wire: Wire) -> None:
    end = End(wire)
    running = 0
    for stream_id in ids(DEFAULTS.unread_resets):
        for stream in opened(end.feed(end.syn(stream_id), end.rst(stream_id))):
            end.core.accept(stream)
            running += 1
    assert running == DEFAULTS.max_inbound_streams


@both
@pytest.mark.parametrize("act", ["read", "written", "ended", "closed"])
def test_three_thousand_cancelled_requests_are_no_attack(wire: Wire, act: str) -> None:
    """Nearly three times as many as would be one."""
    end = End(wire)
    assert DEFAULTS.unread_resets < 3_000 / 2
    for stream_id in ids(3_000):
        stream = end.accept(stream_id, b"request")
        if act == "read":
            end.core.consume(stream, 7)
        elif act == "written":
            end.core.send(stream, b"answer")
        elif act == "ended":
            end.core.end_sending(stream)
        else:
            end.core.close(stream)
        assert not failed(end.feed(end.rst(stream_id)))
        end.core.close(stream)
    assert not end.core.streams.live
    assert end.core.streams.inbound.used == 0


# ---- made you reset


@both
def test_credit_that_makes_us_reset_in_a_row_ends_the_session(wire: Wire) -> None:
    end = End(wire)
    for stream_id in ids(DEFAULTS.provoked_resets):
        stream = end.accept(stream_id)
        assert not failed(end.feed(end.wndinc(stream_id, 2**31 - 1)))
        end.core.close(stream)
        end.sent()
    end.accept(100_001)
    assert_calm(end, end.feed(end.wndinc(100_001, 2**31 - 1)))


@both
def test_a_handler_counts_as_live_until_it_ends_whatever_the_peer_makes_us_reset(
    wire: Wire,
) -> None:
    end = End(wire)
    running = 0
    for stream_id in ids(500):
        events = end.feed(end.syn(stream_id), end.wndinc(stream_id, 2**31 - 1))
        for stream in opened(events):
            end.core.accept(stream)
            running += 1
        end.sent()
    assert running == DEFAULTS.max_inbound_streams


@both
def test_data_after_the_end_in_a_row_ends_the_session(wire: Wire) -> None:
    end = End(wire, provoked_resets=10)
    for stream_id in ids(10):
        stream = end.accept(stream_id, fin=True)
        assert not failed(end.feed(end.data(stream_id, b"x")))
        end.core.close(stream)
        end.sent()
    end.accept(101, fin=True)
    assert_calm(end, end.feed(end.data(101, b"x")))


@both
def test_three_thousand_requests_that_we_cancelled_are_no_attack(wire: Wire) -> None:
    end = End(wire, client=True)
    assert DEFAULTS.provoked_resets < 3_000 / 2
    for _ in range(3_000):
        stream = end.open()
        end.core.send(stream, b"request")
        end.bytes_sent()
        end.core.reset(stream, ErrorCode.STREAM_CANCELLED)
        end.bytes_sent()
        assert end.feed(end.data(stream.id, b"answer", fin=True)) == []
    assert not end.core.wants_to_send
    assert not end.core.streams.live


@both
def test_answers_that_nobody_waits_for_are_no_attack(wire: Wire) -> None:
    end = End(wire, client=True)
    streams = [end.open() for _ in range(4000)]
    for stream in streams:
        end.core.close(stream)
    end.sent()
    # All of them in one read: the transport can't take an answer between them.
    answers = b"".join(end.data(stream.id, b"answer", fin=True) for stream in streams)
    assert end.feed(answers) == []
    assert len(end.sent()) == len(streams)


# ---- floods that want answers


@both
def test_one_reset_answers_all_that_comes_for_a_stream_that_is_gone(wire: Wire) -> None:
    end = End(wire)
    end.core.end_sending(end.accept(3, fin=True))
    end.sent()
    end.feed(end.data(3, b"x") * 50_000)
    assert end.sent() == [Rst(3, 4)]


@both
def test_answers_that_the_peer_does_not_take_end_the_session(wire: Wire) -> None:
    end = End(wire, max_inbound_streams=1, provoked_resets=10**6)
    end.accept(3)
    limit = DEFAULTS.waiting_control_frames
    assert not failed(end.feed(b"".join(map(end.syn, ids(limit, first=5)))))
    assert_calm(end, end.feed(end.syn(100_001)))


@both
def test_what_we_reset_by_ourselves_is_no_answer(wire: Wire) -> None:
    end = End(wire, max_inbound_streams=1)
    for stream_id in ids(DEFAULTS.waiting_control_frames):
        end.core.reset(end.accept(stream_id), 7)
    end.accept(100_001)
    assert not failed(end.feed(end.syn(100_003)))


@both
def test_answers_that_the_peer_takes_do_not_add_up(wire: Wire) -> None:
    end = End(wire, max_inbound_streams=1, provoked_resets=10**6)
    end.accept(3)
    for stream_id in ids(3 * DEFAULTS.waiting_control_frames, first=5):
        assert not failed(end.feed(end.syn(stream_id)))
        if stream_id % 100 == 1:
            end.sent()


@both
def test_tiny_frames_that_are_read_cost_no_answers(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    answers = 0
    for _ in range(100_000 // 100):
        assert not failed(end.feed(end.data(3, b"x") * 100))
        end.core.consume(stream, 100)
        answers += len(end.sent())
    assert answers <= 100_000 // (wire.initial_window // 2) + 1


@both
def test_credit_waits_once_for_each_stream_while_the_peer_takes_nothing(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    for _ in range(50):
        for _ in range(4):
            end.feed(end.data(3, bytes(wire.initial_window // 8)))
        end.core.consume(stream, wire.initial_window // 2)
    assert isinstance(only(end.sent()), WndInc)


@both
def test_streams_that_were_answered_and_reset_leave_nothing_while_the_peer_takes_nothing(
    wire: Wire,
) -> None:
    end = End(wire)
    before = weight(end.core)
    for stream_id in ids(2000):
        stream = end.accept(stream_id, b"request")
        end.core.consume(stream, 7)
        end.core.send(stream, b"answer" * 1000)
        end.feed(end.rst(stream_id))
        end.core.close(stream)
    assert not end.core.wants_to_send
    assert weight(end.core) < before + 5_000


@both
def test_a_reader_that_grants_in_crumbs_gets_crumbs(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    end.core.send(stream, bytes(2 * wire.initial_window))
    end.sent()
    for _ in range(1000):
        end.feed(end.wndinc(3, 1))
        assert len(end.bytes_sent()) == 9
        assert not end.core.wants_to_send


# ---- nothing, often


@both
@pytest.mark.parametrize("stream_id", [3, 99])
def test_frames_without_meaning_end_the_session(wire: Wire, stream_id: int) -> None:
    end = End(wire)
    end.accept(3)
    end.feed(end.data(3, b"x"))
    for _ in range(DEFAULTS.empty_frames):
        assert not failed(end.feed(end.data(stream_id)))
    assert_calm(end, end.feed(end.data(stream_id)))


@both
@pytest.mark.parametrize("payload, fin", [(b"x", False), (b"", True)])
def test_frames_without_meaning_between_others_end_nothing(
    wire: Wire, payload: bytes, fin: bool
) -> None:
    end = End(wire)
    end.accept(3), end.accept(5)
    for _ in range(10):
        events = end.feed(end.data(3) * DEFAULTS.empty_frames, end.data(5, payload, fin=fin))
        assert not failed(events)


@both
def test_frames_without_meaning_between_long_ones_of_one_read_end_nothing(wire: Wire) -> None:
    """The decoder takes long frames that are alike as a run, also where others lie between."""
    end = End(wire)
    end.accept(3), end.accept(5)
    read = (end.data(5, bytes(COPY_BELOW)) + end.data(3) * DEFAULTS.empty_frames) * 10
    assert not failed(end.feed(read))
    assert_calm(end, end.feed(end.data(3)))


# ---- typed sessions


def test_types_that_never_come_take_places_and_end_nothing() -> None:
    end = End(V2, typed=True)
    for stream_id in ids(1000):
        assert not failed(end.feed(end.data(stream_id, b"\0\0\0", syn=True)))
        end.sent()
    assert len(end.core.streams.live) == DEFAULTS.max_inbound_streams + 16


def test_types_that_are_cut_by_resets_leave_nothing() -> None:
    end = End(V2, typed=True)
    for stream_id in ids(5000):
        end.now += 1
        events = end.feed(end.data(stream_id, b"\0\0\0", syn=True), end.rst(stream_id))
        assert [type(event) for event in events] == [StreamBroken]
    assert end.core.streams.inbound.used == 0
