"""Streams are reset, by either end; and what comes for a stream that is gone or never was."""

from __future__ import annotations

import pytest

from trio_muxado._protocol.codec import Wire
from trio_muxado._protocol.errors import ErrorCode
from trio_muxado._protocol.events import DataReceived, SessionFailed, StreamBroken
from trio_muxado._protocol.frames import Rst

from .driver import BOTH, V1, V2, End, only, reset_of

both = pytest.mark.parametrize("wire", BOTH)

CLOSED = 4  # STREAM_CLOSED, on both wires


# ---- reset by us


@both
def test_a_stream_that_expires_is_reset_and_its_application_told(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3, b"still to be read", fin=True)
    assert end.core.streams.half_open() == [stream]
    event = only(end.core.expire(stream, ErrorCode.STREAM_CANCELLED, "too long"))
    assert reset_of(event) == (ErrorCode.STREAM_CANCELLED, "local", "too long", False, False)
    assert end.sent() == [Rst(3, wire.code_to_wire(ErrorCode.STREAM_CANCELLED))]
    assert (end.core.streams.live, end.core.streams.inbound.used) == ({}, 0)


@both
def test_a_stream_that_expires_under_its_handler_keeps_its_place(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3, fin=True)
    end.core.hold(stream)
    end.core.expire(stream, ErrorCode.STREAM_CANCELLED, "too long")
    assert end.core.streams.inbound.used == 1
    end.core.close(stream)
    assert end.core.streams.inbound.used == 0


def test_the_peer_is_not_told_of_an_expired_stream_that_it_does_not_know() -> None:
    end = End(V2, client=True)
    stream = end.core.open_stream()
    end.core.end_sending(stream)
    assert end.core.streams.half_open() == [stream]
    end.core.expire(stream, ErrorCode.STREAM_CANCELLED, "too long")
    assert end.sent() == []


@both
def test_a_reset_frees_the_slot_of_a_stream_that_was_closed_before_its_answer(wire: Wire) -> None:
    """The state machine found it: nobody answers what was reset, so the slot was lost for good."""
    end = End(wire, client=True)
    stream = end.open()
    end.core.close(stream)
    end.sent()
    assert end.core.streams.outbound.used == 1
    end.core.reset(stream, ErrorCode.STREAM_CANCELLED)
    assert only(end.sent()) == Rst(stream.id, wire.code_to_wire(ErrorCode.STREAM_CANCELLED))
    assert end.core.streams.outbound.used == 0


@both
def test_a_reset_tells_the_peer_the_code(wire: Wire) -> None:
    end = End(wire)
    end.core.reset(end.accept(3), ErrorCode.STREAM_CANCELLED)
    assert end.sent() == [Rst(3, wire.code_to_wire(ErrorCode.STREAM_CANCELLED))]


@both
def test_a_plain_number_is_sent_as_it_is(wire: Wire) -> None:
    end = End(wire)
    end.core.reset(end.accept(3), 0xFFFFFFFF)
    assert end.sent() == [Rst(3, 0xFFFFFFFF)]


