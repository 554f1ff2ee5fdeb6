"""Credit: what may be sent, what has been promised, and when it is granted again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_muxado._protocol.stream import Stream
from trio_muxado._protocol.windows import (
    ENOUGH,
    MAX_WINDOW,
    PLENTY,
    SLACK,
    LargestWindow,
    ReceiveWindow,
)
from trio_muxado._protocol.wire import V1

INITIAL = 1000
HALF = INITIAL // 2


# ---- the sender's side


def test_a_send_window_begins_with_the_versions_size() -> None:
    assert Stream(3, V1, True).send_window == V1.initial_window


def test_a_grant_enlarges_the_window_past_its_beginning() -> None:
    stream = Stream(3, V1, True)
    assert stream.increase_send_window(5)
    assert stream.send_window == V1.initial_window + 5


def test_a_window_may_reach_its_ceiling() -> None:
    stream = Stream(3, V1, True)
    assert stream.increase_send_window(MAX_WINDOW - V1.initial_window)
    assert stream.send_window == 2**31 - 1


def test_a_window_may_not_pass_its_ceiling_and_is_left_as_it_was() -> None:
    stream = Stream(3, V1, True)
    assert not stream.increase_send_window(MAX_WINDOW - V1.initial_window + 1)
    assert stream.send_window == V1.initial_window


# ---- the receiver's side


def test_what_comes_uses_the_promise_up() -> None:
    window = ReceiveWindow(INITIAL)
    assert window.take(INITIAL)
    assert window.credit == 0


def test_more_than_was_promised_is_refused_and_counts_for_nothing() -> None:
    window = ReceiveWindow(INITIAL)
    assert not window.take(INITIAL + 1)
    assert (window.credit, window.unconsumed) == (INITIAL, 0)


def test_nothing_is_granted_before_half_of_the_window_was_consumed() -> None:
    window = ReceiveWindow(INITIAL)
    window.take(INITIAL)
    assert window.consume(HALF - 1) == 0
    assert window.credit == 0


def test_half_of_the_window_is_granted_as_soon_as_it_was_consumed() -> None:
    window = ReceiveWindow(INITIAL)
    window.take(INITIAL)
    window.consume(HALF - 1)
    assert window.consume(1) == HALF
    assert window.credit == HALF


def test_a_larger_window_grants_no_later_than_half_of_the_initial_one() -> None:
    window = ReceiveWindow(INITIAL)
    window.grow(100 * INITIAL)
    window.take_grant()
    window.take(HALF)
    assert window.consume(HALF) == HALF


def test_a_window_that_grows_promises_the_surplus_with_the_next_grant() -> None:
    window = ReceiveWindow(INITIAL)
    window.grow(3 * INITIAL)
    assert window.credit == INITIAL
    assert window.take_grant() == 2 * INITIAL
    assert window.credit == 3 * INITIAL


def test_a_window_never_shrinks() -> None:
    with pytest.raises(AssertionError):
        ReceiveWindow(INITIAL).grow(INITIAL - 1)


def test_a_window_never_grows_past_the_ceiling() -> None:
    with pytest.raises(AssertionError):
        ReceiveWindow(INITIAL).grow(MAX_WINDOW + 1)


def test_more_than_what_came_cannot_be_consumed() -> None:
    window = ReceiveWindow(INITIAL)
    window.take(5)
    with pytest.raises(AssertionError):
        window.consume(6)


def test_what_is_discarded_is_granted_at_once_with_all_that_was_owed() -> None:
    window = ReceiveWindow(INITIAL)
    window.take(100)
    window.consume(30)
    assert window.discard() == 100
    assert window.credit == INITIAL


def test_nothing_is_granted_for_a_discard_of_nothing() -> None:
    assert ReceiveWindow(INITIAL).discard() == 0


# ---- whether a window is too small


def use_up(window: ReceiveWindow, now: float, pieces: int = 10) -> bool:
    """The peer sends a window's worth in pieces, each of which is read at once."""
    size = window.size
    too_small = False
    for number in range(pieces):
        piece = size * (number + 1) // pieces - size * number // pieces
        assert window.take(piece)
        window.consume(piece)
        too_small |= window.end_round(now, LargestWindow())
    return too_small


def test_a_window_that_is_used_up_at_once_is_too_small_when_all_of_it_was_read() -> None:
    window = ReceiveWindow(INITIAL)
    window.take(INITIAL)
    window.consume(INITIAL - 1)
    assert not window.end_round(1.0, LargestWindow())
    window.consume(1)
    assert window.end_round(1.0, LargestWindow())


@pytest.mark.parametrize("size, grows", [(PLENTY - 1, True), (PLENTY, False)])
def test_a_large_window_that_was_used_up_shows_how_late_the_application_is(
    size: int, grows: bool
) -> None:
    """More than a few reads of the transport are not used up at once: they wait unread."""
    window = ReceiveWindow(INITIAL)
    window.grow(size)
    window.take_grant()
    window.take(size)
    window.consume(size)
    assert window.end_round(1.0, LargestWindow()) is grows


def test_a_window_that_grew_has_to_be_used_up_again() -> None:
    window = ReceiveWindow(INITIAL)
    window.take(INITIAL)
    window.consume(INITIAL)
    window.grow(2 * INITIAL)
    assert not window.end_round(1.0, LargestWindow())


