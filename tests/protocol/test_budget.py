"""Who gets how much of what all receive windows of a session may take."""

from __future__ import annotations

import math

import pytest

from trio_muxado._protocol.budget import RECENT
from trio_muxado._protocol.codec import Wire
from trio_muxado._protocol.stream import Stream

from .driver import BOTH, End, ids

both = pytest.mark.parametrize("wire", BOTH)


def busy(end: End, stream_id: int, now: float) -> Stream:
    """A stream whose latest round began just now."""
    stream = end.accept(stream_id)
    stream.receive_window.round_since = now
    return stream


def grow_as_far_as_it_goes(end: End, stream: Stream, now: float) -> int:
    """As if the window was too small all the time."""
    size = 0
    while size < stream.receive_window.size:
        size = stream.receive_window.size
        end.core.streams.budget.grow(stream, now)
    return size


def grow_by_turns(end: End, streams: list[Stream], now: float) -> list[int]:
    for _ in range(20):
        for stream in streams:
            end.core.streams.budget.grow(stream, now)
    return [stream.receive_window.size for stream in streams]


@both
def test_a_window_alone_grows_to_its_limit(wire: Wire) -> None:
    end = End(wire, max_receive_window=10 * wire.initial_window)
    assert grow_as_far_as_it_goes(end, busy(end, 3, 1.0), 1.0) == 10 * wire.initial_window


@both
@pytest.mark.parametrize("number", [2, 3, 10, 40])
def test_windows_that_grow_by_turns_share_half_of_the_budget(wire: Wire, number: int) -> None:
    budget = 100 * wire.initial_window
    end = End(wire, receive_budget=budget)
    sizes = grow_by_turns(end, [busy(end, i, 1.0) for i in ids(number)], 1.0)
    assert max(sizes) - min(sizes) <= 1
    # What they began with is out of the half that is kept for that.
    assert sum(sizes) == pytest.approx(budget / 2 + number * wire.initial_window, rel=0.01)


@both
def test_windows_that_come_later_share_what_is_left(wire: Wire) -> None:
    """What was promised is never taken back."""
    end = End(wire, receive_budget=100 * wire.initial_window)
    first = busy(end, 3, 1.0)
    for _ in range(5):
        end.core.streams.budget.grow(first, 1.0)
    assert first.receive_window.size == 32 * wire.initial_window
    sizes = grow_by_turns(end, [busy(end, i, 2.0) for i in ids(3, first=5)], 2.0)
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) > 7 * wire.initial_window
    assert first.receive_window.size == 32 * wire.initial_window


@both
@pytest.mark.parametrize("how", ["idle", "ended", "closed", "reset"])
def test_streams_that_are_not_busy_any_more_take_no_share(wire: Wire, how: str) -> None:
    end = End(wire, receive_budget=1000 * wire.initial_window)
    core = end.core
    before = [busy(end, i, 1.0) for i in ids(9)]
    for stream in before:
        core.streams.budget.grow(stream, 1.0)
    later = 1.0 + RECENT + 0.1 if how == "idle" else 1.1
    for stream in before:
        if how == "ended":
            end.feed(end.fin(stream.id))
        elif how == "closed":
            core.close(stream)
        elif how == "reset":
            end.feed(end.rst(stream.id))
    end.sent()
    late = busy(end, 101, later)
    size = grow_as_far_as_it_goes(end, late, later)
    assert size > 400 * wire.initial_window or size == core._limits.max_receive_window


@both
def test_streams_that_are_busy_take_their_shares(wire: Wire) -> None:
    end = End(wire, receive_budget=1000 * wire.initial_window)
    for stream in [busy(end, i, 1.0) for i in ids(9)]:
        end.core.streams.budget.grow(stream, 1.0)
    late = busy(end, 101, 1.1)
    assert grow_as_far_as_it_goes(end, late, 1.1) < 60 * wire.initial_window


@both
def test_a_window_that_follows_the_largest_does_not_pass_it(wire: Wire) -> None:
    """Or two that follow each other would grow without an end."""
    end = End(wire)
    one, two = busy(end, 3, 1.0), busy(end, 5, 1.0)
    one.receive_window.grow(3 * wire.initial_window)
    budget = end.core.streams.budget
    budget.largest.is_followed_by(one.receive_window, 0.1)
    budget.grow(two, 1.0)
    assert two.receive_window.size == 2 * wire.initial_window
    budget.grow(two, 1.0)
    assert two.receive_window.size == 3 * wire.initial_window


@both
@pytest.mark.parametrize("how", ["ended", "closed", "reset", "nothing"])
def test_nothing_follows_a_stream_that_has_ended(wire: Wire, how: str) -> None:
    end = End(wire)
    stream = busy(end, 3, 1.0)
    largest = end.core.streams.budget.largest
    largest.is_followed_by(stream.receive_window, 0.1)
    if how == "ended":
        end.feed(end.fin(3))
    elif how == "closed":
        end.core.close(stream)
    elif how == "reset":
        end.feed(end.rst(3))
    assert (largest.window is None) == (how != "nothing")


@both
def test_a_window_that_was_never_in_a_round_grows_as_well(wire: Wire) -> None:
    """One that is used up at once asks for more before its first round is over."""
    end = End(wire)
    stream = end.accept(3)
    assert stream.receive_window.round_since == -math.inf
    end.core.streams.budget.grow(stream, 1.0)
    assert stream.receive_window.size == 2 * wire.initial_window