@both
def test_a_reset_drops_what_waits(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    end.core.send(stream, b"never mind")
    end.core.end_sending(stream)
    end.core.reset(stream, 7)
    assert end.sent() == [Rst(3, 7)]
    assert stream.outgoing.size == 0


@both
def test_a_reset_is_sent_once(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    end.core.reset(stream, 7)
    end.core.reset(stream, 7)
    end.core.close(stream)
    assert end.sent() == [Rst(3, 7)]


@both
def test_a_reset_is_known_as_our_own(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    end.core.reset(stream, 7)
    assert stream.broken is not None
    assert (stream.broken.code, stream.broken.initiator, stream.broken.safe_to_retry) == (
        7,
        "local",
        False,
    )


@both
def test_what_still_comes_after_our_reset_is_skipped_without_an_answer(wire: Wire) -> None:
    end = End(wire)
    end.core.reset(end.accept(3), 7)
    end.sent()
    late = (end.data(3, b"late"), end.wndinc(3, 1), end.fin(3), end.rst(3))
    assert end.feed(*late) == []
    assert end.sent() == []


@both
def test_a_reset_within_a_frame_skips_its_rest(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    frame = end.data(3, bytes(100), fin=True)
    end.feed(frame[:50])
    end.core.reset(stream, 7)
    assert end.feed(frame[50:80], frame[80:]) == []


def test_a_v2_stream_that_was_never_sent_is_reset_in_silence() -> None:
    end = End(V2, client=True)
    stream = end.core.open_stream()
    end.core.send(stream, b"never mind")
    end.core.reset(stream, 7)
    assert not end.core.wants_to_send
    assert end.core.open_stream().id == 5


def test_a_v1_stream_is_reset_behind_its_syn() -> None:
    end = End(V1, client=True)
    end.core.reset(end.core.open_stream(), 7)
    assert [type(frame).__name__ for frame in end.sent()] == ["Syn", "Rst"]


def test_an_old_v2_stream_cannot_reset_the_new_one_of_its_id() -> None:
    end = End(V2)
    old = end.accept(3)
    end.core.reset(old, 7)
    new = end.accept(3)
    end.core.reset(old, 7)
    end.core.close(old)
    assert new.broken is None
    assert end.core.streams.live == {3: new}


# ---- reset by the peer


@both
def test_the_peers_reset_is_told_with_its_code(wire: Wire) -> None:
    end = End(wire)
    end.accept(3)
    broken = reset_of(only(end.feed(end.rst(3, ErrorCode.INTERNAL_ERROR))))
    assert (broken.code, broken.initiator) == (ErrorCode.INTERNAL_ERROR, "remote")
    assert not broken.ends_session
    assert "INTERNAL_ERROR" in broken.message


@both
def test_a_code_without_a_name_is_told_as_a_number(wire: Wire) -> None:
    end = End(wire)
    end.accept(3)
    broken = reset_of(only(end.feed(end.rst(3, 4711))))
    assert broken.code == 4711
    assert "error 4711" in broken.message


@both
def test_a_reset_is_not_answered(wire: Wire) -> None:
    end = End(wire)
    end.accept(3)
    end.feed(end.rst(3))
    assert end.sent() == []


@both
def test_data_that_came_before_a_reset_is_told_before_it(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    events = end.feed(end.data(3, b"before") + end.rst(3))
    assert events == [DataReceived(stream, b"before"), StreamBroken(stream)]


@both
def test_the_peers_reset_drops_what_waits_to_be_sent(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    end.core.send(stream, bytes(100))
    end.feed(end.rst(3))
    assert not end.core.wants_to_send
    assert stream.outgoing.size == 0


@both
def test_what_was_received_can_be_consumed_after_a_reset(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3, bytes(100))
    end.feed(end.rst(3))
    end.core.consume(stream, 100)
    assert end.sent() == []


@both
@pytest.mark.parametrize("code", [ErrorCode.STREAM_REFUSED, ErrorCode.ACCEPT_QUEUE_FULL])
def test_a_refusal_is_safe_to_retry(wire: Wire, code: ErrorCode) -> None:
    end = End(wire, client=True)
    end.open()
    assert reset_of(only(end.feed(end.rst(3, code)))).safe_to_retry


@both
def test_another_reset_is_not_safe_to_retry(wire: Wire) -> None:
    end = End(wire, client=True)
    end.open()
    assert not reset_of(only(end.feed(end.rst(3, ErrorCode.STREAM_CANCELLED)))).safe_to_retry


@both
@pytest.mark.parametrize("sign", ["data", "wndinc", "empty"])
def test_a_refusal_after_a_sign_of_processing_is_not_safe_to_retry(wire: Wire, sign: str) -> None:
    end = End(wire, client=True)
    end.open()
    signs = {"data": end.data(3, b"x"), "wndinc": end.wndinc(3, 1), "empty": end.data(3)}
    end.feed(signs[sign])
    assert not reset_of(only(end.feed(end.rst(3, ErrorCode.STREAM_REFUSED)))).safe_to_retry


@both
def test_a_refusal_of_the_peers_own_stream_says_nothing(wire: Wire) -> None:
    end = End(wire)
    end.accept(3)
    assert not reset_of(only(end.feed(end.rst(3, ErrorCode.STREAM_REFUSED)))).safe_to_retry


# ---- streams that are gone, or never were


@both
def test_data_for_a_stream_that_ended_is_answered_once(wire: Wire) -> None:
    end = End(wire)
    end.core.end_sending(end.accept(3, fin=True))
    end.sent()
    assert end.feed(*[end.data(3, b"late")] * 3) == []
    assert end.sent() == [Rst(3, CLOSED)]


@both
def test_the_payload_for_a_stream_that_is_gone_is_skipped_piece_by_piece(wire: Wire) -> None:
    end = End(wire)
    end.core.end_sending(end.accept(3, fin=True))
    end.sent()
    alive = end.accept(5)
    frame = end.data(3, bytes(10_000))
    assert end.feed(*(frame[i : i + 100] for i in range(0, len(frame), 100))) == []
    assert end.feed(end.data(5, b"x")) == [DataReceived(alive, b"x")]


@both
def test_frames_without_data_for_a_stream_that_is_gone_are_ignored(wire: Wire) -> None:
    end = End(wire)
    end.core.end_sending(end.accept(3, fin=True))
    end.sent()
    assert end.feed(end.data(3), end.fin(3), end.rst(3), end.wndinc(3, 1)) == []
    assert end.sent() == []


@both
def test_frames_without_data_for_a_stream_that_never_was_are_ignored(wire: Wire) -> None:
    end = End(wire)
    assert end.feed(end.data(9), end.fin(9), end.rst(9), end.wndinc(9, 1)) == []
    assert end.sent() == []


@pytest.mark.parametrize("stream_id", [9, 2])
def test_data_for_a_stream_that_never_was_ends_a_v1_session(stream_id: int) -> None:
    end = End(V1)
    failed = only(end.feed(end.data(stream_id, b"x")))
    assert isinstance(failed, SessionFailed)
    assert failed.code is ErrorCode.PROTOCOL_ERROR


@pytest.mark.parametrize("stream_id", [9, 2])
def test_data_for_a_stream_that_never_was_is_answered_on_v2(stream_id: int) -> None:
    end = End(V2)
    assert end.feed(*[end.data(stream_id, b"x")] * 2) == []
    assert end.sent() == [Rst(stream_id, CLOSED)]


@both
def test_the_rust_peers_end_of_an_unused_stream_is_ignored(wire: Wire) -> None:
    end = End(wire)
    assert end.feed(end.fin(5)) == []
    assert end.sent() == []