def test_a_window_is_too_small_as_long_as_more_of_it_takes_no_longer() -> None:
    """Each piece is granted again as it comes, so the peer never seems to be short of credit."""
    window = ReceiveWindow(INITIAL)
    now = 0.0
    assert not use_up(window, now)  # nothing to compare with yet
    for _ in range(5):
        now += 0.1  # a round trip, however much came in it
        assert use_up(window, now)
        window.grow(2 * window.size)
        window.take_grant()


def test_a_window_is_large_enough_when_more_of_it_takes_longer() -> None:
    window = ReceiveWindow(INITIAL)
    now = 0.0
    use_up(window, now)
    for _ in range(2):
        now += 0.1
        use_up(window, now)
        window.pinched = False
    window.grow(2 * window.size)
    window.take_grant()
    for _ in range(5):
        now += 0.2
        assert not use_up(window, now)


@pytest.mark.parametrize("seconds, size", [(0.003, PLENTY), (0.010, 8 << 20), (0.1, 64 << 20)])
def test_a_window_grows_until_as_much_as_an_end_takes_comes_in_a_round(
    seconds: float, size: int
) -> None:
    """Rounds that stay as short as they were would let it double forever."""
    window = ReceiveWindow(64 * 1024)
    now = 0.0
    for _ in range(40):
        now += seconds
        if use_up(window, now):
            window.grow(2 * window.size)
            window.take_grant()
    assert window.size == size
    assert size == PLENTY or size // 2 < seconds * ENOUGH <= size


def test_a_clock_that_stands_still_shows_nothing() -> None:
    window = ReceiveWindow(INITIAL)
    assert not any(use_up(window, 1.0) for _ in range(10))


def test_a_round_counts_what_waits_to_be_read_when_it_begins() -> None:
    """Else an application that is late would make rounds look shorter than a round trip."""
    window = ReceiveWindow(INITIAL)
    window.take(700)
    window.consume(100)
    window.end_round(0.0, LargestWindow())  # the first round begins: 300 may come, 600 wait
    window.consume(600)
    window.take(100)
    window.consume(100)
    assert not window.end_round(0.1, LargestWindow())
    window.take(250)
    window.consume(250)
    assert window.end_round(1.0, LargestWindow())


# ---- the largest window of a session, and those that follow it


def rounds(window: ReceiveWindow, largest: LargestWindow, *ends: float) -> bool:
    """The peer sends more than a window's worth in each round; whether the last asks for more."""
    too_small = False
    for now in ends:
        window.pinched = False
        for _ in range(2):
            size = window.size // 2 + 1
            assert window.take(size)
            window.consume(size)
            window.take_grant()
            too_small = window.end_round(now, largest)
    return too_small


def stuck_beside_a_larger_one(took: float) -> tuple[ReceiveWindow, LargestWindow]:
    """A window whose shortest round was far shorter than one of the largest window."""
    largest = LargestWindow()
    one, two = ReceiveWindow(INITIAL), ReceiveWindow(INITIAL)
    two.grow(8 * INITIAL)
    two.take_grant()
    rounds(one, largest, 1.0, 1.001, 1.002)
    rounds(two, largest, 1.0, 1.0 + took)
    assert largest.window is two
    return one, largest


@pytest.mark.parametrize("took, follows", [(0.09, True), (0.1 * SLACK - 0.01, True), (0.2, False)])
def test_a_window_follows_the_largest_if_its_rounds_are_as_short(
    took: float, follows: bool
) -> None:
    one, largest = stuck_beside_a_larger_one(0.1)
    rounds(one, largest, 2.0)
    assert rounds(one, largest, 2.0 + took) == follows


def test_a_window_that_has_caught_up_follows_no_more() -> None:
    one, largest = stuck_beside_a_larger_one(0.1)
    one.grow(8 * INITIAL)
    one.take_grant()
    rounds(one, largest, 2.0)
    assert not rounds(one, largest, 2.1)
    assert largest.window is one


def test_nothing_follows_a_window_whose_stream_has_ended() -> None:
    one, largest = stuck_beside_a_larger_one(0.1)
    largest.forget()
    assert largest.size == 0
    rounds(one, largest, 2.0)
    assert not rounds(one, largest, 2.1)


# ---- always


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["take", "consume", "grow", "grant", "discard"]), st.integers(0, 3000)
        )
    )
)
def test_credit_and_unconsumed_and_owed_always_add_up(steps: list[tuple[str, int]]) -> None:
    window = ReceiveWindow(INITIAL)
    peer = INITIAL  # what a peer may send that takes every grant at once
    for what, number in steps:
        if what == "take" and window.take(number):
            peer -= number
        elif what == "consume":
            increment = window.consume(min(number, window.unconsumed))
            assert increment == 0 or increment >= HALF
            peer += increment
        elif what == "grow":
            window.grow(window.size + number)
        elif what == "grant":
            peer += window.take_grant()
        elif what == "discard":
            peer += window.discard()
            assert window.unconsumed == window.ungranted == 0
        assert window.credit == peer
        assert window.ungranted >= 0
