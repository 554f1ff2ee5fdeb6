"""Streams end: by halves, or closed by the application; and what still comes then."""

from __future__ import annotations

import pytest

from trio_muxado._protocol.codec import Wire
from trio_muxado._protocol.errors import ErrorCode
from trio_muxado._protocol.events import DataReceived
from trio_muxado._protocol.frames import Data, Rst, WndInc
from trio_muxado._protocol.states import StreamInput, StreamState

from .driver import BOTH, End, only, reset_of

both = pytest.mark.parametrize("wire", BOTH)

CLOSED = 4  # STREAM_CLOSED, on both wires


def cut(data: bytes, pieces: int) -> list[bytes]:
    size = len(data) // pieces
    return [data[i : i + size] for i in range(0, len(data), size)]


# ---- half-close


@both
def test_the_peers_end_is_told_behind_its_data(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    events = end.feed(end.data(3, b"bye", fin=True))
    assert events == [DataReceived(stream, b"bye", ended=True)]
    assert stream.state is StreamState.HALF_CLOSED_REMOTE


@both
def test_we_may_send_after_the_peers_end(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3, fin=True)
    end.core.send(stream, b"answer")
    end.core.end_sending(stream)
    assert end.sent() == [Data(3, 6, b"answer", False, True)]


@both
def test_we_may_receive_after_our_end(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    end.core.end_sending(stream)
    end.sent()
    assert end.feed(end.data(3, b"still")) == [DataReceived(stream, b"still")]


@both
def test_we_grant_credit_after_our_end(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    end.core.end_sending(stream)
    end.sent()
    half = wire.initial_window // 2
    end.feed(*[end.data(3, bytes(half // 4))] * 4)
    end.core.consume(stream, half)
    assert isinstance(only(end.sent()), WndInc)


@both
def test_we_grant_no_credit_after_the_peers_end(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    half = wire.initial_window // 2
    end.feed(*[end.data(3, bytes(half // 4))] * 4, end.fin(3))
    end.core.consume(stream, half)
    assert end.sent() == []


@both
@pytest.mark.parametrize("ours_first", [False, True])
def test_a_stream_that_both_have_ended_is_gone(wire: Wire, ours_first: bool) -> None:
    end = End(wire)
    stream = end.accept(3)
    if ours_first:
        end.core.end_sending(stream)
        end.sent()
    end.feed(end.fin(3))
    if not ours_first:
        end.core.end_sending(stream)
        end.sent()
    assert stream.state is StreamState.CLOSED
    assert end.core.streams.live == {}


@both
def test_a_stream_lives_until_our_end_has_been_sent(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3, fin=True)
    end.core.end_sending(stream)
    assert end.core.streams.live == {3: stream}
    end.sent()
    assert end.core.streams.live == {}


@both
def test_we_cannot_send_after_our_end(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    end.core.end_sending(stream)
    assert StreamInput.SEND_END not in stream.allowed
    with pytest.raises(AssertionError):
        end.core.send(stream, b"more")


@both
def test_the_go_peers_second_end_is_ignored(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3, fin=True)
    assert end.feed(end.fin(3), end.fin(3)) == []
    assert stream.state is StreamState.HALF_CLOSED_REMOTE
    assert end.sent() == []


@both
def test_empty_data_after_the_peers_end_is_ignored(wire: Wire) -> None:
    end = End(wire)
    end.accept(3, fin=True)
    assert end.feed(end.data(3)) == []
    assert end.sent() == []


@both
def test_data_after_the_peers_end_is_answered_with_a_reset(wire: Wire) -> None:
    end = End(wire)
    end.accept(3, fin=True)
    broken = reset_of(only(end.feed(end.data(3, b"late"))))
    assert (broken.code, broken.initiator) == (ErrorCode.STREAM_CLOSED, "local")
    assert end.sent() == [Rst(3, CLOSED)]


@both
def test_data_after_both_ends_is_answered_with_a_reset_while_ours_still_waits(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3, fin=True)
    end.core.send(stream, bytes(wire.initial_window + 1))
    end.core.end_sending(stream)
    end.sent()
    assert stream.state is StreamState.CLOSED
    assert reset_of(only(end.feed(end.data(3, b"late")))).code is ErrorCode.STREAM_CLOSED
    assert end.sent() == [Rst(3, CLOSED)]
    assert end.core.streams.live == {}


@both
def test_empty_data_without_an_end_means_nothing(wire: Wire) -> None:
    end = End(wire)
    end.accept(3)
    assert end.feed(end.data(3)) == []


@both
def test_credit_after_our_end_is_ignored(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    end.core.end_sending(stream)
    end.sent()
    assert end.feed(end.wndinc(3, 5)) == []
    assert end.sent() == []


# ---- close


@both
def test_closing_sends_what_waits_and_then_the_end(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    end.core.send(stream, b"last words")
    end.core.close(stream)
    assert end.sent() == [Data(3, 10, b"last words", False, True)]


@both
def test_closing_after_our_end_sends_no_second_one(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    end.core.end_sending(stream)
    end.sent()
    end.core.close(stream)
    assert end.sent() == []


@both
def test_closing_twice_is_closing_once(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    for _ in range(2):
        end.core.close(stream)
    assert end.sent() == [Data(3, 0, b"", False, True)]
    end.core.close(stream)
    assert end.sent() == []


@both
def test_closing_after_the_peers_end_ends_the_stream(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3, fin=True)
    end.core.close(stream)
    assert stream.state is StreamState.CLOSED
    assert end.sent() == [Data(3, 0, b"", False, True)]
    assert end.core.streams.live == {}


@both
def test_closing_gives_back_the_credit_of_what_was_not_read(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    eighth = wire.initial_window // 8
    end.feed(*[end.data(3, bytes(eighth))] * 4)
    end.core.consume(stream, 10)
    end.core.close(stream)
    assert end.sent() == [WndInc(3, 4 * eighth), Data(3, 0, b"", False, True)]


@both
def test_closing_gives_no_credit_to_a_peer_that_has_enough(wire: Wire) -> None:
    """It does not wait for credit, so what it sends next is answered with RST."""
    end = End(wire)
    stream = end.accept(3)
    eighth = wire.initial_window // 8
    end.feed(*[end.data(3, bytes(eighth))] * 3, end.data(3, bytes(eighth - 1)))
    end.core.close(stream)
    assert end.sent() == [Data(3, 0, b"", False, True)]
    assert end.feed(end.data(3, b"more")) == []
    assert end.sent() == [Rst(3, CLOSED)]


@both
def test_closing_within_a_frame_gives_back_the_credit_of_all_of_it(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    eighth = wire.initial_window // 8
    frame = end.data(3, bytes(eighth))
    end.feed(*[frame] * 3, frame[:50])
    end.core.close(stream)
    assert WndInc(3, 4 * eighth) in end.sent()
    assert end.feed(frame[50:]) == []
    assert end.sent() == []


@both
@pytest.mark.parametrize("collected", [False, True])
def test_an_end_in_the_rest_of_a_frame_counts_for_a_closed_stream(
    wire: Wire, collected: bool
) -> None:
    end = End(wire)
    stream = end.accept(3)
    frame = end.data(3, bytes(100), fin=True)
    end.feed(frame[:50])
    end.core.close(stream)
    if collected:
        end.sent()
    assert end.feed(frame[50:]) == []
    assert stream.state is StreamState.CLOSED


@both
def test_a_peer_without_window_can_send_again_once_we_closed_and_learns_of_it(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    quarter = wire.initial_window // 8
    end.feed(*[end.data(3, bytes(quarter))] * 8)
    assert stream.receive_window.credit == 0
    end.core.close(stream)
    assert WndInc(3, wire.initial_window) in end.sent()
    assert end.feed(end.data(3, b"more")) == []
    assert end.sent() == [Rst(3, CLOSED)]


@both
def test_data_that_comes_while_our_last_words_wait_for_window_meets_a_reset(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    end.core.send(stream, bytes(wire.initial_window + 1))
    end.core.close(stream)
    end.sent()
    broken = reset_of(only(end.feed(end.data(3, b"late"))))
    assert broken.code is ErrorCode.STREAM_CLOSED
    assert end.sent() == [Rst(3, CLOSED)]


@both
@pytest.mark.parametrize("pieces", [1, 3])
def test_data_that_comes_while_our_last_words_wait_for_the_transport_is_skipped(
    wire: Wire, pieces: int
) -> None:
    end = End(wire)
    stream = end.accept(3)
    end.core.send(stream, b"last words")
    end.core.close(stream)
    assert end.feed(*cut(end.data(3, b"late"), pieces)) == []
    assert end.sent() == [WndInc(3, 4), Data(3, 10, b"last words", False, True)]
    assert end.feed(end.data(3, b"later")) == []
    assert end.sent() == [Rst(3, CLOSED)]


@both
def test_the_end_behind_data_that_is_skipped_counts(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    end.core.send(stream, b"last words")
    end.core.close(stream)
    assert end.feed(end.data(3, b"late", fin=True)) == []
    assert stream.state is StreamState.CLOSED
    end.sent()
    assert (end.core.streams.live, end.core.streams.inbound.used) == ({}, 0)


@both
def test_skipped_data_beyond_the_window_is_still_a_violation(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    end.core.send(stream, b"last words")
    end.core.close(stream)
    stream.receive_window.credit = 3
    assert reset_of(only(end.feed(end.data(3, b"late")))).code is ErrorCode.FLOW_CONTROL_ERROR


@both
def test_the_peers_end_is_not_told_to_an_application_that_is_gone(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    end.core.close(stream)
    assert end.feed(end.fin(3)) == []
    assert stream.state is StreamState.CLOSED


@both
def test_a_closed_stream_still_gets_window_for_what_waits(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    end.core.send(stream, bytes(wire.initial_window + 5))
    end.core.close(stream)
    end.sent()
    end.feed(end.wndinc(3, 5))
    assert end.sent() == [Data(3, 5, bytes(5), False, True)]
    assert end.core.streams.live == {}


@both
def test_a_closed_stream_that_is_gone_ignores_what_is_no_data(wire: Wire) -> None:
    end = End(wire)
    end.core.close(end.accept(3))
    end.sent()
    assert end.feed(end.fin(3), end.data(3), end.wndinc(3, 5), end.rst(3)) == []
    assert end.sent() == []


@both
def test_closing_a_stream_that_broke_sends_nothing(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    end.feed(end.rst(3))
    end.core.close(stream)
    assert end.sent() == []
